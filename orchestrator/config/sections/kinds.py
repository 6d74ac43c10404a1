"""`[sft]`, `[reject]`, `[reward_model]` and `[dpo]`: settings of stages of one kind alone."""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.config.sections.base import Section


class SftSection(Section):
    batch_size: Annotated[int, Field(ge=1)] = 128
    """Examples in one optimizer step; in a conversation, each turn of the assistant is one."""
    epochs: Annotated[float, Field(ge=0)] = 0
    """Passes through the data, in place of `loop.steps`: every example comes exactly so often; 0: `loop.steps` says how
    long the stage is."""
    mask_prompt: bool = True
    """Whether only the tokens of completions train; if not, every token does (pre-training)."""
    turns: Literal["all", "last"] = "all"
    """Turns of the assistant that train in a conversation."""
    eval_loss: bool = True
    """Whether the loss on evaluation sets with worked completions is measured too: before, every `loop.eval_every`
    steps, and after."""


class RejectSection(Section):
    """Settings of rejection sampling: how much it samples and which of it it keeps."""

    samples: Annotated[int, Field(ge=1)] = 4
    """Completions sampled from a prompt."""
    keep: Literal["right", "shortest", "best"] = "right"
    """Rule by which completions that pass the filters are kept: those that are `right` (as in an evaluation, by their
    rubric), the `shortest` of these, or the `best` by reward, right or not."""
    keep_at_most: Annotated[int, Field(ge=1)] = 1
    """Largest number of completions kept of a prompt."""
    filters: tuple[Literal["mixed_languages", "long_paragraph", "code_blocks", "code_only", "repetitive"], ...] = (
        "mixed_languages",
        "long_paragraph",
        "code_blocks",
    )
    """Flags of a thought that drop its completion (the default: those of R1)."""
    near_duplicate: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of common shingles at which the later of two rows is dropped; 1: only a row of the same words."""
    overlap_words: Annotated[int, Field(ge=0)] = 13
    """Number of words in a row that a prompt may not have in common with an evaluation set, or else it is not asked; 0:
    not checked."""
    shard_prompts: Annotated[int, Field(ge=1)] = 256
    """Prompts between two writes of sampled rows: as many may have to be sampled again after a stop."""


class RewardModelSection(Section):
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Pairs in one optimizer step."""
    scope: Literal["answer", "response"] = "answer"
    """Part of a response that the reward model reads. `answer`: the final answer alone (helpfulness in R1); `response`:
    the whole of it with its thought (harmlessness)."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the prompts whose pairs are kept from training and evaluated, beside the `eval.sets` with pairs."""


class DpoSection(Section):
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Pairs in one optimizer step."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """β of DPO: how closely the policy is held to the model that the stage starts from; a larger one holds it
    closer."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of the preferences that are taken to be the wrong way round (conservative DPO)."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the prompts whose pairs are kept from training and evaluated, beside the `eval.sets` with pairs."""
