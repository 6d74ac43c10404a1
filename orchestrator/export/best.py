"""Which step of a stage its own evaluations found best: read from what the run has recorded, nothing is measured again."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.results.columns import SHARES, Figure, columns, further_columns
from orchestrator.results.words import as_finite, decimal, percent
from orchestrator.run.folder import checkpoints
from orchestrator.run.record import StageRecord, read_run
from rollout.errors import InputError, did_you_mean

LOSS = "held_out_loss/"
"""Metrics of a step that are losses on worked examples begin so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One figure of one set, as the stage was read on the way."""

    set: str
    figure: str
    words: str
    """The figure for a reader."""
    share: bool
    """Whether its values are between 0 and 1 and shown in per cent."""
    lower: bool = False
    """Whether a lower value is better."""
    values: dict[int, float] = field(default_factory=dict)
    """Step → value."""

    @property
    def name(self) -> str:
        """The series as `--by` takes it."""
        return f"{self.set}:{self.figure}"

    def show(self, step: int) -> str:
        value = self.values[step]
        return percent(value) if self.share else decimal(value, 3)

    def best(self, kept: Collection[int]) -> int:
        """The best step; of equal ones the earliest of which the model was kept, or else the earliest."""
        top = (min if self.lower else max)(self.values.values())
        equal = sorted(step for step, value in self.values.items() if value == top)
        return next((step for step in equal if step in kept), equal[0])


def best_series(stage: StageRecord, by: str = "") -> Series:
    """The series that says which step is best.

    Args:
        by: `SET` or `SET:FIGURE`; empty: the series that was read at the most steps. Of several the first in this order: problems
            to answer by greedy, pass@1, cons@k, win rate or mean reward; pairs by accuracy; worked examples by loss.

    Raises:
        InputError: the stage has no such figure.
    """
    known = [series for series in _all_series(stage) if series.values]
    found = [series for series in known if by in ("", series.set, series.name)]
    if not found:
        names = [series.name for series in known]
        if not names:
            raise InputError(
                f"@best: stage {stage.name} has recorded no evaluation of its model; name a step, such as @20"
            )
        raise InputError(
            f"--by {by}: no figure of stage {stage.name}{did_you_mean(by, names)}; there is: {', '.join(names)}"
        )
    return max(found, key=lambda series: len(series.values))


def best_step(run_dir: Path, stage: str) -> int | None:
    """The best step of a stage so far, among equal ones one with a checkpoint; None: nothing was evaluated yet."""
    try:
        record = next(record for record in read_run(run_dir).stages if record.name == stage)
        return best_series(record).best(checkpoints(run_dir, stage))
    except InputError:
        return None


def _all_series(stage: StageRecord) -> Iterator[Series]:
    """Every figure with a better direction, the most telling first. What was read before the first step is of another model."""
    after = [record for record in stage.evals if record.get("label") != "before"]
    for name in dict.fromkeys(str(record.get("set")) for record in after):
        records = [record for record in after if record.get("set") == name]
        figures = [figure for figure in (*columns(records), *further_columns(records)) if _tells(figure)]
        for figure in sorted(
            figures, key=lambda each: [*SHARES, "reward"].index(each.key) if _leads(each) else len(SHARES) + 1
        ):
            read = {int(r["step"]): value for r in records if (value := figure.value(r)) is not None}
            yield Series(set=name, figure=figure.key, words=figure.head, share=figure.unit == "%", values=read)
    pairs = [record for record in stage.pair_evals if record.get("label") != "before"]
    for name in dict.fromkeys(str(record.get("set")) for record in pairs):
        for key, words, share in (("accuracy", "share of pairs in order", True), ("log_loss", "log-loss", False)):
            read = {
                int(r["step"]): value
                for r in pairs
                if r.get("set") == name and (value := as_finite(r.get(key))) is not None
            }
            yield Series(set=name, figure=key, words=words, share=share, lower=not share, values=read)
    steps = [record for record in stage.steps if record["step"] > 0]
    for metric in dict.fromkeys(key for record in steps for key in record if key.startswith(LOSS)):
        read = {int(r["step"]): value for r in steps if (value := as_finite(r.get(metric))) is not None}
        yield Series(
            set=metric.removeprefix(LOSS), figure="loss", words="held-out loss", share=False, lower=True, values=read
        )


def _leads(figure: Figure) -> bool:
    return figure.key in SHARES or figure.key == "reward"


def _tells(figure: Figure) -> bool:
    return figure.better == "higher" or figure.key == "reward"
