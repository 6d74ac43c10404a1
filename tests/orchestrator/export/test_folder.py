"""An exported folder loads with `transformers` and peft, is whole or absent, and is written over nothing."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from orchestrator.cli import run
from orchestrator.export import folder as folder_module
from tests.orchestrator.export.finished_run import weights_of, write_checkpoint, write_run

Export = Callable[..., int]
TOKENS = torch.arange(5, 25)[None]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture(scope="module")
def lora_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("lora") / "small", learner={"lora_rank": 2, "lora_alpha": 3})


def logits(folder: Path, kind: str = "AutoModelForCausalLM") -> torch.Tensor:
    import transformers

    with torch.no_grad():
        found: torch.Tensor = getattr(transformers, kind).from_pretrained(folder)(TOKENS).logits
    return found


def test_the_export_of_a_stage_is_copied_with_a_card_of_its_own(run_dir: Path, tmp_path: Path) -> None:
    assert run(["export", f"{run_dir}/sft", str(tmp_path / "out")]) == 0
    theirs = run_dir / "sft" / "export"
    assert torch.equal(logits(tmp_path / "out"), logits(theirs))
    for path in theirs.iterdir():
        same = (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
        assert same == (path.name != "README.md")
    assert (tmp_path / "out" / "README.md").read_text().startswith("---\n")


def test_a_checkpoint_becomes_a_model_with_its_weights(run_dir: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    assert run(["export", f"{run_dir}/rl@10", str(tmp_path / "out")]) == 0
    written = load_file(tmp_path / "out" / "model.safetensors")
    expected = weights_of(run_dir / "rl" / "checkpoints" / "step-000010")
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], expected[name]) for name in expected)
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("17+4=").input_ids
    assert logits(tmp_path / "out").isfinite().all()


def test_adapters_are_merged_or_alone(lora_dir: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    assert run(["export", f"{lora_dir}/rl@20", str(tmp_path / "merged")]) == 0
    assert run(["export", f"{lora_dir}/rl@20", str(tmp_path / "alone"), "--adapter"]) == 0
    assert not (tmp_path / "alone" / "model.safetensors").exists()
    base = AutoModelForCausalLM.from_pretrained(lora_dir / "sft" / "export")
    with torch.no_grad():
        start = base(TOKENS).logits
        beside = PeftModel.from_pretrained(base, tmp_path / "alone")(TOKENS).logits
    torch.testing.assert_close(beside, logits(tmp_path / "merged"), atol=1e-5, rtol=0)
    assert not torch.allclose(beside, start, atol=1e-3)


def test_the_adapter_of_a_finished_stage_is_that_of_its_export(lora_dir: Path, tmp_path: Path) -> None:
    import json

    beside = lora_dir / "sft" / "export" / "adapter"
    shutil.rmtree(beside, ignore_errors=True)
    assert run(["export", f"{lora_dir}/rl@20", str(beside), "--adapter"]) == 0
    (beside / "README.md").unlink()
    assert run(["export", f"{lora_dir}/sft", str(tmp_path / "alone"), "--adapter", "--base-model", "org/base"]) == 0
    weights = "adapter_model.safetensors"
    assert (tmp_path / "alone" / weights).read_bytes() == (beside / weights).read_bytes()
    assert json.loads((tmp_path / "alone" / "adapter_config.json").read_text())["base_model_name_or_path"] == "org/base"
    assert "base_model: org/base" in (tmp_path / "alone" / "README.md").read_text()
    assert run(["export", f"{lora_dir}/sft", str(tmp_path / "merged")]) == 0
    assert not (tmp_path / "merged" / "adapter").exists()


def test_a_reward_model_keeps_the_tokenizer_that_writes_its_pairs(run_dir: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    start, stage = run_dir / "sft" / "export", run_dir / "prefs"
    write_checkpoint(stage / "checkpoints" / "step-000005", start, seed=5, head="score")
    try:
        assert run(["export", str(stage), str(tmp_path / "none")]) == 2
        tokenizer = AutoTokenizer.from_pretrained(start)
        tokenizer.chat_template = "{{ messages[0]['content'] }}"
        tokenizer.save_pretrained(stage / "tokenizer")
        assert run(["export", str(stage), str(tmp_path / "out")]) == 0
    finally:
        shutil.rmtree(stage)
    assert logits(tmp_path / "out", "AutoModelForSequenceClassification").shape == (1, 1)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == tokenizer.chat_template


@pytest.mark.parametrize(
    ("argv", "fragments"),
    [
        (["rl@10", "taken"], ["DIR", "is not empty; name a new folder"]),
        (["rl@10", "taken/file"], ["is a file, not a folder"]),
        (["rl@10", "taken/file/deeper"], ["is a file, not a folder"]),
        (["rl@15", "new"], ["no checkpoint of step 15 was kept; there is: 10, 20"]),
        (["rl@10", "new", "--adapter"], ["trained the whole model", "leave the option out"]),
        (["rl@10", "new", "--base-model", "a b"], ["--base-model a b: is no name of a repository"]),
        (["rl@10", "new", "--private"], ["--private is of the repository of --push"]),
    ],
)
def test_a_mistake_is_said_and_writes_nothing(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], fragments: list[str]
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    assert run(["export", f"{run_dir}/{argv[0]}", str(tmp_path / argv[1]), *argv[2:]]) == 2
    error = capsys.readouterr().err
    assert all(fragment in error for fragment in fragments)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "taken", tmp_path / "taken" / "file"]


def test_an_empty_folder_is_taken(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert run(["export", f"{run_dir}/sft", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "config.json").is_file()


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (KeyboardInterrupt(), 130, ""),
        (OSError(28, "No space left on device"), 1, "No space left on device; nothing of it is left"),
        (FileNotFoundError("gone"), 2, "was deleted just now by the run that goes on"),
    ],
)
def test_what_is_cut_short_leaves_nothing(
    run_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failure: BaseException,
    code: int,
    said: str,
) -> None:
    from learner import from_checkpoint

    def cut(model: Any, state: Any, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise failure

    monkeypatch.setattr(from_checkpoint, "write_weights", cut)
    assert run(["export", f"{run_dir}/rl@10", str(tmp_path / "out")]) == code
    assert said in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_file_of_the_users_beside_the_target_is_left_alone(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part" / "thesis").write_text("mine")
    assert run(["export", f"{run_dir}/sft", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out.part" / "thesis").read_text() == "mine"


def test_a_start_model_that_is_gone_is_named(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(folder_module, "start_model", lambda *_: str(tmp_path / "gone"))
    assert run(["export", f"{run_dir}/rl@10", str(tmp_path / "out")]) == 2
    assert f"model.path = '{tmp_path}/gone' cannot be loaded" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
