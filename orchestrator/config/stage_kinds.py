"""The kinds of stages and what each does: the one place that knows them. Others ask a property of `kind_of(stage)`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

StageKind = Literal["sft", "grpo", "reject", "reward_model", "dpo", "eval"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The work of stages of one kind."""

    name: str
    """Name of the kind in a recipe."""
    words: str
    """Name of the kind for a reader, as tables and the report show it."""
    meaning: str
    """Explanation of the kind for the table of keys."""
    leaves: Literal["policy", "rows", "rewards", "nothing"]
    """`policy`: a model that the next stage starts from unless it says otherwise; `rows`: data that a later stage may take as
    a source; `rewards`: a model that the rubrics of later stages may score with."""
    learns_from: Literal["prompts", "examples", "pairs", "nothing"]
    """`prompts`: scored completions that its own policy samples; `examples`: worked completions; `pairs`: preferences."""
    samples: bool = False
    """Whether such a stage samples completions to the prompts of its data sources and scores them."""
    generates: bool = True
    """Whether the model writes completions at all, evaluations included; a stage whose model does not needs no engine."""
    only_evaluates: bool = False
    """Whether such a stage measures the model that it starts from and does nothing else."""
    reference: Literal["fixed", "for_kl", "none"] = "none"
    """Frozen reference model that the loss reads. `fixed`: the model that the stage starts from, always; `for_kl`: where a
    KL term has weight, and then it may be refreshed."""
    counts_epochs: bool = False
    """Whether the length of such a stage may be given in passes through the data instead of steps."""

    @property
    def trains(self) -> bool:
        """Whether such a stage takes optimizer steps."""
        return self.learns_from != "nothing"

    @property
    def is_rl(self) -> bool:
        """Whether such a stage is reinforcement learning: it trains on what its own policy samples."""
        return self.learns_from == "prompts"

    def needs_reference(self, kl_coef: float) -> bool:
        """Whether a reference model is loaded. `kl_coef`: weight of the KL term."""
        return self.reference == "fixed" or (self.reference == "for_kl" and kl_coef > 0)


class HasKind(Protocol):
    """A stage, of a recipe or of a run's record."""

    @property
    def kind(self) -> str: ...


_KINDS = (
    Kind(
        name="sft",
        words="supervised fine-tuning",
        meaning="supervised fine-tuning",
        leaves="policy",
        learns_from="examples",
        counts_epochs=True,
    ),
    Kind(
        name="grpo",
        words="reinforcement learning",
        meaning="reinforcement learning",
        leaves="policy",
        learns_from="prompts",
        samples=True,
        reference="for_kl",
    ),
    Kind(
        name="reject",
        words="rejection sampling",
        meaning="rejection sampling, which leaves rows",
        leaves="rows",
        learns_from="nothing",
        samples=True,
    ),
    Kind(
        name="reward_model",
        words="reward model",
        meaning='a model of preferences from pairs, for rubrics (`path = "stage:NAME"`)',
        leaves="rewards",
        learns_from="pairs",
        generates=False,
    ),
    Kind(
        name="dpo",
        words="preference optimisation",
        meaning="direct preference optimisation on pairs",
        leaves="policy",
        learns_from="pairs",
        reference="fixed",
    ),
    Kind(
        name="eval",
        words="evaluation",
        meaning="evaluation alone",
        leaves="nothing",
        learns_from="nothing",
        only_evaluates=True,
    ),
)
STAGE_KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _KINDS}
"""Name in a recipe → kind, in the order in which they are listed to a user."""


def kind_of(stage: HasKind) -> Kind:
    """The kind of a stage."""
    return kind_named(stage.kind)


def kind_named(name: str) -> Kind:
    """The kind of a name; for a name that no kind has (in a run of another version), one that does nothing."""
    known = STAGE_KINDS.get(name)
    return known or Kind(name=name, words=name, meaning="", leaves="nothing", learns_from="nothing")


def in_words() -> str:
    """All kinds and what they mean, for the table of keys."""
    return "; ".join(f"`{kind.name}`: {kind.meaning}" for kind in STAGE_KINDS.values())
