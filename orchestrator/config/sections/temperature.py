"""The temperatures that the engine samples at as they are said."""

from typing import Annotated

from pydantic import AfterValidator

LOWEST, HIGHEST = 0.01, 2.0
"""vLLM samples at 0.01 where a lower temperature is asked for (the learner would divide its logits by another one), and
refuses a higher one."""


def _is_taken(value: float) -> float:
    if not LOWEST <= value <= HIGHEST:
        raise ValueError(
            f"{value:g} is not within {LOWEST:g} and {HIGHEST:g}: vLLM takes a lower one for {LOWEST:g}, and no higher one"
        )
    return value


def _is_taken_or_zero(value: float) -> float:
    return _is_taken(value) if value else value


Temperature = Annotated[float, AfterValidator(_is_taken)]
TemperatureOrZero = Annotated[float, AfterValidator(_is_taken_or_zero)]
