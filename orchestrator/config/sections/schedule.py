"""`[[stages.schedule]]`: settings that change at a step."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from orchestrator.config.keys import flat
from orchestrator.config.sections.base import Section
from orchestrator.config.sections.temperature import TemperatureOrZero
from rollout.errors import did_you_mean

CAN_CHANGE = ("rollout.max_tokens", "rollout.temperature", "data.sources.NAME.weight")
"""Keys that a change may hold."""


class RolloutChange(Section):
    max_tokens: Annotated[int, Field(ge=0)] = 0
    """Longest completion from the step on, in tokens; 0: as before."""
    temperature: TemperatureOrZero = 0
    """Sampling temperature from the step on, 0.01 to 2; 0: as before."""


class SourceChange(Section):
    weight: Annotated[float, Field(ge=0)]
    """Share of the data source from the step on; 0: none."""


class DataChange(Section):
    sources: dict[str, SourceChange] = {}
    """Data source whose share changes at the step."""


class Change(Section):
    """Settings of a grpo stage that change at a step (orchestrator/config/schedule.py)."""

    from_step: Annotated[int, Field(ge=1)]
    """Batches that the stage trains on before its settings change."""
    rollout: RolloutChange = RolloutChange()
    data: DataChange = DataChange()

    @model_validator(mode="before")
    @classmethod
    def _can_change(cls, values: Any) -> Any:
        if isinstance(values, dict) and (key := _refused_key(flat(values))):
            raise ValueError(
                f"{key} cannot change at a step{did_you_mean(key, CAN_CHANGE)}; can: {', '.join(CAN_CHANGE)}"
            )
        return values


def _refused_key(keys: Mapping[str, object]) -> str:
    """The first of dotted keys that no change may hold; empty: none."""
    for key in keys:
        parts = key.split(".")
        weight = len(parts) >= 4 and parts[:2] == ["data", "sources"] and parts[-1] == "weight"
        if key not in ("from_step", *CAN_CHANGE) and not weight:
            return key
    return ""
