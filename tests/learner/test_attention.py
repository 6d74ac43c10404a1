"""Packed attention is causal attention over each sequence alone: values and gradients, in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from learner.attention import make_layout, packed_attention

CPU = torch.device("cpu")
SIZE = 4


def draw(heads: int, tokens: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, heads, tokens, SIZE, dtype=torch.float64, generator=generator).requires_grad_()


def alone(query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scale: float) -> Tensor:
    """The definition: for every sequence softmax(q kᵀ · scale) v under a causal mask; key heads repeated."""
    repeat = query.shape[1] // key.shape[1]
    outputs, begin = [], 0
    for length in lengths:
        q, k, v = (states[0, :, begin : begin + length] for states in (query, key, value))
        k, v = k.repeat_interleave(repeat, 0), v.repeat_interleave(repeat, 0)
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
        scores = (q @ k.transpose(1, 2) * scale).masked_fill(hidden, -math.inf)
        outputs.append((scores.softmax(-1) @ v).transpose(0, 1))
        begin += length
    return torch.cat(outputs)[None]


def packed(query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scale: float | None = None) -> Tensor:
    layout = make_layout(np.array(lengths), CPU)
    return packed_attention(nn.Identity(), query, key, value, None, layout=layout, scaling=scale)[0]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=7), st.sampled_from([(2, 2), (4, 2), (4, 1)]))
def test_values_and_gradients_are_those_of_each_sequence_alone(lengths: list[int], heads: tuple[int, int]) -> None:
    states = [draw(count, sum(lengths), seed) for seed, count in enumerate((heads[0], heads[1], heads[1]))]
    result, expected = packed(*states, lengths, 0.3), alone(*states, lengths, 0.3)
    assert result.shape == (1, sum(lengths), heads[0], SIZE)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)
    pull = torch.sin(torch.arange(result.numel(), dtype=torch.float64)).view_as(result)
    for got, wanted in zip(
        torch.autograd.grad((result * pull).sum(), states),
        torch.autograd.grad((expected * pull).sum(), states),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def test_the_default_scale_is_that_of_the_head_size() -> None:
    states = [draw(2, 9, seed) for seed in range(3)]
    torch.testing.assert_close(packed(*states, [5, 4]), alone(*states, [5, 4], SIZE**-0.5), rtol=0, atol=1e-12)


def test_no_token_sees_another_sequence_or_a_later_token() -> None:
    states = [draw(2, 10, seed) for seed in range(3)]
    result = packed(*states, [3, 4, 3])
    gradients = torch.autograd.grad(result[0, 4].sum(), states)  # the second token of the second sequence
    for gradient, seen in zip(gradients, [(4,), (3, 4), (3, 4)], strict=True):
        assert tuple(gradient[0].abs().sum((0, 2)).nonzero().flatten().tolist()) == seen


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=30))
def test_source_finds_every_token_again(lengths: list[int]) -> None:
    layout = make_layout(np.array(lengths), CPU)
    laid_out = torch.cat([bucket.flatten() for bucket in layout.buckets])
    assert torch.equal(laid_out[layout.source], torch.arange(sum(lengths)))
    assert sum(len(bucket) for bucket in layout.buckets) == len(lengths)


def test_padding_is_bounded() -> None:
    lengths = np.random.default_rng(0).integers(100, 2000, size=200)
    layout = make_layout(lengths, CPU)
    assert sum(bucket.numel() for bucket in layout.buckets) <= 1.26 * lengths.sum()
    assert len(layout.buckets) < 25


@pytest.mark.parametrize("length", [1, 2])
def test_the_shortest_packs(length: int) -> None:
    states = [draw(2, length, seed) for seed in range(3)]
    torch.testing.assert_close(packed(*states, [length]), alone(*states, [length], 0.5), rtol=0, atol=1e-12)
