"""What a stage's model makes of held-out preference pairs, as HTML."""

import html
import math

from orchestrator.run.record import Record, StageRecord, as_number

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
            _number(record.get("pairs"), "{:,.0f}"),
            _number(record.get("accuracy"), "{:.1%}"),
            _number(record.get("log_loss"), "{:.3f}"),
            _number(record.get("calibration_error"), "{:.1%}"),
        ]
        title = html.escape(f"{name}, {label}" + (f" (step {record['step']:,})" if label == "during" else ""))
        rows.append(f'<tr><th scope="row">{title}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
    head = "".join(f'<th scope="col">{title}</th>' for title in HEADS)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Held-out pairs">'
        f'<table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div><p class="hint">{NOTE}</p>'
    )


def _number(value: object, form: str) -> str:
    number = as_number(value)
    return "–" if number is None or not math.isfinite(number) else form.format(number).replace("%", " %")
