"""Adapters beside a frozen base: only they move, are saved and are loaded; an export is the base with them merged.

On a real DeepSpeed engine in this process, one rank over gloo.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learner.batch import TrainingBatch, TrainingSequence, make_batch
from learner.model.policy import load_policy
from learner.model.reference import Reference
from learner.model.small import BuildSpec, build_model
from learner.rank import LearnerRank
from learner.spec import ObjectiveName
from rollout.errors import InputError
from tests.learner.specs import learner_spec

pytestmark = pytest.mark.engine
SHAPE = {"layers": 2, "hidden": 32, "heads": 1, "kv_heads": 1, "intermediate": 48, "max_tokens": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Tied, for the second name of the embedding is the one that is easily forgotten."""
    path = tmp_path_factory.mktemp("model")
    build_model(BuildSpec(tokenizer="characters", vocab_size=0, tied=True, seed=1, **SHAPE), iter(()), path)
    return str(path)


def batch(seed: int = 0, **changes: Any) -> TrainingBatch:
    rng = np.random.default_rng(seed)
    rows = [
        TrainingSequence(
            token_ids=rng.integers(3, 90, size=length),
            first_target=4,
            advantage=float(rng.normal()),
            rollout_logprobs=np.full(length - 4, -5.5, np.float32),
        )
        for length in (9, 14, 20, 12)
    ]
    settings = {"mini_batches": 1, "micro_batch_tokens": 30, "length_norm": "sequence", "constant_length": 16}
    return make_batch(rows, ranks=1, seed=0, temperature=1.0, **(settings | changes))


def weights(rank: LearnerRank) -> dict[str, torch.Tensor]:
    """Every parameter, whole, as it is now."""
    import deepspeed

    named = dict(rank.model.module.named_parameters())
    with deepspeed.zero.GatheredParameters(list(named.values()), enabled=rank.model.sharded):
        return {name: parameter.detach().clone() for name, parameter in named.items()}


def trains(name: str) -> bool:
    return ".lora_" in name or ".modules_to_save." in name


OBJECTIVES: list[tuple[ObjectiveName, dict[str, Any], dict[str, Any]]] = [
    ("grpo", {"kl_coef": 0.5, "reference_path": "the base"}, {}),
    ("sft", {"activation_checkpointing": True}, {}),
    ("reward_model", {"head": "score"}, {"together": 2}),
]


@pytest.mark.parametrize("stage", [0, 3])
@pytest.mark.parametrize(("objective", "settings", "cut"), OBJECTIVES, ids=[kind for kind, *_ in OBJECTIVES])
def test_only_adapters_move_are_saved_and_resume_to_the_same_update(
    rank: LearnerRank, folder: str, tmp_path: Path, objective: ObjectiveName, settings: dict, cut: dict, stage: int
) -> None:
    spec = learner_spec(folder, lora_rank=4, zero_stage=stage, **settings)
    rank.open(spec)
    start = weights(rank)
    rank.train(batch(0, **cut), objective)
    first = weights(rank)
    rank.save(str(tmp_path), {"step": 1})
    rank.train(batch(1, **cut), objective)
    second = weights(rank)

    assert any(trains(name) for name in start)
    for name in start:
        if not trains(name):
            assert torch.equal(start[name], second[name]), f"{name} is frozen"
    # B is zero at the start, so A has no gradient before the second step.
    assert all((first[name] != second[name]).any() for name in start if trains(name))
    assert saved_tensors(tmp_path, spec.zero_stage) <= {name for name in start if trains(name)}

    rank.open(replace(spec, seed=2))
    rank.load(str(tmp_path))
    rank.train(batch(1, **cut), objective)
    resumed = weights(rank)
    # peft keeps the value head as it was drawn, unused; it is drawn anew where the model brings none.
    assert all(torch.equal(resumed[name], second[name]) for name in second if ".original_module." not in name)


def saved_tensors(folder: Path, zero_stage: int) -> set[str]:
    """Names of parameters in a checkpoint. No file of it has room for the base."""
    kept = set()
    for file in folder.rglob("*.pt"):
        saved = torch.load(file, weights_only=False)
        kept |= set(saved.get("module") or ())
        kept |= set(saved.get("frozen_param_fragments") or ())
    assert kept or zero_stage == 3
    return kept


@pytest.mark.parametrize(("saved", "loaded"), [(0, 3), (3, 1)])
def test_adapters_continue_on_another_zero_stage(
    rank: LearnerRank, folder: str, tmp_path: Path, saved: int, loaded: int
) -> None:
    rank.open(learner_spec(folder, lora_rank=4, lr=1e-4, zero_stage=saved))
    rank.train(batch(0), "sft")
    rank.save(str(tmp_path), {})
    rank.train(batch(1), "sft")
    expected = weights(rank)
    rank.open(learner_spec(folder, lora_rank=4, lr=1e-4, zero_stage=loaded, seed=2))
    rank.load(str(tmp_path))
    rank.train(batch(1), "sft")
    for name, tensor in weights(rank).items():
        torch.testing.assert_close(tensor, expected[name], atol=5e-6, rtol=0)


