"""What `rayzero watch` shows of runs in every state, at several widths, and that nothing in a run acts on a terminal."""

import io
import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.cli import run as command
from orchestrator.run.lock import run_lock
from orchestrator.run.state import write_state
from orchestrator.watch.live import watch_run
from orchestrator.watch.look import Watcher
from orchestrator.watch.signs import ASCII, UNICODE, signs_for
from orchestrator.watch.view import view
from rollout.errors import InputError
from tests.orchestrator.pipeline_run import write_run

RECIPE = """
name = "two"
[[stages]]
name = "cold-start"
kind = "sft"
loop = {steps = 4}
[[stages]]
name = "reasoning"
kind = "grpo"
loop = {steps = 40}
"""


def records(steps: int, now: float) -> list[dict[str, Any]]:
    """A cold start that has ended, and steps of 6 s of which 3 are generation and 2 training."""
    began = now - 6.0 * steps
    step = {"kind": "step", "stage": "reasoning", "time/step_s": 6.0, "time/generate_s": 3.0, "time/train_s": 2.0}
    return [
        {"kind": "stage", "stage": "cold-start", "event": "start", "time": began - 50},
        {"kind": "step", "stage": "cold-start", "step": 4, "learner/loss": 0.5, "time": began - 10},
        {"kind": "stage", "stage": "cold-start", "event": "end", "time": began - 5},
        {"kind": "stage", "stage": "reasoning", "event": "start", "time": began},
        *(
            step
            | {
                "step": n,
                "time": began + 6.0 * n,
                "reward/mean": n / steps,
                "completion/length_mean": 100 + n,
                "throughput/tokens_per_s": 1234.5,
                "rewards/error_share": 0.0,
            }
            for n in range(1, steps + 1)
        ),
    ]


def state(now: float, **more: Any) -> dict[str, Any]:
    replicas = [{"name": f"rollout-{i}", "state": "serving", "node": "gpu-1", "owed_tokens": 640} for i in range(2)]
    return {
        "state": "running",
        "time": now,
        "pid": 7,
        "host": "elsewhere",
        "stage": "reasoning",
        "phases": {"generate": 1.0},
        "step_seconds": 2.5,
        "queues": {"in_flight": 12, "waiting": 3, "to_score": 5},
        "progress": {"title": "reasoning", "done": 11, "total": 40, "status": ""},
        "services": {"rollout": {"state": "up", "members": replicas}, "rewards": {"state": "starting", "members": []}},
        "warnings": [],
        **more,
    }


