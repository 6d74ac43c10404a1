"""The rollout service on a real vLLM engine."""

import asyncio
import time

import numpy as np

from rollout.types import Sampling
from tests.engine.conftest import Rig


def test_a_group_is_reproduced_by_its_seed_and_differs_within(rig: Rig) -> None:
    sampling = Sampling(n=4, max_tokens=16, seed=7)
    first = rig.run(rig.pool.generate("a", rig.prompt("12+34="), sampling))
    again = rig.run(rig.pool.generate("a", rig.prompt("12+34="), sampling))
    other = rig.run(rig.pool.generate("a", rig.prompt("12+34="), Sampling(n=4, max_tokens=16, seed=99)))

    assert [c.text for c in first.completions] == [c.text for c in again.completions]
    assert len({c.text for c in first.completions}) == 4
    assert [c.text for c in first.completions] != [c.text for c in other.completions]
    assert [c.seed for c in first.completions] == [7, 8, 9, 10]


def test_completions_carry_ids_logprobs_versions_and_reason(rig: Rig) -> None:
    group = rig.run(rig.pool.generate("b", rig.prompt("1+1="), Sampling(n=8, max_tokens=12, seed=1)))
    for completion in group.completions:
        length = len(completion.token_ids)
        assert length == len(completion.rollout_logprobs) == len(completion.policy_versions)
        assert (completion.rollout_logprobs < 0).all()
        ended = completion.token_ids[-1] == rig.tokenizer.eos_token_id
        assert completion.finish_reason == ("stop" if ended else "length")
        assert ended or length == 12
        assert completion.text == rig.tokenizer.decode(completion.token_ids, skip_special_tokens=True)


def test_many_seeded_prompts_at_once_survive(rig: Rig) -> None:
    """More prompt tokens than one engine step takes: vLLM 0.32 died of this on a CPU with chunked prefill."""
    long = "9" * 100

    async def many() -> list:
        sampling = Sampling(n=2, max_tokens=4, seed=3)
        return await asyncio.gather(
            *(rig.pool.generate(f"m{i}", rig.prompt(f"{i}{long}"), sampling) for i in range(80))
        )

    groups = rig.run(many())
    assert all(len(group.completions) == 2 for group in groups)


def test_requests_that_nobody_waits_for_any_more_leave_the_engine(rig: Rig) -> None:
    """Half a million tokens are asked for, too many for the time that is given. Kept, they would take the engine minutes."""

    async def many() -> None:
        asked = Sampling(n=64, max_tokens=120, seed=3)
        groups = [asyncio.ensure_future(rig.pool.generate(f"h{i}", rig.prompt(f"{i}="), asked)) for i in range(64)]
        _, waiting = await asyncio.wait(groups, timeout=2)
        assert waiting
        for group in waiting:
            group.cancel()
        await asyncio.gather(*groups, return_exceptions=True)

    rig.run(many())
    assert rig.pool.serving == (0,)
    assert [member["owed_tokens"] for member in rig.pool.members()] == [0]
    began = time.perf_counter()
    rig.run(rig.pool.generate("after", rig.prompt("1+1="), Sampling(n=2, max_tokens=4, seed=1)))
    assert time.perf_counter() - began < 10


def test_sampler_and_learner_agree_to_1e_4(rig: Rig) -> None:
    from learner.batch import TrainingSequence, make_batch

    rig.open()
    rig.publish(1)
    sampling = Sampling(n=8, max_tokens=32, seed=5, temperature=0.8)
    group = rig.run(rig.pool.generate("c", rig.prompt("55+67="), sampling))
    rows = [
        TrainingSequence(
            token_ids=np.concatenate([np.array(group.prompt.token_ids), c.token_ids]).astype(np.int64),
            first_target=len(group.prompt.token_ids),
            rollout_logprobs=c.rollout_logprobs,
        )
        for c in group.completions
    ]
    batch = make_batch(
        rows,
        ranks=1,
        mini_batches=1,
        micro_batch_tokens=64,
        length_norm="sequence",
        constant_length=32,
        temperature=0.8,
        seed=0,
    )
    gaps = rig.run(rig.learner.logprob_gaps(batch, [0] * len(rows)))
    assert gaps[0].largest < 1e-4
