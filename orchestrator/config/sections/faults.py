"""`[faults]`: failures on purpose, to rehearse them."""

from typing import Annotated

from pydantic import AfterValidator

from orchestrator.config.sections.base import Names, Section
from rollout.errors import InputError
from rollout.faults import parse_fault


def _parsed(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        try:
            parse_fault(text)
        except InputError as problem:
            raise ValueError(str(problem)) from None
    return texts


class FaultsSection(Section):
    at: Annotated[tuple[str, ...], Names("anything"), AfterValidator(_parsed)] = ()
    """Failures on purpose, each once a run, as `POINT:ACTION[:TIME][~SECONDS][@PROCESS]`, such as `rank.optimizer:kill:3`;
    what there is: deploy/README.md, "Rehearsing failures"."""
