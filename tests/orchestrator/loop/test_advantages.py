"""From groups to rows: advantages over the batch, the KL in the reward, what is filtered."""

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from learner.batch import TrainingBatch, make_batch
from orchestrator.loop.advantages import BatchAdvantages, batch_advantages
from rewards.types import ScoredGroup
from tests.factories import completion, scored_group
from tests.orchestrator.factories import recipe


class Learner:
    """Answers with as much KL as a sequence has targets, times ten, plus its first target's id."""

    asked = 0

    async def kl_to_reference(self, batch: TrainingBatch) -> np.ndarray:
        self.asked += 1
        kl = np.empty(batch.num_sequences)
        for mini in batch.packs:
            for pack in (pack for rank in mini for pack in rank):
                for segment, index in enumerate(pack.indices):
                    targets = pack.targets[pack.segments == segment]
                    kl[index] = 10 * len(targets) + targets[0]
        return kl


def trained(groups: list[ScoredGroup], learner: Learner | None = None, **settings: Any) -> BatchAdvantages:
    stage = recipe(learner=settings).stages[0]

    async def the_learner() -> Learner:
        return learner or Learner()

    def batch_of(rows: Any, seed: int, mini_batches: int, step: int) -> TrainingBatch:
        cut = {"ranks": 1, "micro_batch_tokens": 9, "length_norm": "sequence", "constant_length": 8}
        return make_batch(rows, seed=seed, mini_batches=mini_batches, temperature=1.0, **cut)

    async def take_gpus() -> None: ...

    context: Any = SimpleNamespace(
        stage=stage,
        services=SimpleNamespace(learner=the_learner, take_gpus=take_gpus),
        clocks=SimpleNamespace(training=nullcontext),
        batch_of=batch_of,
    )
    return asyncio.run(batch_advantages(context, groups))


def groups() -> list[ScoredGroup]:
    cut = completion(token_ids=(9, 9), finish_reason="length")
    return [
        scored_group([1.0, 0.0], completions=[completion(token_ids=(7, 8, 1)), cut]),
        scored_group([5.0, 5.0, 2.0], lengths=[1, 2, 3]),
    ]


def test_the_default_is_grpo_and_does_not_ask_the_learner() -> None:
    learner = Learner()
    found = trained(groups(), learner, kl_coef=0.1)
    expected = [1, -1, np.sqrt(0.5), np.sqrt(0.5), -np.sqrt(2)]
    np.testing.assert_allclose(np.concatenate(found.advantages), expected)
    assert [row.advantage for row in found.rows] == pytest.approx(expected)
    assert (learner.asked, found.metrics) == (0, {})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"advantage_scale": "none"}, [0.5, -0.5, 1, 1, -2]),
        ({"advantage_scale": "none", "advantage_baseline": "leave_one_out"}, [1, -1, 1.5, 1.5, -3]),
        # squares sum to 6.5 over five completions
        ({"advantage_scale": "batch_std"}, np.array([0.5, -0.5, 1, 1, -2]) / np.sqrt(1.3)),
    ],
)
def test_the_recipe_chooses(settings: dict[str, Any], expected: list[float]) -> None:
    np.testing.assert_allclose(np.concatenate(trained(groups(), **settings).advantages), expected)


def test_the_kl_is_taken_from_the_reward_of_its_own_completion() -> None:
    learner = Learner()
    found = trained(groups(), learner, kl_in="reward", kl_coef=0.1, advantage_scale="none")
    # KL 37, 29 and 17, 27, 37; rewards −2.7, −2.9 and 3.3, 2.3, −1.7
    np.testing.assert_allclose(found.advantages[0], [0.1, -0.1])
    np.testing.assert_allclose(found.advantages[1], [2, 1, -3])
    assert found.metrics == pytest.approx({"kl/ref": 147 / 11, "kl/penalty": 0.1 * 147 / 5})
    assert learner.asked == 1


def test_without_a_coefficient_there_is_no_kl_in_the_reward() -> None:
    learner = Learner()
    assert trained(groups(), learner, kl_in="reward", kl_coef=0).metrics == {}
    assert learner.asked == 0


def test_what_is_filtered_is_judged_but_does_not_train() -> None:
    found = trained(groups(), overlong_filtering=True)
    assert [len(own) for own in found.advantages] == [2, 3]
    assert [row.advantage for row in found.rows] == pytest.approx([1, np.sqrt(0.5), np.sqrt(0.5), -np.sqrt(2)])
