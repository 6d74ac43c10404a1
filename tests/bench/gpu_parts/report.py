"""report.json, report.md and logs.txt: what is known so far, written again after each part."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HEAD_BYTES, TAIL_BYTES = 60_000, 400_000
"""Of a longer log these are kept: its beginning, which holds settings, and its end."""


def write(out: Path, head: Mapping[str, Any], parts: Sequence[Mapping[str, Any]], logs: Path) -> None:
    """Write the three files. `parts`: each with name, status, seconds, figures, notes, error."""
    _replace(out / "report.json", json.dumps({**head, "parts": list(parts)}, indent=1, default=str))
    _replace(out / "report.md", text(head, parts))
    pieces = [
        f"===== {part['name']} ({part['status']})\n{log_text(logs / (part['name'] + '.log'))}\n" for part in parts
    ]
    _replace(out / "logs.txt", "\n".join(pieces))


def text(head: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> str:
    """The report as Markdown."""
    lines = [f"# {head.get('card') or 'no card'}", ""]
    lines += [f"- {name}: {_cell(value)}" for name, value in head.items()]
    lines += ["", "| part | status | seconds |", "|---|---|---|"]
    lines += [f"| {part['name']} | {part['status']} | {part['seconds']:.0f} |" for part in parts]
    for part in parts:
        lines += ["", f"## {part['name']}: {part['status']}", ""]
        rows = list(_flat(part.get("figures", {})))
        if rows:
            lines += ["| figure | value |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows), ""]
        lines += [f"- {_cell(note)}" for note in part.get("notes", ())]
        if part.get("error"):
            lines += ["", "```text", part["error"].replace("```", "'''"), "```"]
    return "\n".join(lines) + "\n"


def last_lines(log: Path, count: int = 25) -> str:
    """End of a log without empty lines; from its last traceback on, if that is there and not much longer."""
    lines = [line for line in log_text(log).splitlines() if line.strip()]
    begins = [i for i, line in enumerate(lines) if "Traceback (most recent call last)" in line]
    if begins and count < len(lines) - begins[-1] <= 2 * count:
        return "\n".join(lines[begins[-1] :])
    return "\n".join(lines[-count:])


def log_text(log: Path) -> str:
    """A log, a long one without its middle; empty if there is none."""
    try:
        content = log.read_bytes()
    except OSError:
        return ""
    if len(content) > HEAD_BYTES + TAIL_BYTES:
        left_out = len(content) - HEAD_BYTES - TAIL_BYTES
        content = content[:HEAD_BYTES] + f"\n… {left_out} bytes left out …\n".encode() + content[-TAIL_BYTES:]
    return content.decode(errors="replace")


def _flat(figures: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return " ".join(str(value).split()).replace("|", "\\|")


def _replace(path: Path, content: str) -> None:
    scratch = path.with_name(path.name + ".new")
    scratch.write_text(content)
    scratch.replace(path)
