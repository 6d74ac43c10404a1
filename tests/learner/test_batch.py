"""Cutting into mini-batches, ranks and packs loses nothing, repeats nothing, and keeps the objective."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.batch import LengthNorm, Pack, TrainingBatch, TrainingSequence, make_batch, sequences_of
from rollout.types import FinishReason
from tests.factories import completion, prompt, scored_group

CONSTANT = 40

shapes = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 30)), min_size=1, max_size=12)
norms = st.sampled_from(["sequence", "token", "constant"])
fast = settings(max_examples=40, deadline=None, derandomize=True)


def rows(lengths: list[tuple[int, int]]) -> list[TrainingSequence]:
    """(prompt tokens, targets) of each; every token of all rows has an id of its own."""
    sequences, first = [], 1
    for index, (asked, targets) in enumerate(lengths):
        token_ids = np.arange(first, first + asked + targets)
        first += asked + targets
        sequences.append(
            TrainingSequence(
                token_ids=token_ids,
                first_target=asked,
                advantage=index + 0.5,
                rollout_logprobs=-(token_ids[asked:] / 1000).astype(np.float32),
            )
        )
    return sequences


def batch_of(sequences: list[TrainingSequence], **changes: Any) -> TrainingBatch:
    values: dict[str, Any] = {
        "ranks": 1,
        "mini_batches": 1,
        "micro_batch_tokens": 64,
        "length_norm": "sequence",
        "constant_length": CONSTANT,
        "temperature": 1.0,
        "seed": 0,
    }
    return make_batch(sequences, **(values | changes))


def packs_of(batch: TrainingBatch) -> list[Pack]:
    return [pack for mini in batch.packs for rank in mini for pack in rank]


def is_empty(pack: Pack) -> bool:
    return not pack.weights.any()


# --- Nothing lost, nothing twice


@fast
@given(shapes, st.integers(1, 4), st.integers(1, 5), st.integers(1, 80), norms, st.integers(0, 5))
def test_every_target_trains_once_with_its_own_values(
    lengths: list[tuple[int, int]], ranks: int, mini_batches: int, budget: int, norm: LengthNorm, seed: int
) -> None:
    sequences = rows(lengths)
    batch = batch_of(
        sequences, ranks=ranks, mini_batches=mini_batches, micro_batch_tokens=budget, length_norm=norm, seed=seed
    )
    expected = {
        int(token): (np.float32(sequence.advantage), sequence.rollout_logprobs[i])
        for sequence in sequences
        for i, token in enumerate(sequence.token_ids[sequence.first_target :])
    }
    trained = Counter()
    for pack in packs_of(batch):
        if is_empty(pack):
            continue
        for token, advantage, logprob in zip(pack.targets, pack.advantages, pack.rollout_logprobs, strict=True):
            trained[int(token)] += 1
            assert expected[int(token)] == (advantage, logprob)
    assert trained == dict.fromkeys(expected, 1)
    assert batch.num_sequences == len(lengths)
    assert batch.num_tokens == sum(asked + targets for asked, targets in lengths)
    assert batch.num_targets == len(expected)


@fast
@given(shapes, st.integers(1, 4), st.integers(1, 5), st.integers(1, 80), st.integers(0, 5))
def test_packs_are_well_formed(
    lengths: list[tuple[int, int]], ranks: int, mini_batches: int, budget: int, seed: int
) -> None:
    batch = batch_of(rows(lengths), ranks=ranks, mini_batches=mini_batches, micro_batch_tokens=budget, seed=seed)
    assert all(len(mini) == ranks for mini in batch.packs)
    assert all(len({len(rank) for rank in mini}) == 1 for mini in batch.packs)
    for pack in packs_of(batch):
        assert pack.lengths.sum() == len(pack.token_ids) == len(pack.position_ids)
        assert pack.position_ids.tolist() == [i for length in pack.lengths for i in range(length)]
        columns = (pack.target_positions, pack.targets, pack.segments, pack.weights, pack.advantages)
        assert len(pack.rollout_logprobs) == len(pack.targets)
        assert len(pack.indices) == len(pack.lengths)
        assert len({len(column) for column in columns}) == 1
        assert pack.token_ids.dtype == pack.target_positions.dtype == pack.targets.dtype == np.int64
        assert pack.weights.dtype == pack.advantages.dtype == pack.rollout_logprobs.dtype == np.float32
        np.testing.assert_array_equal(pack.token_ids[pack.target_positions + 1], pack.targets)
        # A target follows in the same sequence, never at the start of the next one.
        assert (pack.position_ids[pack.target_positions + 1] > 0).all()
        assert len(pack.token_ids) <= budget or len(pack.lengths) == 1
        if is_empty(pack):
            assert pack.weights.tolist() == [0]
        else:
            assert (pack.weights > 0).all()


# --- Weights


@fast
@given(shapes, st.integers(1, 4), st.integers(1, 5), st.integers(1, 80), norms)
def test_weights_sum_to_the_normalisation_of_each_mini_batch(
    lengths: list[tuple[int, int]], ranks: int, mini_batches: int, budget: int, norm: LengthNorm
) -> None:
    batch = batch_of(rows(lengths), ranks=ranks, mini_batches=mini_batches, micro_batch_tokens=budget, length_norm=norm)
    for mini in batch.packs:
        packs = [pack for rank in mini for pack in rank if not is_empty(pack)]
        weights = np.concatenate([pack.weights for pack in packs])
        sequences = sum(len(pack.lengths) for pack in packs)
        expected = len(weights) / (sequences * CONSTANT) if norm == "constant" else 1
        assert weights.sum(dtype=np.float64) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        # two completions of 1 and 3 tokens
        ("sequence", {2: 1 / 2, 4: 1 / 6, 5: 1 / 6, 6: 1 / 6}),
        ("token", dict.fromkeys([2, 4, 5, 6], 1 / 4)),
        ("constant", dict.fromkeys([2, 4, 5, 6], 1 / (2 * CONSTANT))),
    ],
)
def test_weights_by_hand(norm: LengthNorm, expected: dict[int, float]) -> None:
    (pack,) = packs_of(batch_of(rows([(1, 1), (1, 3)]), length_norm=norm))
    assert dict(zip(pack.targets.tolist(), pack.weights.tolist(), strict=True)) == pytest.approx(expected)


@fast
@given(shapes, st.integers(1, 4), st.integers(1, 80), norms)
def test_the_objective_does_not_depend_on_ranks_or_budget(
    lengths: list[tuple[int, int]], ranks: int, budget: int, norm: LengthNorm
) -> None:
    value_of = np.random.default_rng(1).normal(size=1000)

    def objective(**cut: int) -> float:
        packs = packs_of(batch_of(rows(lengths), length_norm=norm, **cut))
        return sum(float((pack.weights.astype(np.float64) * value_of[pack.targets]).sum()) for pack in packs)

    reference = objective(ranks=1, micro_batch_tokens=10_000)
    assert objective(ranks=ranks, micro_batch_tokens=budget) == pytest.approx(reference, rel=1e-6, abs=1e-9)


# --- The cut


@fast
@given(shapes, st.integers(1, 3), st.integers(1, 4), st.integers(1, 80))
def test_rows_and_segments_say_where_a_target_comes_from(
    lengths: list[tuple[int, int]], ranks: int, mini_batches: int, budget: int
) -> None:
    sequences = rows(lengths)
    batch = batch_of(sequences, ranks=ranks, mini_batches=mini_batches, micro_batch_tokens=budget)
    packs = [pack for pack in packs_of(batch) if not is_empty(pack)]
    for pack in packs:
        for segment, row in enumerate(pack.indices):
            sequence = sequences[row]
            assert (
                pack.targets[pack.segments == segment].tolist() == sequence.token_ids[sequence.first_target :].tolist()
            )
    assert sorted(row for pack in packs for row in pack.indices) == list(range(len(sequences)))


@fast
@given(shapes, st.integers(1, 3), st.integers(1, 4), st.integers(1, 80))
def test_sequences_that_belong_together_stay_together_in_their_order(
    lengths: list[tuple[int, int]], ranks: int, mini_batches: int, budget: int
) -> None:
    sequences = rows([length for length in lengths for _ in range(2)])
    batch = batch_of(sequences, ranks=ranks, mini_batches=mini_batches, micro_batch_tokens=budget, together=2)
    seen = []
    for pack in packs_of(batch):
        pairs = pack.indices.reshape(-1, 2)
        if is_empty(pack):
            assert pairs.tolist() == [[-1, -1]]
            continue
        assert (pairs[:, 0] % 2 == 0).all()
        assert (pairs[:, 1] == pairs[:, 0] + 1).all()
        assert len(pack.token_ids) <= budget or len(pairs) == 1
        seen += pack.indices.tolist()
    assert sorted(seen) == list(range(len(sequences)))


def test_mini_batches_partition_the_sequences_evenly() -> None:
    batch = batch_of(rows([(1, 2)] * 10), mini_batches=4)
    counts = [sum(len(pack.lengths) for rank in mini for pack in rank) for mini in batch.packs]
    assert sorted(counts) == [2, 2, 3, 3]


def test_more_mini_batches_than_sequences_leave_no_empty_step() -> None:
    batch = batch_of(rows([(1, 2), (1, 2)]), mini_batches=5)
    assert len(batch.packs) == 2
    assert not any(is_empty(pack) for pack in packs_of(batch))


def test_more_ranks_than_sequences_run_empty_packs() -> None:
    (mini,) = batch_of(rows([(1, 2)]), ranks=3).packs
    assert [[is_empty(pack) for pack in rank] for rank in mini] == [[False], [True], [True]]


def test_the_cut_is_drawn_by_the_seed() -> None:
    def cut(seed: int) -> list[list[int]]:
        batch = batch_of(rows([(1, 1)] * 12), mini_batches=3, seed=seed)
        return [sorted(int(t) for rank in mini for pack in rank for t in pack.targets) for mini in batch.packs]

    assert cut(3) == cut(3)
    assert cut(3) != cut(4)


def test_ranks_are_balanced() -> None:
    lengths = [(2, int(n)) for n in np.random.default_rng(0).integers(1, 50, size=40)]
    (mini,) = batch_of(rows(lengths), ranks=4).packs
    loads = [sum(len(pack.token_ids) for pack in rank if not is_empty(pack)) for rank in mini]
    assert max(loads) - min(loads) <= max(asked + targets for asked, targets in lengths)


def test_a_sequence_over_the_budget_stands_alone_and_whole() -> None:
    packs = packs_of(batch_of(rows([(3, 30), (1, 3), (1, 3), (1, 3)]), micro_batch_tokens=8))
    assert sorted(pack.lengths.tolist() for pack in packs) == [[4], [4, 4], [33]]


def test_supervised_rows_have_no_sampler() -> None:
    row = TrainingSequence(token_ids=np.array([5, 6, 7]), first_target=1)
    (pack,) = packs_of(batch_of([row], length_norm="token"))
    assert pack.targets.tolist() == [6, 7]
    assert pack.rollout_logprobs.tolist() == [0, 0]
    assert pack.advantages.tolist() == [0, 0]


# --- From groups


def test_sequences_of_a_group() -> None:
    group = scored_group(
        [1.0, 0.0],
        asked=prompt(token_ids=(3, 4)),
        completions=[
            completion(token_ids=(7, 8, 1), logprobs=(-0.1, -0.2, -0.3)),
            completion(token_ids=(9, 1), logprobs=(-0.4, -0.5)),
        ],
    )
    first, second = sequences_of(group, np.array([1.0, -1.0]))
    assert first.token_ids.tolist() == [3, 4, 7, 8, 1]
    assert second.token_ids.tolist() == [3, 4, 9, 1]
    assert first.token_ids.dtype == np.int64
    assert (first.first_target, second.first_target) == (2, 2)
    assert (first.num_targets, second.num_targets) == (3, 2)
    assert (first.advantage, second.advantage) == (1.0, -1.0)
    np.testing.assert_allclose(second.rollout_logprobs, [-0.4, -0.5])


def test_overlong_filtering_leaves_out_what_was_cut_and_keeps_the_others_advantages() -> None:
    reasons: list[FinishReason] = ["stop", "length", "stop", "length"]
    group = scored_group([0.0] * 4, completions=[completion(finish_reason=reason) for reason in reasons])
    values = np.array([1.0, 2.0, 3.0, 4.0])
    assert [row.advantage for row in sequences_of(group, values)] == [1, 2, 3, 4]
    assert [row.advantage for row in sequences_of(group, values, overlong_filtering=True)] == [1, 3]


def test_no_sequences_make_a_batch_of_no_steps() -> None:
    batch = batch_of([], mini_batches=3, ranks=2)
    assert (batch.packs, batch.num_sequences, batch.num_tokens, batch.num_targets) == ((), 0, 0, 0)


def test_completions_that_left_the_group_do_not_train() -> None:
    whole = scored_group([1.0, 0.0, 0.5])
    kept = type(whole)(
        group=whole.group, completions=whole.completions[:2], scores=whole.scores[:2], num_errors=1, seconds=0.0
    )
    assert [row.advantage for row in sequences_of(kept, np.array([1.0, -1.0]))] == [1, -1]


# --- Without a signal


def silent(lengths: list[tuple[int, int]], every: int) -> list[TrainingSequence]:
    """Rows of which one in `every` has a signal; the others' advantage is 0, either way round."""
    return [
        replace(row, advantage=row.advantage if i % every == 0 else -0.0 if i % 2 else 0.0)
        for i, row in enumerate(rows(lengths))
    ]


