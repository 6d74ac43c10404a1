"""What a part of tests/bench/gpu.py gets, and where it leaves its figures."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass
class Bench:
    """One part in its own process. Figures are on disk as soon as they are recorded: a part that hangs keeps them."""

    name: str
    out: Path
    """Folder for the few small files that a reader wants, such as a profile."""
    work: Path
    """Scratch folder of all parts: models, logs, results. Nobody keeps it."""
    tiny: bool
    """Whether everything is to be small, on the CPU."""
    deadline: float
    """Time (`time.time()`) at which the process is ended."""
    case: str = ""
    """One case of a part, which runs in a process of its own; empty: the part itself."""
    train_keys: tuple[str, ...] = ()
    """Recipe keys for the part `train`."""
    figures: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        return "cpu" if self.tiny else "cuda"

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.time()

    def record(self, **figures: Any) -> None:
        """Add figures: numbers, texts, or tables of them."""
        self.figures |= figures
        self._write()
        print("figures:", json.dumps(figures, default=str), flush=True)

    def note(self, text: str) -> None:
        """Add a remark for the report."""
        self.notes.append(text)
        self._write()
        print("note:", text, flush=True)

    def earlier(self, part: str) -> dict[str, Any]:
        """Figures of another part, which ran before; empty if it did not."""
        figures: dict[str, Any] = read_result(self.work, part).get("figures", {})
        return figures

    def apart(self, case: str, limit_s: float) -> dict[str, Any]:
        """Run one case of this part in a process of its own, whose memory is free afterwards; returns its figures.

        They are recorded under the name of the case. One that fails or runs out of time becomes a note.
        """
        limit_s = min(limit_s, self.seconds_left - 5)
        if limit_s < 15:
            self.note(f"{case}: no time was left")
            return {}
        command = child_command(self, case=case, seconds=limit_s)
        began = time.monotonic()
        try:
            code: int | str = subprocess.run(command, timeout=limit_s).returncode
        except subprocess.TimeoutExpired:
            code = f"no end after {limit_s:.0f} s"
        found = read_result(self.work, result_name(self.name, case))
        if code:
            self.note(f"{case}: failed ({code}): {found.get('error', 'see the log')}")
        self.notes += [f"{case}: {text}" for text in found.get("notes", [])]
        figures: dict[str, Any] = found.get("figures", {}) | {"process_s": round(time.monotonic() - began, 1)}
        self.record(**{case: figures})
        return figures

    def fail(self, error: BaseException) -> None:
        """Keep the last word of an exception that ends this process."""
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        self._write(error=f"{type(error).__name__}: {lines[0] if lines else ''}"[:500])

    def _write(self, **more: Any) -> None:
        path = result_path(self.work, result_name(self.name, self.case))
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"figures": self.figures, "notes": self.notes, **more}, indent=1, default=str)
        scratch = path.with_suffix(".new")
        scratch.write_text(text)
        scratch.replace(path)


def result_name(part: str, case: str = "") -> str:
    return f"{part}.{case}" if case else part


def result_path(work: Path, name: str) -> Path:
    return work / "results" / f"{name}.json"


def read_result(work: Path, name: str) -> dict[str, Any]:
    """What a part or case has left so far: `figures`, `notes`, `error`; empty if nothing."""
    try:
        found: dict[str, Any] = json.loads(result_path(work, name).read_text())
    except (OSError, ValueError):
        return {}
    return found


def child_command(bench: Bench, *, case: str = "", seconds: float) -> list[str]:
    """Command of a process that runs one part, or one case of it."""
    command = [sys.executable, "-m", "tests.bench.gpu", "--part", bench.name, "--out", str(bench.out)]
    command += ["--work", str(bench.work), "--seconds", f"{seconds:.0f}"]
    command += ["--case", case] if case else []
    command += ["--tiny"] if bench.tiny else []
    command += ["--train-keys", " ".join(bench.train_keys)] if bench.train_keys else []
    return command
