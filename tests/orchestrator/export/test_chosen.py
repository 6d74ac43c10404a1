"""Which model a name means, and what is said where there is none."""

from pathlib import Path

import pytest

from orchestrator.export.chosen import choose
from rollout.errors import InputError
from tests.orchestrator.export.finished_run import write_run


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "small@2")


@pytest.mark.parametrize(
    ("name", "stage", "step", "kept_as"),
    [
        ("", "sft", 4, "export"),  # the newest that is finished
        ("/export", "sft", 4, "export"),
        ("/sft", "sft", 4, "export"),
        ("/sft/export", "sft", 4, "export"),
        ("/sft@4", "sft", 4, "export"),
        ("/rl", "rl", 20, "checkpoint"),
        ("/rl/", "rl", 20, "checkpoint"),
        ("/rl@10", "rl", 10, "checkpoint"),
        ("/rl@010", "rl", 10, "checkpoint"),
        ("/rl/checkpoints/step-000010", "rl", 10, "checkpoint"),
        ("/rl@best", "rl", 20, "checkpoint"),
    ],
)
def test_a_name_means_one_model(run_dir: Path, name: str, stage: str, step: int, kept_as: str) -> None:
    chosen = choose(f"{run_dir}{name}")
    assert (chosen.stage.name, chosen.step) == (stage, step)
    checkpoint = run_dir / "rl" / "checkpoints" / f"step-{step:06d}"
    assert chosen.checkpoint == (checkpoint if kept_as == "checkpoint" else None)


def test_the_best_says_by_which_figure(run_dir: Path) -> None:
    why = choose(f"{run_dir}/rl@best").why
    assert why == (
        "step 20, greedy 75.0 % on test: the highest of 3 evaluations (of equal ones the earliest that was kept)"
    )
    assert choose(f"{run_dir}/rl@best", "a|b").step == 10


@pytest.mark.parametrize(
    ("name", "by", "message"),
    [
        ("/rl@15", "", r"/rl@15: no checkpoint of step 15 was kept; there is: 10, 20$"),
        ("/sft@2", "", r"/sft@2: no checkpoint of step 2 was kept; there is: 4 \(the export\)$"),
        ("/sft@best", "talks:loss", None),
        ("/rl@last", "", r"/rl@last: give a step, such as @20, or @best; there is: 10, 20"),
        ("/rl@0", "", r"/rl@0: give a step"),
        ("/rl@-1", "", r"/rl@-1: give a step"),
        ("/rll", "", r": has no stage 'rll'; did you mean 'rl'\?; stages that train a model: sft, rl, prefs"),
        ("/samples", "", r"/samples: a stage of kind reject trains no model; stages that do: sft, rl, prefs"),
        ("/prefs", "", r"/prefs: has no checkpoint yet, and is not finished; go on with `rayzero train "),
        ("/rl@10", "test", r"--by test says what is best; it goes with RUN/STAGE@best"),
        ("/rl/deeper/still", "", r"is no run, and in none"),
        ("x", "", r"is no run, and in none; give RUN or RUN/STAGE"),
    ],
)
def test_what_is_not_there_is_said(run_dir: Path, name: str, by: str, message: str | None) -> None:
    if message is None:
        assert choose(f"{run_dir}{name}", by).step == 4
        return
    with pytest.raises(InputError, match=message):
        choose(f"{run_dir}{name}", by)


def test_a_best_step_that_was_not_kept_is_named_with_those_that_were(tmp_path: Path) -> None:
    import shutil

    run_dir = write_run(tmp_path / "run")
    shutil.rmtree(run_dir / "rl" / "checkpoints" / "step-000020")
    with pytest.raises(InputError) as caught:
        choose(f"{run_dir}/rl@best")
    said = str(caught.value)
    assert "/rl@best is step 20, greedy 75.0 % on test" in said
    assert "but no checkpoint of that step was kept; there is: 10\n" in said
    assert len(said.splitlines()) == 2