@fast
@given(shapes, st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 80), norms, st.integers(0, 5))
def test_what_has_no_signal_is_in_no_pack_and_the_weights_of_the_rest_are_to_the_bit_those_of_all(
    lengths: list[tuple[int, int]],
    every: int,
    ranks: int,
    mini_batches: int,
    budget: int,
    norm: LengthNorm,
    seed: int,
) -> None:
    sequences = silent(lengths, every)
    cut = {
        "ranks": ranks,
        "mini_batches": mini_batches,
        "micro_batch_tokens": budget,
        "length_norm": norm,
        "seed": seed,
    }
    whole, kept = batch_of(sequences, **cut), batch_of(sequences, **cut, only_signal=True)

    def shares(batch: TrainingBatch) -> list[dict[int, tuple[float, float]]]:
        return [
            {
                int(target): (float(weight), float(advantage))
                for pack in (pack for rank in mini for pack in rank if not is_empty(pack))
                for target, weight, advantage in zip(pack.targets, pack.weights, pack.advantages, strict=True)
            }
            for mini in batch.packs
        ]

    expected = [{k: share for k, share in mini.items() if share[1] != 0} for mini in shares(whole)]
    assert shares(kept) == expected, "of every mini-batch, whose number stays"
    signal = [row for row in sequences if row.advantage]
    assert (kept.num_sequences, kept.num_skipped) == (len(signal), len(sequences) - len(signal))
    assert kept.num_tokens == sum(len(row.token_ids) for row in signal)
    assert kept.num_targets == sum(row.num_targets for row in signal)
    assert kept.skipped_share == pytest.approx(1 - len(signal) / len(sequences))
    assert (whole.num_skipped, whole.skipped_share) == (0, 0)


