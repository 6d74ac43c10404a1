"""Checkpoints and exports that ranks of several hosts write to a storage and read from it: each sees its own disk alone."""

from pathlib import Path

import pytest

from learner.model.small import build_model
from rollout.storage import host
from rollout.storage.folders import commit, put_files, stored_files
from tests.learner.specs import build_spec
from tests.learner.two_ranks import on_ranks

pytestmark = pytest.mark.engine

PROGRAM = """
import numpy as np
from pathlib import Path
from learner.batch import TrainingSequence, make_batch
from learner.publish.buckets import gather
from rollout.storage.folders import commit

def batch(seed):
    rng = np.random.default_rng(seed)
    rows = [
        TrainingSequence(token_ids=rng.integers(3, 90, size=length), first_target=4, advantage=float(rng.normal()),
                         rollout_logprobs=np.full(length - 4, -4.5, np.float32))
        for length in (9, 14, 20, 12, 11, 10, 17, 8)
    ]
    return make_batch(rows, ranks=ranks, seed=0, temperature=1.0, mini_batches=1, micro_batch_tokens=30,
                      length_norm="sequence", constant_length=16)

def weights():
    found = {}
    for name, parameter in rank.model.module.named_parameters():
        with gather([parameter], rank.model.sharded):
            found[name] = parameter.detach().double().flatten().tolist()
    return found

def disk(name):
    # Each rank is a host of its own.
    os.environ["RAYZERO_STORAGE_CACHE"] = place = f"{given['disks']}/{name}-{number}"
    return Path(place)

def opened(settings):
    settings = {"reference_refresh_steps": 1, **settings}
    rank.open(learner_spec(given["model"], reference_path=given["model"], kl_coef=0.1, lr=1e-3, **settings))

def left(place):
    return sorted(path.name.partition("-")[2] for path in place.iterdir() if path.name != "locks")

found = []
for stage in given["stages"]:
    uri, answers = f"{given['storage']}/step-{stage}", {}
    if given["write"]:
        disk("writing")
        opened({"zero_stage": stage})
        rank.train(batch(0), "grpo")
        gathered = [None] * ranks
        for place, own in ((uri, rank.save(uri, {"step": 1})), (uri + "-export", rank.export(uri + "-export", given["model"]))):
            torch.distributed.all_gather_object(gathered, own)
            if number == 0:
                commit(place, [file for each in gathered for file in each])
        rank.train(batch(1), "grpo")
        answers["before"] = weights()
        torch.distributed.barrier()
    fresh = disk("reading")
    opened({"zero_stage": stage if given["write"] else (stage + 1) % 4})
    rank.load(uri)
    rank.train(batch(1), "grpo")
    found.append(answers | {"after": weights(), "left": left(fresh)})
answer(found)
"""

STAGES = (0, 2, 3)


def test_ranks_go_on_from_a_storage_as_if_nothing_had_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model that they begin with is in the storage too."""
    monkeypatch.setenv(host.VARIABLE, str(tmp_path / "here"))
    storage = f"file://{tmp_path}/storage"
    build_model(build_spec(), iter(()), tmp_path / "model")
    commit(f"{storage}/model", put_files(f"{storage}/model", tmp_path / "model"))
    given = {"disks": f"{tmp_path}/disks", "storage": storage, "model": f"{storage}/model", "stages": STAGES}
    both = on_ranks(PROGRAM, {**given, "write": True})
    for rank in both:
        for answers in rank:
            assert answers["after"] == answers["before"]
            assert answers["left"] == ["model"], "no checkpoint stays on the disk, and nothing that was on its way"
    (alone,) = on_ranks(PROGRAM, {**given, "write": False, "disks": f"{tmp_path}/more"}, ranks=1)
    for one, answers in zip(both[0], alone, strict=True):
        for name, values in answers["after"].items():
            assert values == pytest.approx(one["before"][name], abs=1e-5), "another number of ranks and another stage"
    for stage in STAGES:
        assert {"config.json", "model.safetensors"} <= {
            file.name for file in stored_files(f"{storage}/step-{stage}-export")
        }


def test_a_rank_reads_its_own_shards_alone_where_the_layout_is_the_same() -> None:
    from learner.checkpoint import is_record, rank_of

    for name, rank in {
        "learner.json": None,
        "learner/mp_rank_00_model_states.pt": None,
        "learner/zero_pp_rank_0_mp_rank_00_model_states.pt": 0,
        "learner/zero_pp_rank_12_mp_rank_00_optim_states.pt": 12,
        "learner/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt": 1,
        "random-7.pt": 7,
        "score/random-7.pt": 7,
        "reference.safetensors": None,
    }.items():
        assert rank_of(name) == rank
    assert [is_record(name) for name in ("learner.json", "score/learner.json", "state.json")] == [True, True, False]
