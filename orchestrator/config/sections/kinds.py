"""`[sft]`, `[reject]`, `[reward_model]` and `[dpo]`: what concerns stages of one kind alone."""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.config.sections.base import Section


class SftSection(Section):
    batch_size: Annotated[int, Field(ge=1)] = 128
    """Examples an optimizer step (of a conversation each turn of the assistant is one)."""
    epochs: Annotated[float, Field(ge=0)] = 0
    """Passes through the data, instead of `loop.steps`: every example comes exactly so often; 0: `loop.steps` says."""
    mask_prompt: bool = True
    """Train on completion tokens only; off: on every token (pre-training)."""
    turns: Literal["all", "last"] = "all"
    """Turns of the assistant in a conversation that train."""
    eval_loss: bool = True
    """Also measure the loss of evaluation sets with worked completions, before, every `loop.eval_every` steps, and after."""


class RejectSection(Section):
    """What a `reject` stage samples and keeps."""

    samples: Annotated[int, Field(ge=1)] = 4
    """Completions a prompt."""
    keep: Literal["right", "shortest", "best"] = "right"
    """Of what passes the filters: those that are `right` (as in an evaluation, by their rubric), the
    `shortest` of these, or the `best` by reward, right or not."""
    keep_at_most: Annotated[int, Field(ge=1)] = 1
    """Completions kept of a prompt."""
    filters: tuple[Literal["mixed_languages", "long_paragraph", "code_blocks", "code_only", "repetitive"], ...] = (
        "mixed_languages",
        "long_paragraph",
        "code_blocks",
    )
    """Flags of the thought that drop a completion (those of R1 by default)."""
    near_duplicate: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of common shingles at which the later of two rows is dropped; 1: only the same words again."""
    overlap_words: Annotated[int, Field(ge=0)] = 13
    """A prompt that shares so many words in a row with an evaluation set is not asked; 0: not checked."""
    shard_prompts: Annotated[int, Field(ge=1)] = 256
    """Prompts between two writes: what a stop may lose."""


class RewardModelSection(Section):
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Pairs an optimizer step."""
    scope: Literal["answer", "response"] = "answer"
    """What the reward model reads of a response: the final answer alone (helpfulness in R1), or the whole of it with its
    thought (harmlessness)."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the prompts whose pairs are not trained on but judged, beside the `eval.sets` with pairs."""


class DpoSection(Section):
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Pairs an optimizer step."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """β: how strongly the model that the stage starts from holds; larger is closer to it."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of the preferences taken to be the wrong way round (conservative DPO)."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the prompts whose pairs are not trained on but judged, beside the `eval.sets` with pairs."""