def test_a_mini_batch_without_a_signal_is_an_empty_pack_for_each_rank() -> None:
    batch = batch_of(silent([(3, 4)] * 6, every=7)[1:], ranks=2, mini_batches=2, only_signal=True)
    assert [[[is_empty(pack) for pack in rank] for rank in mini] for mini in batch.packs] == [[[True]] * 2] * 2
    assert (batch.num_sequences, batch.num_skipped, batch.num_tokens) == (0, 5, 0)


# --- Shared prompts


def groups(prompt_tokens: list[int], completions: list[list[int]]) -> list[TrainingSequence]:
    """Completions of so many tokens of prompts of so many tokens."""
    rng = np.random.default_rng(0)
    sequences = []
    for asked, lengths in zip(prompt_tokens, completions, strict=True):
        prompt_ids = rng.integers(0, 1000, asked)
        for length in lengths:
            token_ids = np.concatenate([prompt_ids, rng.integers(0, 1000, length)])
            sequences.append(TrainingSequence(token_ids=token_ids, first_target=asked))
    return sequences


def read_back(pack: Pack) -> dict[int, list[int]]:
    """Row → token ids of the sequence, through its span and the span before it."""
    starts = np.concatenate([[0], np.cumsum(pack.lengths)])
    found = {}
    for row, end in zip(pack.indices, pack.ends, strict=True):
        span = int(np.searchsorted(starts, end, side="right")) - 1
        spans = [span] if pack.prefixes[span] < 0 else [pack.prefixes[span], span]
        assert end == starts[span + 1] - 1
        positions = [position for i in spans for position in pack.position_ids[starts[i] : starts[i + 1]]]
        assert positions == list(range(len(positions)))
        found[int(row)] = [int(token) for i in spans for token in pack.token_ids[starts[i] : starts[i + 1]]]
    return found


