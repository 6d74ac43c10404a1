"""What a run prints: live bars on a terminal, plain lines in a log."""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from rewards.text.response import question
from rollout.errors import visible

_LOG_EVERY_S = 15.0
"""Seconds between two lines of a bar where there is no terminal, at least."""
_LOG_WIDTH = 100
"""Columns that a table may take where there is no terminal."""
_QUESTION, _COMPLETION = 60, 200
"""Characters of a sample's question and of its completion that are shown."""
_WARNINGS_KEPT = 8
_MARKS: Mapping[Any, tuple[str, str]] = {True: ("right", "green"), False: ("wrong", "red")}


class Bar:
    """How far a phase of known length has come."""

    def __init__(self, display: "Display", title: str, total: int, done: int) -> None:
        self._display, self._title, self._total, self._done = display, title, total, done
        self._last_line = 0.0
        self._status = ""
        self._progress: Progress | None = None
        if display.console.is_terminal:
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("[bold]{task.description}[/]"),
                BarColumn(bar_width=18),
                MofNCompleteColumn(),
                TextColumn("{task.fields[status]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=display.console,
                transient=True,
            )
            self._task = self._progress.add_task(title, total=total, completed=done, status="")
            self._progress.start()

    def advance(self, status: str, by: int = 1) -> None:
        self._done, self._status = self._done + by, status
        if self._progress is not None:
            self._progress.update(self._task, advance=by, status=status)
        elif time.monotonic() - self._last_line >= _LOG_EVERY_S or self._done >= self._total:
            self._last_line = time.monotonic()
            self._display.line(f"{self._title} {self._done}/{self._total}  {status}")

    def state(self) -> dict[str, Any]:
        """How far it has come, as plain values."""
        return {"title": self._title, "done": self._done, "total": self._total, "status": self._status}

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()


class Display:
    """Where a run prints what is happening."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            self.console.width = max(self.console.width, _LOG_WIDTH)
        self._began = time.monotonic()
        self.warnings: deque[tuple[float, str]] = deque(maxlen=_WARNINGS_KEPT)
        """The last warnings: (Unix seconds, text)."""
        self.open_bar: Bar | None = None
        """The bar that is shown now."""

    @property
    def width(self) -> int:
        """Columns that a table may take."""
        return min(self.console.width, _LOG_WIDTH)

    def line(self, text: str) -> None:
        """One line with the run's clock in front; `text` is no markup, and nothing that a terminal obeys."""
        elapsed = time.monotonic() - self._began
        self.console.print(f"[dim]{int(elapsed // 60):3d}:{int(elapsed % 60):02d}[/]  {escape(visible(text))}")

    def warn(self, text: str) -> None:
        """A line about something that should not have happened and that the run goes on after; the last ones are kept."""
        self.warnings.append((time.time(), text))
        self.line(text)

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        bar = self.open_bar = Bar(self, title, total, done)
        try:
            yield bar
        finally:
            self.open_bar = None
            bar.close()

    def note(self, text: str) -> None:
        """One line without the clock; `text` is no markup, and nothing that a terminal obeys."""
        self.console.print(escape(visible(text)))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        table = Table(title=escape(title), title_justify="left", title_style="bold")
        for i, column in enumerate(columns):
            table.add_column(escape(column), justify="right" if i else "left")
        for row in rows:
            table.add_row(*(escape(visible(cell)) for cell in row))
        self.console.print()
        self.console.print(table)

    def samples(self, title: str, samples: Sequence[Mapping[str, Any]]) -> None:
        """Questions and completions of an evaluation, right and wrong marked where that is known; their text is shown inert."""
        self.console.print(f"\n[bold]{escape(title)}[/]")
        for sample in samples:
            mark, colour = _MARKS.get(sample.get("correct"), ("     ", ""))
            prompt, completion = str(sample.get("prompt", "")), str(sample.get("completion", ""))
            texts = _lead(prompt), (inert(completion)[:_COMPLETION], "cyan")
            # Not as markup, whose escapes end where enough backslashes stand before a tag.
            self.console.print(Text.assemble("  ", (mark, colour), "  ", *texts))


def inert(text: str) -> str:
    """Text of a model on one line, which a terminal does not obey."""
    return visible(" ".join(text.split()))


def _lead(prompt: str) -> str:
    """The question of a rendered prompt, as it stands before its completion."""
    asked = question(prompt)
    shown = inert(asked)
    if len(shown) > _QUESTION:
        # A form that is not known says its own words first.
        shown = f"…{shown[1 - _QUESTION :]}" if asked == prompt.strip() else f"{shown[: _QUESTION - 1]}…"
    # A completion that goes on where the question ends is read as it was written.
    return shown if prompt.endswith(asked) else f"{shown} "
