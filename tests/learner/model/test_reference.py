"""The frozen reference: refreshed, saved and read back; and when a refresh is due."""

from pathlib import Path

import numpy as np
import pytest
import torch

from learner.batch import TrainingSequence, make_batch
from learner.model.policy import PackTensors, Policy, load_policy, to_device
from learner.model.reference import FILE, Reference, refresh_is_due
from learner.model.small import BuildSpec, build_model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two models of different weights, tied as small ones often are."""
    found = []
    for seed in (1, 2):
        path = tmp_path_factory.mktemp("model")
        shape = {"layers": 1, "hidden": 32, "heads": 1, "kv_heads": 1, "intermediate": 32, "max_tokens": 32}
        spec = BuildSpec(tokenizer="characters", vocab_size=0, tied=True, seed=seed, **shape)
        build_model(spec, iter(()), path)
        found.append(str(path))
    return found[0], found[1]


def open_policy(folder: str) -> Policy:
    return load_policy(folder, torch.float32, trust_remote_code=False, logit_chunk_tokens=64)


def open_reference(folder: str) -> Reference:
    return Reference(open_policy(folder), {}, sharded=False)


@pytest.fixture(scope="module")
def pack() -> PackTensors:
    row = TrainingSequence(token_ids=np.arange(3, 20), first_target=4)
    cut = {"ranks": 1, "mini_batches": 1, "micro_batch_tokens": 99, "constant_length": 8, "temperature": 1.0, "seed": 0}
    return to_device(make_batch([row], length_norm="token", **cut).packs[0][0][0], torch.device("cpu"))


def test_it_answers_for_its_own_weights_and_then_for_those_it_took(folders: tuple[str, str], pack: PackTensors) -> None:
    reference, policy = open_reference(folders[0]), open_policy(folders[1])
    with torch.no_grad():
        theirs = policy(pack, 1.0)[0]
    before = reference.logprobs(pack, 1.0)
    assert (before - theirs).abs().max() > 0.01
    reference.refresh(policy)
    assert torch.equal(reference.logprobs(pack, 1.0), theirs)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 1
    assert torch.equal(reference.logprobs(pack, 1.0), theirs), "it must not follow the policy"
    assert policy.model.lm_head.weight.requires_grad


def test_only_a_refreshed_one_is_part_of_a_checkpoint(
    folders: tuple[str, str], pack: PackTensors, tmp_path: Path
) -> None:
    reference = open_reference(folders[0])
    reference.save(tmp_path, rank=0)
    assert list(tmp_path.iterdir()) == []
    reference.refresh(open_policy(folders[1]))
    reference.save(tmp_path, rank=1)
    assert list(tmp_path.iterdir()) == [], "rank 0 writes"
    reference.save(tmp_path, rank=0)

    resumed = open_reference(folders[0])
    resumed.load(tmp_path)
    assert torch.equal(resumed.logprobs(pack, 1.0), reference.logprobs(pack, 1.0))
    again = tmp_path / "again"
    again.mkdir()
    resumed.save(again, rank=0)
    assert (again / FILE).read_bytes() == (tmp_path / FILE).read_bytes(), "the next checkpoint needs it too"


def test_a_checkpoint_without_one_leaves_it_as_the_stage_began(
    folders: tuple[str, str], pack: PackTensors, tmp_path: Path
) -> None:
    reference = open_reference(folders[0])
    before = reference.logprobs(pack, 1.0)
    reference.load(tmp_path)
    assert torch.equal(reference.logprobs(pack, 1.0), before)


def test_when_a_refresh_is_due() -> None:
    assert [after for after in range(1, 13) if refresh_is_due(after - 1, after, 4)] == [4, 8, 12]
    # Batches of three optimizer steps: with the first batch that reaches a multiple.
    assert [after for after in range(3, 22, 3) if refresh_is_due(after - 3, after, 4)] == [6, 9, 12, 18, 21]
    assert not any(refresh_is_due(after - 1, after, 0) for after in range(1, 9))