@fast
@given(
    st.lists(st.tuples(st.integers(1, 40), st.lists(st.integers(1, 30), min_size=1, max_size=6)), max_size=6),
    st.integers(1, 4),
    st.sampled_from([1, 50, 200, 10_000]),
)
def test_sequences_can_be_read_back_from_their_spans(
    asked: list[tuple[int, list[int]]], ranks: int, budget: int
) -> None:
    sequences = groups([prompt for prompt, _ in asked], [lengths for _, lengths in asked])
    found: dict[int, list[int]] = {}
    for pack in packs_of(batch_of(sequences, ranks=ranks, micro_batch_tokens=budget, length_norm="token")):
        if is_empty(pack):
            continue
        found |= read_back(pack)
        assert len(pack.token_ids) <= budget or len(pack.indices) == 1
        before = [read_back(pack)[int(row)] for row in pack.indices]
        for segment, tokens in enumerate(before):
            mine = pack.segments == segment
            first = sequences[pack.indices[segment]].first_target
            assert pack.targets[mine].tolist() == tokens[first:]
            assert pack.token_ids[pack.target_positions[mine]].tolist() == tokens[first - 1 : -1]
    assert found == {row: sequence.token_ids.tolist() for row, sequence in enumerate(sequences)}


def test_a_prompt_stands_once_in_a_pack() -> None:
    (pack,) = packs_of(batch_of(groups([10, 20], [[5, 6, 7], [8]]), micro_batch_tokens=1000))
    assert len(pack.token_ids) == 10 + 5 + 6 + 7 + 20 + 8
    assert sorted(pack.lengths.tolist()) == [5, 6, 7, 10, 28]
    assert len(set(pack.target_positions.tolist())) == len(pack.targets) - 2


