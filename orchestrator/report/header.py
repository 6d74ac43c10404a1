"""The head of the page: which run this is, and where it stands."""

from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator.report.headline import HeadlineFigure, headline
from orchestrator.results.table import Results
from orchestrator.results.words import UNKNOWN, duration
from orchestrator.run.record import RunRecord
from orchestrator.run.state import Standing

REASON = 200
"""Characters of a failure that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    name: str
    lead: str
    facts: dict[str, str]
    headline: tuple[HeadlineFigure, ...]


def header(run: RunRecord, results: Results, stands: Standing, reason: str = "", refresh_s: int = 0) -> Header:
    """Everything above the sections.

    Args:
        reason: why the run failed, if it did.
        refresh_s: seconds after which the page is loaded again; 0: it is not.
    """
    return Header(
        name=str(run.recipe.get("name", run.directory.name)),
        lead=str(run.recipe.get("description", "")),
        facts={
            "Status": _status(run, stands, reason),
            "Stages": str(len(run.stages)),
            "Started": _date(run.first_time),
            "Took": duration(sum(stage.seconds for stage in run.stages)),
            "Seed": str(run.recipe.get("seed", UNKNOWN)),
            **(
                {"This page": f"{datetime.now(UTC):%H:%M:%S} UTC, loads itself again every {refresh_s} s"}
                if refresh_s
                else {}
            ),
        },
        headline=headline(results),
    )


def _status(run: RunRecord, stands: Standing, reason: str) -> str:
    if stands == "finished":
        return "finished"
    current = next((stage for stage in reversed(run.stages) if stage.begun), None)
    if current is None:
        return "nothing recorded yet"
    steps = f"step {current.last_step:,}" + (f" of {current.planned_steps:,}" if current.planned_steps else "")
    why = f" ({reason.splitlines()[0][:REASON]})" if stands == "failed" and reason else ""
    return f"{stands}{why}: {current.name}, {steps}; last record {_date(run.last_time)}"


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%-d %b %Y, %H:%M UTC") if seconds else UNKNOWN
