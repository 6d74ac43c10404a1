"""Kill -9 at every named point of a step, of a rank and of the driver, once each: the run goes on to its last step, every prompt is
accounted for, and the recorded steps give its weights in other processes.
"""

import json
import signal
from pathlib import Path

import pytest

from orchestrator.run.ledger import read_ledger
from tests.engine.test_survival import RECIPE, REWARD, of_the_run, orphaned_memory, rayzero, steps

pytestmark = [pytest.mark.engine, pytest.mark.long]

RANK = (
    *(
        "rank.anchors:kill:1",
        "rank.forward:kill:2",
        "rank.backward:kill:2",
        "rank.optimizer:kill:2",
        "rank.stepped:kill:2",
    ),
    *(
        "rank.stage_weights:kill:2",
        "bucket.written:kill:2",
        "rank.send_weights:kill:2",
        "rank.save:kill:2",
        "rank.logprobs:kill:2",
    ),
)
"""Each strikes at the second step that a group of ranks trains, so no step loses its ranks twice at one point."""
DRIVER = (
    *("taken", "step.written", "step.synced", "step.renamed", "committed", "trained", "published"),
    *("checkpoint.written", "checkpoint.synced", "checkpoint.renamed", "saved", "recorded"),
)
STEPS = 60
SETTINGS = ("learner.ranks=1", "learner.cpus=1", "loop.audit_every=1", f"loop.steps={STEPS}")


def struck(folder: Path, faults: tuple[str, ...], every: int, starts: int) -> Path:
    """The folder of a run that ended after so many starts, all but the last of which were killed."""
    (folder / "struck.toml").write_text(RECIPE)
    (folder / "ones.py").write_text(REWARD)
    memory, run = orphaned_memory(), folder / "runs" / "struck"
    plan = f"faults.at={json.dumps(faults)}"
    command = ("train", "struck.toml", *SETTINGS, f"loop.checkpoint_every={every}", plan)
    for number in range(starts):
        code, said = rayzero(folder, *command)
        assert code == (0 if number == starts - 1 else -signal.SIGKILL), said[-3000:]
        assert "gives other weights" not in said
        command = ("train", str(run))
    assert len(list((run / "faults").iterdir())) == len(faults)
    assert not of_the_run(run)
    assert orphaned_memory() <= memory
    return run


def is_sound(run: Path) -> None:
    assert {record["step"] for record in steps(run)} == set(range(1, STEPS + 1))
    ledger = read_ledger(run, "rl")
    assert ledger is not None
    assert (ledger.problems, ledger.steps, len(ledger.trained), ledger.on_its_way) == ([], STEPS, 4 * STEPS, 0)
    code, said = rayzero(run.parents[1], "replay", str(run), "--verify")
    assert code == 0, said


def test_a_rank_is_killed_at_every_point(tmp_path: Path) -> None:
    is_sound(struck(tmp_path, RANK, every=1, starts=1))


def test_the_driver_is_killed_at_every_point(tmp_path: Path) -> None:
    faults = tuple(f"{point}:kill:2" for point in DRIVER)
    is_sound(struck(tmp_path, faults, every=3, starts=len(faults) + 1))