def test_a_prompt_of_a_few_tokens_is_not_shared() -> None:
    (pack,) = packs_of(batch_of(groups([2], [[5, 6, 7]]), micro_batch_tokens=1000))
    assert (pack.prefixes == -1).all()


def test_micro_batches_are_of_equal_load() -> None:
    lengths = np.minimum(np.random.default_rng(0).geometric(1 / 48, (16, 8)), 256).tolist()
    sequences = groups([30] * 16, lengths)
    asked, answered = 16 * 30, sum(map(sum, lengths))
    for ranks in (1, 4):
        (mini,) = batch_of(sequences, ranks=ranks, micro_batch_tokens=1500).packs
        loads = np.array([[len(pack.token_ids) for pack in rank] for rank in mini])
        assert loads.max() <= 1500
        assert loads.max() < 1.2 * loads.mean()
        assert loads.sum(1).max() < 1.06 * loads.sum(1).mean()
        # Few prompts are repeated.
        assert loads.sum() < 1.05 * (asked + answered)


def test_one_group_occupies_all_ranks() -> None:
    packs = packs_of(batch_of(groups([100], [[50] * 8]), ranks=4, micro_batch_tokens=1000))
    assert not any(is_empty(pack) for pack in packs)
    assert max(len(pack.token_ids) for pack in packs) <= 1.5 * (100 + 400) / 4 + 100
