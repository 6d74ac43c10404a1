"""`[[stages.schedule]]`: settings that change at a step."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from orchestrator.checks.naming import flat
from orchestrator.config.schedule import CAN_CHANGE, refused_key
from orchestrator.config.sections.base import Section
from rollout.errors import did_you_mean


class RolloutChange(Section):
    max_tokens: Annotated[int, Field(ge=0)] = 0
    """Longest completion from then on; 0: as before."""
    temperature: Annotated[float, Field(ge=0)] = 0
    """Sampling temperature from then on; 0: as before."""


class SourceChange(Section):
    weight: Annotated[float, Field(ge=0)]
    """Share of this source from then on; 0: none."""


class DataChange(Section):
    sources: dict[str, SourceChange] = {}
    """Data source → what changes of it."""


class Change(Section):
    """Settings of a grpo stage that change at a step (orchestrator/config/schedule.py)."""

    from_step: Annotated[int, Field(ge=1)]
    """Batches trained before the change."""
    rollout: RolloutChange = RolloutChange()
    data: DataChange = DataChange()

    @model_validator(mode="before")
    @classmethod
    def _can_change(cls, values: Any) -> Any:
        if isinstance(values, dict) and (key := refused_key(flat(values))):
            raise ValueError(
                f"{key} cannot change at a step{did_you_mean(key, CAN_CHANGE)}; can: {', '.join(CAN_CHANGE)}"
            )
        return values
