"""`rayzero compare`: is B better than A, and how sure."""

from pathlib import Path
from typing import Annotated

import typer


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="RUN, RUN/STAGE, RUN/STAGE@STEP, or a file of `rayzero eval`; seeds of one recipe are one side, the first side is A.",
        ),
    ],
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME", help="Set to compare on; several times for several.")
    ] = None,
    out: Annotated[str, typer.Option(metavar="FILE", help="Page that is written.")] = "compare.html",
) -> None:
    """Compare runs on the problems that all were evaluated on: figures with intervals, and paired tests.

    Seeds of one recipe count as one side. One side alone is shown with its intervals.
    """
    from orchestrator.display import Display
    from orchestrator.report.comparison import write_comparison
    from orchestrator.results.comparison import compare as compare_evaluated
    from orchestrator.results.comparison_text import sentences, settings_told, tables
    from orchestrator.results.evaluated import read_evaluated
    from orchestrator.run.files import check_writable

    check_writable("--out", Path(out))
    found = compare_evaluated([read_evaluated(run) for run in runs], sets or ())
    display = Display()
    for side in found.sides:
        display.note(f"{side.letter}  {side.words}: {', '.join(run.named for run in side.runs)}")
    for told in settings_told(found):
        display.note(told)
    for title, heads, rows in tables(found):
        display.table(title, heads, rows)
    display.note("")
    for text in (*sentences(found), *found.notes):
        display.note(text)
    display.note(f"page  {write_comparison(found, Path(out))}")
