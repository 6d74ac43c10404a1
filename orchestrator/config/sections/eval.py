"""`[eval]`: the sets that a model is measured on, and how it answers them."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from orchestrator.config.sections.base import Section
from orchestrator.config.sections.data import SourceSection
from orchestrator.config.sections.temperature import Temperature
from rewards.text.language import LANGUAGES
from rewards.text.reflection import PHRASES
from rollout.errors import did_you_mean


class EvalSetSection(SourceSection):
    correct: str = ""
    """LABEL of the reward function that says which completions are right, by giving 1 or more; empty: the rubric's
    `accuracy` or `code_tests`, or else, where there are reference answers, the first one that is no reward model."""
    baseline_column: str = ""
    """Column that holds a response to win against, such as the chosen one of preference pairs: `win_rate` is the share
    of prompts on which the model's completion is preferred to it. With it no answer column is expected."""
    judged_by: str = ""
    """LABEL of the reward function that prefers one of two responses, by a higher value; empty: the rubric's first
    `reward_model` or `judge`, or else the whole reward."""

    @model_validator(mode="after")
    def _check_baseline(self) -> Self:
        if self.judged_by and not self.baseline_column:
            raise ValueError(
                f"judged_by = {self.judged_by!r} compares with nothing: name the column of the responses to win against "
                "with `baseline_column`"
            )
        if self.baseline_column and self.messages_column:
            raise ValueError("conversations are not asked, so nothing wins against `baseline_column`; remove it")
        return self

    @model_validator(mode="after")
    def _refuse_stage(self) -> Self:
        if self.stage:
            raise ValueError(
                f"stage = {self.stage!r}: an evaluation set has `path` or `task`; rows of a stage are to train on"
            )
        return self


class EvalSection(Section):
    sets: dict[str, EvalSetSection] = {}
    """Evaluation set, by a name of your choice: keys as in `data.sources`, and those below. Its problems must not occur
    in training. Sets with pairs are for the stages that learn from pairs; the others, and those with a
    `baseline_column`, for what generates."""
    samples: Annotated[int, Field(ge=0)] = 4
    """Completions sampled from a problem, for pass@1 and cons@k: k; 0: greedy decoding alone."""
    temperature: Temperature = 0.6
    """Temperature of the samples, 0.01 to 2 (0.6 as in R1)."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Share of the probability that the samples are drawn from, top-p (0.95 as in R1)."""
    greedy: bool = True
    """Whether problems are also answered by greedy decoding."""
    max_tokens: Annotated[int, Field(ge=0)] = 0
    """Longest completion in an evaluation, in tokens; 0: `rollout.max_tokens`."""
    reflection: dict[str, tuple[str, ...]] = {}
    """Phrases by which a thought says that it checks itself, by language (ISO 639-1 code), such as `en = ["wait,",
    "recheck*"]`; `*` at the end: the word may go on. A list takes the place of the shipped one of its language, an empty
    one of nothing. Counted in every evaluation (`reflections`)."""

    @field_validator("reflection")
    @classmethod
    def _check_phrases(cls, lists: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for language, phrases in lists.items():
            if language not in LANGUAGES:
                raise ValueError(
                    f"{language!r} is no language; give an ISO 639-1 code such as en{did_you_mean(language, LANGUAGES)}"
                )
            for phrase in phrases:
                if not any(sign.isalnum() for sign in phrase) or "*" in phrase.rstrip()[:-1]:
                    raise ValueError(f"{phrase!r} is no phrase; give words, with `*` at the end alone")
        return lists

    @property
    def reflection_phrases(self) -> tuple[str, ...]:
        """All phrases that are looked for: those that ship, but for languages that have their own here."""
        lists: Mapping[str, tuple[str, ...]] = {**PHRASES, **self.reflection}
        return tuple(phrase for phrases in lists.values() for phrase in phrases)

    @property
    def prompt_sets(self) -> dict[str, EvalSetSection]:
        """Sets of problems for the model to answer; also preference pairs where one response is to win against."""
        return {
            name: section
            for name, section in self.sets.items()
            if (section.baseline_column or not section.holds_pairs) and not section.messages_column
        }

    @property
    def pair_sets(self) -> dict[str, EvalSetSection]:
        """Sets of preference pairs."""
        return {name: section for name, section in self.sets.items() if section.holds_pairs}