def test_a_second_checkpoint_with_other_adapters_is_refused(rank: LearnerRank, folder: str, tmp_path: Path) -> None:
    rank.open(learner_spec(folder, lora_rank=4, lora_targets=("q_proj",)))
    rank.save(str(tmp_path), {})
    rank.open(learner_spec(folder, lora_rank=4, lora_targets=("v_proj",)))
    with pytest.raises(InputError, match="does not fit the model: it lacks 4 trained parameters"):
        rank.load(str(tmp_path))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_reference_is_the_base_and_no_second_model(rank: LearnerRank, folder: str, stage: int) -> None:
    """The same updates as with a second model as the reference, whatever DeepSpeed makes of adapters that come and go."""

    def two_updates(second_model: bool) -> dict[str, torch.Tensor]:
        spec = learner_spec(folder, lora_rank=4, zero_stage=stage, kl_coef=5.0, reference_path=folder)
        rank.open(spec)
        if second_model:
            policy = load_policy(folder, torch.float32, trust_remote_code=False, logit_chunk_tokens=64)
            rank.model.reference = Reference(policy, {"train_micro_batch_size_per_gpu": 1}, False)
        for seed in range(3):
            rank.train(batch(seed, mini_batches=2), "grpo")
        return weights(rank)

    alone, beside = two_updates(False), two_updates(True)
    for name in alone:
        torch.testing.assert_close(alone[name], beside[name], atol=2e-5, rtol=0)


@pytest.mark.parametrize("stage", [0, 3])
@pytest.mark.parametrize("head", ["language", "score"])
def test_an_export_is_the_base_with_the_adapters_merged(
    rank: LearnerRank, folder: str, tmp_path: Path, head: str, stage: int
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    spec = learner_spec(folder, lora_rank=4, lora_alpha=6, head=head, zero_stage=stage)
    rank.open(spec)
    objective: ObjectiveName = "sft" if head == "language" else "reward_model"
    for seed in range(2):
        rank.train(batch(seed, together=1 if head == "language" else 2), objective)
    before = weights(rank)
    rank.export(str(tmp_path / "export"), folder)
    assert all(torch.equal(before[name], after) for name, after in weights(rank).items()), "the live weights moved"

    kind: Any = AutoModelForCausalLM if head == "language" else AutoModelForSequenceClassification
    options = {} if head == "language" else {"num_labels": 1}
    merged = kind.from_pretrained(tmp_path / "export")
    names = dict(merged.named_parameters())
    for name, tensor in before.items():
        if name.endswith(".base_layer.weight"):
            layer = name.removesuffix(".base_layer.weight")
            product = before[f"{layer}.lora_B.default.weight"] @ before[f"{layer}.lora_A.default.weight"]
            expected = tensor + 6 / 4 * product
            torch.testing.assert_close(names[f"{layer.removeprefix('model.')}.weight"], expected, atol=1e-6, rtol=0)
    base = kind.from_pretrained(folder, **options)
    beside = PeftModel.from_pretrained(base, tmp_path / "export" / "adapter")
    tokens = torch.arange(3, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(beside(tokens).logits, merged(tokens).logits, atol=1e-5, rtol=0)
    assert json.loads((tmp_path / "export" / "adapter" / "adapter_config.json").read_text())["r"] == 4


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("q_proj", "qproj"), "'qproj' is no linear layer of .*; did you mean 'q_proj'.*there is: down_proj"),
        (("lm_head",), "'lm_head' is no linear layer"),
        (("embed_tokens",), "'embed_tokens' is no linear layer"),
    ],
)
def test_a_target_that_cannot_be_adapted_is_one_line(
    rank: LearnerRank, folder: str, targets: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        rank.open(learner_spec(folder, lora_rank=4, lora_targets=targets))


def test_a_publish_holds_adapters_alone_or_the_base_too(rank: LearnerRank, folder: str) -> None:
    from peft import PeftConfig
    from safetensors.torch import load_file

    rank.open(learner_spec(folder, lora_rank=4, lora_targets=("q_proj", "v_proj")))
    whole = rank.stage_weights(1)
    assert whole is not None
    assert [meta.name for bucket in whole.buckets for meta in bucket.tensors] == base_names(folder)
    later = rank.stage_weights(2, base=False)
    assert later is not None
    assert (later.buckets, later.has_base) == ((), False)
    files = {Path(file.path).name: Path(file.path) for file in later.adapter}
    assert set(files) == {"adapter_model.safetensors", "adapter_config.json"}
    tensors = load_file(files["adapter_model.safetensors"])
    assert len(tensors) == 2 * 2 * SHAPE["layers"]
    assert sum(tensor.nbytes for tensor in tensors.values()) < later.num_bytes < whole.num_bytes
    assert PeftConfig.from_pretrained(files["adapter_config.json"].parent).r == 4
    nothing = rank.stage_weights(3, base=False, adapter=False)
    assert nothing is not None
    assert (nothing.files, nothing.num_bytes) == ((), 0)
    for manifest in (whole, later):
        rank.release_weights(manifest)
        assert not any(Path(file.path).exists() for file in manifest.files)


def base_names(folder: str) -> list[str]:
    from transformers import AutoModelForCausalLM

    return [name for name, _ in AutoModelForCausalLM.from_pretrained(folder).named_parameters()]
