"""`rayzero score`: completions of a file, scored offline."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from rollout.errors import InputError

LINES = (".jsonl", ".ndjson")
"""Suffixes of JSON lines."""


def score(
    rubric: Annotated[
        str,
        typer.Argument(
            metavar="RUBRIC",
            help="math, answer-line, code, format, another reward function, or RECIPE[:RUBRIC] or RUN[:RUBRIC].",
        ),
    ],
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="File of responses: JSONL, JSON, CSV, Parquet or Arrow; - for JSONL on standard input."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Arguments of the reward function and sandbox.* settings, or settings over the recipe's.",
        ),
    ] = None,
    answer_column: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column of the answers, such as reward_model.ground_truth.")
    ] = "answer",
    out: Annotated[str, typer.Option(metavar="FILE", help="Where the scores go. [default: standard output]")] = "",
    processes: Annotated[int, typer.Option(min=0, metavar="N", help="Scoring processes; 0: one a core.")] = 0,
) -> None:
    """Score a file of completions by a rubric, offline, in order.

    Every line or row is an object with `response` and what the rubric needs: `answer` for math; `tests`, or `prompt`,
    `entry_point` and `test`, for code. Every line gives one line: `id` (where there is one), `reward`, `status` (ok,
    timeout, error), `breakdown`, `extracted`, and `reason` where a program failed. A line that cannot be read or scored
    has status error, and the others are scored; the exit status is then 1.
    """
    from orchestrator.evaluation.score_file import Tally, find_rubric, score_lines, summary
    from orchestrator.run.files import check_writable

    functions, settings = find_rubric(rubric, overrides or ())
    if out:
        check_writable("--out", Path(out))
    tally = Tally()
    with ExitStack() as stack:
        rows = _rows(file, stack)
        target = stack.enter_context(open(out, "w", encoding="utf-8")) if out else sys.stdout
        for line in score_lines(rows, functions, settings, processes, answer_column=answer_column):
            tally.add(line)
            print(line, file=target, flush=not out)
    typer.echo(summary(tally.statuses, tally.mean, tally.lacking), err=True)
    if tally.statuses["error"]:
        raise typer.Exit(1)


def _rows(file: str, stack: ExitStack) -> "Iterator[bytes | Mapping[str, Any]]":
    """The lines of JSONL text, each of which may be malformed alone; the rows of a file of another kind."""
    # Only here: brings pyarrow.
    from rollout.data.readers import reader_of
    from rollout.data.text_files import CODECS, open_bytes, plain_suffix

    path = Path(file)
    if file == "-":
        return _without_blank_end(iter(sys.stdin.buffer))
    reader = reader_of(path)
    if path.is_file() and reader is not None and plain_suffix(path) not in LINES:
        return (values for _, values in reader(path))
    if path.suffix.lower() in CODECS:
        return _without_blank_end(iter(stack.enter_context(open_bytes(path))))
    try:
        source = stack.enter_context(path.open("rb"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    return _without_blank_end(_with_progress(source, stack))


def _without_blank_end(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Lines without the blank ones at the end. One between others is malformed like any that holds no object."""
    num_blank = 0
    for line in lines:
        if not line.strip():
            num_blank += 1
            continue
        yield from [b""] * num_blank
        num_blank = 0
        yield line


def _with_progress(source: BinaryIO, stack: ExitStack) -> Iterator[bytes]:
    """The lines of a file, with a progress bar on a terminal."""
    if not sys.stderr.isatty() or source is sys.stdin.buffer:
        return iter(source)
    from rich.console import Console
    from rich.progress import Progress

    bar = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
    return iter(bar.wrap_file(source, total=Path(source.name).stat().st_size, description="scoring"))
