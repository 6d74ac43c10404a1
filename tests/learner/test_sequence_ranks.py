"""Ranks that pass packs together are one rank: the same losses, gradients, updates and answers. Four processes, over gloo."""

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learner.rank import LearnerRank
from learner.stats import TrainStats, train_stats
from tests.learner import sequence_work
from tests.learner.sequence_work import LOSSES, MODELS, TRAINED, UPDATES, all_gradients, make_models, update, work

pytestmark = pytest.mark.engine

RANKS = 4
SIZES = (2, 4)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the models and what four ranks made of them."""
    folder = tmp_path_factory.mktemp("sequences")
    make_models(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(work, (RANKS, port, str(folder)), nprocs=RANKS)
    return folder


def of_all_ranks(found: Path, name: str, size: int) -> list[Any]:
    return [torch.load(found / f"{name} {size} {rank}.pt", weights_only=False) for rank in range(RANKS)]


@pytest.fixture(scope="module")
def alone(found: Path) -> dict[str, Any]:
    return dict(all_gradients(found, 1, None))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("key", [*(f"{name} {loss}" for name in MODELS for loss in LOSSES), "preference"])
def test_losses_and_gradients_are_those_of_one_rank(found: Path, alone: dict[str, Any], key: str, size: int) -> None:
    loss, slopes = alone[key]
    answers = of_all_ranks(found, key, size)
    for first in range(0, RANKS, size):
        assert len({answer[0] for answer in answers[first : first + size]}) == 1, "a group computes one loss"
    exact = {} if key != "preference" else {"rel": 1e-6}  # scores are in float32
    assert sum(answer[0] for answer in answers[::size]) == pytest.approx(loss, **({"rel": 1e-10} | exact))
    for rank in range(RANKS):
        assert answers[rank][1].keys() == slopes.keys()
        for name, slope in slopes.items():
            near = {"rtol": 1e-5, "atol": 1e-7} if exact else {"rtol": 1e-9, "atol": 1e-12}
            torch.testing.assert_close(answers[rank][1][name], slope, **near)


def statistics(stats: TrainStats) -> dict[str, float]:
    parts = {"loss": stats.loss, "grad_norm": stats.grad_norm, "count": stats.count}
    return parts | stats.means | stats.extremes | stats.parts


def in_order(shares: list[tuple[np.ndarray, np.ndarray]]) -> dict[int, float]:
    return {int(index): float(value) for share in shares for index, value in zip(*share, strict=True)}


def by_sequence(shares: list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]]) -> dict[int, list[float]]:
    """Every sequence's log-probabilities: it is answered for once."""
    values: dict[int, list[float]] = {}
    for pack in (pack for share in shares for pack in share):
        for index in np.unique(pack[0]):
            assert index not in values
            values[int(index)] = pack[1][pack[0] == index].tolist()
    return values


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", UPDATES)
def test_updates_and_answers_are_those_of_one_rank(rank: LearnerRank, found: Path, name: str, size: int) -> None:
    answers = of_all_ranks(found, name, size)
    expected = update(rank, str(found / TRAINED), name, 1)
    stats = train_stats([answer["stats"] for answer in answers])
    assert statistics(stats) == pytest.approx(statistics(train_stats([expected["stats"]])), rel=1e-4, abs=1e-6)
    flops = sum(answer["stats"].model_flops for answer in answers)
    assert flops == pytest.approx(expected["stats"].model_flops, rel=0.2), (
        "packs are cut otherwise, and share more or less"
    )
    for answer in answers:
        for key, weights in expected["weights"].items():
            torch.testing.assert_close(answer["weights"][key], weights, rtol=0, atol=2e-5)
    for verb in ("kl", "scores"):
        if verb in expected:
            theirs = in_order([answer[verb] for answer in answers])
            assert theirs == pytest.approx(in_order([expected[verb]]), rel=1e-4, abs=1e-5)
            assert sum(len(answer[verb][0]) for answer in answers) == len(sequence_work.rows()), "each is answered once"
    if "logprobs" in expected:
        mine, theirs = by_sequence([expected["logprobs"]]), by_sequence([answer["logprobs"] for answer in answers])
        assert mine.keys() == theirs.keys()
        for index, values in mine.items():
            assert theirs[index] == pytest.approx(values, abs=1e-4)


def test_more_ranks_than_heads_are_refused(found: Path) -> None:
    for rank in range(RANKS):
        message = torch.load(found / f"refused {rank}.pt", weights_only=False)
        assert message.startswith("learner.sequence_parallel = 4: the model has 3 attention heads")
