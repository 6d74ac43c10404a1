"""What flows along the first arrow: prompt → group of completions.

Shapes: P = prompt tokens, L = completion tokens, G = completions in a group.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # fields hold arrays, but what reads a recipe and its rewards does without numpy
    import numpy as np

FinishReason = Literal["stop", "length"]
"""How a completion ended. `stop`: by itself; `length`: cut at `max_tokens`. What was cut from outside is no completion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A response to a prompt that the policy did not give: what an evaluation compares its completions with."""

    text: str
    num_tokens: int
    """Tokens of the text as the policy's tokenizer cuts it, the end of sequence included."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Prompt:
    """What the policy is asked. Equal by identity; `prompt_id` names it across runs."""

    prompt_id: str
    """Stable name: `<source>/<row>` for files, `<source>/<problem>` for generated tasks."""
    source: str
    """Name of the data source of the prompt (key of `data.sources` or `eval.sets`)."""
    rubric: str
    """Name of the rubric that scores the completions (key of `rewards.rubrics`)."""
    text: str
    """The rendered template: exactly the text that is tokenised."""
    token_ids: tuple[int, ...]
    """[P] token ids of `text`; never re-tokenised later."""
    answer: str
    """Reference answer; empty where the rubric needs none."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Further columns of the row, for reward functions that ask for them."""
    question: str = ""
    """The question of the row, before it was rendered; empty where it is not known."""
    columns: tuple[str, str] = ("prompt", "answer")
    """Names of the columns that question and answer stand in."""
    baseline: Baseline | None = None
    """Response to compare completions with, in evaluation sets that name one (`baseline_column`)."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Completion:
    """One sampled continuation of a prompt."""

    text: str
    token_ids: "np.ndarray"
    """[L] int32 token ids; the last is the end-of-sequence token when `finish_reason == "stop"`."""
    rollout_logprobs: "np.ndarray"
    """[L] float32 natural logarithm of the probability of each token under the distribution that it was drawn from."""
    policy_versions: "np.ndarray"
    """[L] int32, the policy version whose weights sampled each token."""
    finish_reason: FinishReason
    seed: int

    @property
    def oldest_version(self) -> int:
        """Lowest policy version among its tokens."""
        return int(self.policy_versions.min())


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RolloutGroup:
    """The G completions of one prompt: the unit of buffering, scoring and dropping."""

    group_id: str
    """Name of the group: `<stage>/<index>`, unique in a run and the same after a resume."""
    prompt: Prompt
    completions: tuple[Completion, ...]
    """[G] completions, in the order of their seeds."""
    replica: int
    """Index of the replica that sampled the group."""
    seconds: float
    """Wall time from the request to the last token."""

    @property
    def num_tokens(self) -> int:
        """Completion tokens of the whole group."""
        return sum(len(completion.token_ids) for completion in self.completions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to sample the completions of one prompt."""

    n: int = 1
    """Completions of the prompt (the group size G in training)."""
    temperature: float = 1.0
    """Temperature of the samples; 0 is greedy. Training divides the learner's logits by the same temperature."""
    top_p: float = 1.0
    """Nucleus mass; evaluation only (a cut tail would bias the importance ratio)."""
    max_tokens: int = 256
    """Tokens of the longest completion."""
    seed: int = 0
    """Seed of the samples: completion i is drawn with `seed + i`."""