def write(folder: Path, steps: int = 10, said: dict[str, Any] | None = None, ago: float = 1.0) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "recipe.toml").write_text(RECIPE)
    lines = [json.dumps(record) + "\n" for record in records(steps, time.time() - ago)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    if said is not None:
        write_state(folder, said)
    return folder


def shown(folder: Path, width: int = 100, signs: Any = UNICODE) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    console.print(view(Watcher(folder).look(), console.width, signs))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    text = shown(write(tmp_path / "run", said=state(time.time())))
    lines = text.splitlines()
    assert "running by process 7 on elsewhere" in " ".join(text.split())
    assert "✓ cold-start  ▶ reasoning" in text
    # Of the run's own count, which is one ahead of its records, at 6 s a step.
    assert "11 of 40 steps, about 2 min 54 s left" in text
    assert "generate; 2.5 s into this step" in text
    assert next(line for line in lines if line.startswith("generate")).endswith("3.0 s  50 %")
    assert next(line for line in lines if line.startswith("train")).endswith("2.0 s  33 %")
    assert "600 steps/h, 1,234 tokens/s" in text
    assert "12 groups in flight, 3 waiting for the learner, 5 completions to score" in text
    assert "▁▂▃▃▄▅▆▆▇█ 0.100 → 1.000" in text
    assert "rollout-0\u00a0serving (on gpu-1, 640 tokens to go at most)" in text.replace(
        "rollout-0 ", "rollout-0\u00a0"
    )
    assert "rewards   starting" in text
    assert "notice" not in text


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("signs", [UNICODE, ASCII])
def test_no_line_is_longer_than_the_terminal_is_wide(tmp_path: Path, width: int, signs: Any) -> None:
    wide = state(time.time(), warnings=[{"time": time.time(), "text": "a warning " * 30}])
    runs = [write(tmp_path / "run", said=wide), tmp_path / "long"]
    write_run(runs[1])
    for run in runs:
        lines = shown(run, width, signs).splitlines()
        assert max(map(len, lines)) <= width
    if signs is ASCII:
        assert not set("".join(lines)) & set(UNICODE.levels + UNICODE.done + UNICODE.now)


def test_runs_that_do_not_go_on(tmp_path: Path) -> None:
    stopped = shown(write(tmp_path / "a"))
    assert "stopped" in stopped.splitlines()[0]
    assert "continue with: rayzero train" in stopped
    assert "left" not in stopped
    failed = shown(write(tmp_path / "b", said=state(0, state="failed", reason="learner rank 1 died\nmore")))
    assert "failed: learner rank 1 died" in failed
    crashed = shown(write(tmp_path / "c", said=state(time.time() - 100)))
    assert "crashed: its process ended without a word" in crashed
    assert "serving" not in crashed
    write_run(tmp_path / "d")
    finished = shown(tmp_path / "d")
    assert "finished" in finished.splitlines()[0]
    assert "notice" not in finished


def test_runs_that_have_not_begun(tmp_path: Path) -> None:
    assert "no run in this folder yet" in shown(tmp_path / "none")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    text = shown(tmp_path)
    assert "not begun" in text
    assert "nothing recorded yet" in text


def test_what_is_worth_a_word(tmp_path: Path) -> None:
    now = time.time()
    dead = {"rollout": {"state": "up", "members": [{"name": "rollout-1", "state": "dead"}]}}
    warned = state(now, services=dead, warnings=[{"time": now - 60, "text": "replica 1 serves no more"}])
    text = shown(write(tmp_path / "run", said=warned, ago=400))
    assert "nothing recorded and no group sampled for 7 min" in text
    assert "rollout: rollout-1 dead" in text
    assert "60 s ago: replica 1 serves no more" in text
    # As in a long evaluation.
    sampling = state(now, moved=now - 3)
    assert "nothing recorded" not in shown(write(tmp_path / "run", said=sampling, ago=400))
    with run_lock(tmp_path / "run"):
        write_state(tmp_path / "run", state(now - 50))
        assert "the run has said nothing for 50 s" in shown(tmp_path / "run")


def test_nothing_in_a_run_acts_on_the_terminal(tmp_path: Path) -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07 [red]red[/]"
    said = state(time.time(), warnings=[{"time": time.time(), "text": hostile}], host=hostile)
    said["services"]["rollout"]["members"][0] |= {"node": hostile, "name": hostile, "state": hostile}
    text = shown(write(tmp_path / "run", said=said), 200)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]red[/]" in text


def test_a_pipe_and_a_dumb_terminal_get_one_plain_block(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    write(tmp_path / "run", said=state(time.time()))
    watch_run(tmp_path / "run")
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 60
    with pytest.raises(InputError, match="holds no run"):
        watch_run(tmp_path / "none", once=True)
    assert command(["watch", str(tmp_path / "none")]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_a_run_is_read_again_when_it_has_written(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path)
    assert watcher.look().run is None
    write(tmp_path, steps=3)
    first = watcher.look()
    assert first.stage is not None
    assert first.stage.last_step == 3
    assert watcher.look().run is first.run
    # A line that is being written is not there yet.
    with (tmp_path / "metrics.jsonl").open("a") as file, nullcontext():
        file.write('{"kind": "step", "stage": "reasoning", "step": 4, "ti')
    again = watcher.look()
    assert again.stage is not None
    assert again.stage.last_step == 3


def test_curves_and_the_signs_of_an_encoding() -> None:
    assert UNICODE.spark([0, 1, 2, 3], 2) == "▁█"
    assert UNICODE.spark([5, 5, 5], 9) == "▄▄▄"
    assert UNICODE.spark([], 9) == ""
    assert UNICODE.progress(0.5, 10) == "█████░░░░░"
    assert UNICODE.bar(0.0, 10) == ""
    assert UNICODE.bar(0.01, 10) == "█"
    assert signs_for("utf-8") is UNICODE
    assert signs_for("latin-1") is ASCII
    assert signs_for(None) is ASCII
