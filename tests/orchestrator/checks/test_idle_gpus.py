"""GPUs that stand idle while a stage trains are told of, where it could have them."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.checks.idle_gpus import idle_gpus
from orchestrator.config.load import load_recipe
from tests.orchestrator.checks.test_gpu_memory import QWEN_1_5B, QWEN_7B, gpus
from tests.orchestrator.factories import NEEDED, decoder_folder, recipe

pytestmark = pytest.mark.usefixtures("laptop")
EXAMPLES = {"sources": {"a": {"path": "a.jsonl", "messages_column": "messages"}}}
PAIRS = {"sources": {"a": {"task": "manners", "limit": 50}}}


def notes(kind: str, data: Any, **sections: Any) -> list[str]:
    return idle_gpus(recipe(data=data, stages=[{"name": "tune", "kind": kind}], **sections))


def test_the_shipped_recipe_is_told_of_its_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 8)
    large = str(decoder_folder(tmp_path / "7b", **QWEN_7B, tied=False))
    small = str(decoder_folder(tmp_path / "1.5b", **QWEN_1_5B, tied=True))
    asked = [each.replace("org/model", large).replace("org/student", small) for each in NEEDED["r1"]]
    (note,) = idle_gpus(load_recipe("r1", asked))
    assert note == (
        "stages cold-start, sft, helpful, harmless, student: 4 of 8 GPUs train; learner.ranks=8, with "
        "rollout.share_gpus=true where it evaluates, uses all of them"
    )


def test_who_has_them_all_or_samples_while_it_trains_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 4)
    assert len(notes("sft", EXAMPLES)) == 1
    assert notes("sft", EXAMPLES, learner={"ranks": 4}, rollout={"share_gpus": True}) == []
    assert notes("grpo", {"sources": {"a": {"task": "arithmetic"}}}) == []
    assert notes("sft", EXAMPLES, rollout={"tensor_parallel": 2}) == [], "its engine shares with no rank"
    gpus(monkeypatch, 1)
    assert notes("sft", EXAMPLES) == []


def test_a_stage_without_engines_needs_no_sharing(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 4)
    (note,) = notes("reward_model", PAIRS, rollout={"tensor_parallel": 2})
    assert note == "stage tune: 1 of 4 GPUs train; learner.ranks=4 uses all of them"


def test_what_has_no_room_on_all_of_them_is_not_proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = str(decoder_folder(tmp_path / "7b", **QWEN_7B, tied=False))
    gpus(monkeypatch, 4)
    assert notes("sft", EXAMPLES, model={"path": large}, learner={"zero_stage": 0}) == []
