"""Watching on a terminal: a real one, of the kernel's."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.run.state import write_state
from tests.orchestrator.watch.test_view import state, write

HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"
OTHER_SCREEN, BACK = b"\x1b[?1049h", b"\x1b[?1049l"


class Terminal:
    def __init__(self, process: "subprocess.Popen[bytes]", reads: int) -> None:
        self.process, self._reads, self.text = process, reads, b""

    def until(self, words: bytes, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while words not in self.text:
            assert time.monotonic() < end, self.text[-3000:]
            self._read(0.2)

    def rest(self) -> bytes:
        """All that was written up to its end. Read on meanwhile: a terminal that nobody reads holds up who writes to it."""
        end = time.monotonic() + 30
        while self.process.poll() is None:
            assert time.monotonic() < end, self.text[-3000:]
            self._read(0.2)
        self._read(0.5)
        return self.text

    def _read(self, seconds: float) -> None:
        while select.select([self._reads], [], [], seconds)[0]:
            try:
                found = os.read(self._reads, 65536)
            except OSError:
                return
            if not found:
                return
            self.text += found
            seconds = 0.05


@contextmanager
def watching(folder: Path, **environment: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "watch", str(folder), "--every", "0.2"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "40", **environment},
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_waits_for_a_run_follows_it_and_leaves_the_terminal_as_it_was(tmp_path: Path, number: int) -> None:
    folder = tmp_path / "run"
    with watching(folder) as terminal:
        terminal.until(b"no run in this folder yet")
        write(folder, steps=3, said=state(time.time()))
        terminal.until(b"running")
        terminal.until(b"11 of 40 steps")
        write_state(folder, state(time.time(), progress={"title": "reasoning", "done": 12, "total": 40, "status": ""}))
        terminal.until(b"12 of 40 steps")
        terminal.process.send_signal(number)
        text = terminal.rest()
    assert terminal.process.returncode == 0
    assert b"Traceback" not in text
    assert text.count(OTHER_SCREEN) == text.count(BACK) == 1
    assert text.rindex(SHOW) > text.rindex(HIDE)
    # What was seen last stays, where the shell goes on.
    assert b"12 of 40 steps" in text[text.rindex(BACK) :]


def test_it_ends_with_the_run(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", steps=3, said=state(time.time()))
    with watching(folder) as terminal:
        terminal.until(b"running")
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"kind": "stage", "stage": "reasoning", "event": "end", "time": 1}\n')
        write_state(folder, {"state": "ended", "time": time.time()})
        assert b"finished" in terminal.rest()
    assert terminal.process.returncode == 0


def test_a_low_terminal_says_that_there_is_more(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", steps=3, said=state(time.time()))
    with watching(folder, LINES="12") as terminal:
        terminal.until(b"more lines in a higher terminal")
        assert b"11 of 40 steps" in terminal.text
        assert b"publish" not in terminal.text


def test_a_dumb_terminal_gets_one_block(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", steps=3, said=state(time.time()))
    with watching(folder, TERM="dumb") as terminal:
        text = terminal.rest()
    assert terminal.process.returncode == 0
    assert b"\x1b" not in text
    assert b"reasoning" in text
