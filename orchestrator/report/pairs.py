"""What a stage's model makes of held-out preference pairs, as HTML."""

import html

from orchestrator.results.words import decimal, percent
from orchestrator.run.record import Record, StageRecord

HEADS = ("", "pairs", "in order", "log-loss", "calibration error")
NOTE = (
    "Log-loss: 0.69 for a model that cannot tell. Calibration error: how far the share of pairs in order is from the "
    "probability that the model gives to its order."
)


def held_out_pairs(stage: StageRecord) -> str:
    """A table with the last judgement of every set by label; empty where none was made."""
    last: dict[tuple[str, str], Record] = {}
    for record in stage.pair_evals:
        last[str(record.get("set", "")), str(record.get("label", ""))] = record
    if not last:
        return ""
    rows = []
    for (name, label), record in sorted(last.items(), key=lambda item: (item[0][0], item[1]["step"])):
        cells = [
            decimal(record.get("pairs"), 0),
            percent(record.get("accuracy")),
            decimal(record.get("log_loss"), 3),
            percent(record.get("calibration_error")),
        ]
        title = html.escape(f"{name}, {label}" + (f" (step {record['step']:,})" if label == "during" else ""))
        rows.append(f'<tr><th scope="row">{title}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
    head = "".join(f'<th scope="col">{title}</th>' for title in HEADS)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Held-out pairs">'
        f'<table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div><p class="hint">{NOTE}</p>'
    )
