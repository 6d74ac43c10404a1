"""A model folder from a checkpoint is, to the last bit, what the learner itself would have exported then.

On a real DeepSpeed engine in this process, one rank over gloo; of several ranks: tests/engine/test_ranks.py.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from learner.from_checkpoint import export_checkpoint
from learner.model.small import build_model
from learner.rank import LearnerRank
from learner.spec import LearnerSpec, ObjectiveName
from rollout.errors import InputError
from tests.learner.specs import build_spec, learner_spec
from tests.learner.test_rank import batch

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    build_model(build_spec(), iter(()), path)
    return str(path)


def checkpoint_and_export(rank: LearnerRank, spec: LearnerSpec, place: Path) -> tuple[Path, Path]:
    """Of the same weights, and one step more behind them, so that what is live is another."""
    rank.open(spec)
    objective: ObjectiveName = "reward_model" if spec.head == "score" else "grpo"
    for seed in range(3):
        if seed == 2:
            rank.save(str(place / "checkpoint"), {"step": 2})
            rank.export(str(place / "export"), spec.model_path)
        rank.train(batch(seed, together=2 if spec.head == "score" else 1), objective)
    return place / "checkpoint", place / "export"


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "adapter"
    }


CASES: list[dict[str, Any]] = [
    {"zero_stage": 0},
    {"zero_stage": 1},
    {"zero_stage": 2, "dtype": "bfloat16"},
    {"zero_stage": 3},
    {"zero_stage": 0, "dtype": "bfloat16", "lora_rank": 4},
    {"zero_stage": 3, "lora_rank": 4, "lora_targets": ("q_proj", "v_proj")},
    {"zero_stage": 2, "head": "score"},
    {"zero_stage": 0, "head": "score", "lora_rank": 4},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_a_checkpoint_is_exported_as_the_learner_would_have(
    rank: LearnerRank, folder: str, tmp_path: Path, case: dict[str, Any]
) -> None:
    spec = learner_spec(folder, **case)
    checkpoint, export = checkpoint_and_export(rank, spec, tmp_path)
    made = tmp_path / "made"
    made.mkdir()
    export_checkpoint(spec, checkpoint, made, folder)
    assert files_of(made) == files_of(export)
    if not spec.lora_rank:
        return
    alone = tmp_path / "adapter"
    alone.mkdir()
    export_checkpoint(spec, checkpoint, alone, folder, adapter_only=True)
    ours, theirs = (place / "adapter_model.safetensors" for place in (alone, export / "adapter"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert json.loads((alone / "adapter_config.json").read_text())["r"] == 4
    assert (alone / "tokenizer.json").is_file()
    assert not (alone / "model.safetensors").exists()


def test_a_checkpoint_of_another_model_is_refused(rank: LearnerRank, folder: str, tmp_path: Path) -> None:
    checkpoint, _ = checkpoint_and_export(rank, learner_spec(folder, lora_rank=4), tmp_path)
    with pytest.raises(InputError, match="is of another model than the recipe says: one of the two has no parameter"):
        export_checkpoint(learner_spec(folder), checkpoint, tmp_path / "made", folder)
    with pytest.raises(InputError, match=r"lora_A.* has .* values there, .* in the model"):
        export_checkpoint(learner_spec(folder, lora_rank=8), checkpoint, tmp_path / "made", folder)
