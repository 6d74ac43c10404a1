"""What a stage's model makes of held-out preference pairs."""

from dataclasses import dataclass

from orchestrator.results.words import decimal, percent
from orchestrator.run.record import Record, StageRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRow:
    """The last evaluation of a set of pairs under one label."""

    title: str
    pairs: str
    in_order: str
    """Share of the pairs whose better response scores higher."""
    log_loss: str
    calibration_error: str


def held_out_pairs(stage: StageRecord) -> tuple[PairRow, ...]:
    """The last evaluation of every set of pairs by label; empty where there was none."""
    last: dict[tuple[str, str], Record] = {}
    for record in stage.pair_evals:
        last[str(record.get("set", "")), str(record.get("label", ""))] = record
    return tuple(
        PairRow(
            title=f"{name}, {label}" + (f" (step {record['step']:,})" if label == "during" else ""),
            pairs=decimal(record.get("pairs"), 0),
            in_order=percent(record.get("accuracy")),
            log_loss=decimal(record.get("log_loss"), 3),
            calibration_error=percent(record.get("calibration_error")),
        )
        for (name, label), record in sorted(last.items(), key=lambda item: (item[0][0], item[1]["step"]))
    )
