"""Packed attention is causal attention over each sequence alone: values and gradients, in float64."""

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from learner.model import attention
from learner.model.attention import Layout, kernel_window, packed_attention
from rollout.errors import InputError

CPU = torch.device("cpu")
SIZE = 4


def draw(heads: int, tokens: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, heads, tokens, SIZE, dtype=torch.float64, generator=generator).requires_grad_()


def alone(
    query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scale: float, window: int | None = None
) -> Tensor:
    """The definition: for every sequence softmax(q kᵀ · scale) v under a causal mask; key heads repeated."""
    repeat = query.shape[1] // key.shape[1]
    outputs, begin = [], 0
    for length in lengths:
        q, k, v = (states[0, :, begin : begin + length] for states in (query, key, value))
        k, v = k.repeat_interleave(repeat, 0), v.repeat_interleave(repeat, 0)
        behind = torch.arange(length)[:, None] - torch.arange(length)[None, :]
        hidden = (behind < 0) | (behind >= (window or length))
        scores = (q @ k.transpose(1, 2) * scale).masked_fill(hidden, -math.inf)
        outputs.append((scores.softmax(-1) @ v).transpose(0, 1))
        begin += length
    return torch.cat(outputs)[None]


def packed(query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scale: float | None = None) -> Tensor:
    layout = Layout(np.array(lengths), np.full(len(lengths), -1), CPU)
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
    layout = Layout(np.array(lengths), np.full(len(lengths), -1), CPU).buckets
    laid_out = torch.cat([bucket.index.flatten() for bucket in layout.rows])
    assert torch.equal(laid_out[layout.source], torch.arange(sum(lengths)))
    assert sum(len(bucket.index) for bucket in layout.rows) == len(lengths)


def test_padding_is_bounded() -> None:
    lengths = np.random.default_rng(0).integers(100, 2000, size=200)
    layout = Layout(lengths, np.full(200, -1), CPU).buckets
    assert sum(bucket.index.numel() for bucket in layout.rows) <= 1.26 * lengths.sum()
    assert len(layout.rows) < 25


@pytest.mark.parametrize("length", [1, 2])
def test_the_shortest_packs(length: int) -> None:
    states = [draw(2, length, seed) for seed in range(3)]
    torch.testing.assert_close(packed(*states, [length]), alone(*states, [length], 0.5), rtol=0, atol=1e-12)


# --- Shared prompts


@st.composite
def trees(draw_: st.DrawFn) -> tuple[list[int], list[int]]:
    """(lengths, prefixes) of spans: prompts of every size beside what follows them, each with 0 to 4 sequences."""
    lengths, prefixes = [], []
    for _ in range(draw_(st.integers(1, 4))):
        first = len(lengths)
        lengths.append(draw_(st.integers(1, 40)))
        prefixes.append(-1)
        for _ in range(draw_(st.integers(0, 4))):
            lengths.append(draw_(st.integers(1, 40)))
            prefixes.append(first)
    return lengths, prefixes


windows = st.one_of(st.none(), st.integers(1, 90))
"""Of a layer: none, shorter than most spans, or longer than all."""


def with_prefixes(states: list[Tensor], lengths: list[int], prefixes: list[int], window: int | None) -> Tensor:
    """The definition: every span after its prefix, as a sequence of its own; of that the span's part."""
    parts = [list(torch.split(tensor, lengths, 2)) for tensor in states]
    outputs = []
    for span, prefix in enumerate(prefixes):
        members = [span] if prefix < 0 else [prefix, span]
        whole = [torch.cat([split[i] for i in members], 2) for split in parts]
        outputs.append(alone(*whole, [whole[0].shape[2]], 0.3, window)[:, -lengths[span] :])
    return torch.cat(outputs, 1)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(trees(), st.sampled_from([(2, 2), (4, 2)]), windows)
def test_spans_read_their_prefix(tree: tuple[list[int], list[int]], heads: tuple[int, int], window: int | None) -> None:
    lengths, prefixes = tree
    states = [draw(count, sum(lengths), seed) for seed, count in enumerate((heads[0], heads[1], heads[1]))]
    layout = Layout(np.array(lengths), np.array(prefixes), CPU)
    result = packed_attention(nn.Identity(), *states, None, layout=layout, scaling=0.3, sliding_window=window)[0]
    expected = with_prefixes(states, lengths, prefixes, window)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)
    pull = torch.sin(torch.arange(result.numel(), dtype=torch.float64)).view_as(result)
    for got, wanted in zip(
        torch.autograd.grad((result * pull).sum(), states),
        torch.autograd.grad((expected * pull).sum(), states),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def test_a_long_prompt_is_computed_once_and_a_short_one_along_with_its_sequences() -> None:
    def queries(prompt: int, own: int) -> int:
        layout = Layout(np.array([prompt, own, own, own, own]), np.array([-1, 0, 0, 0, 0]), CPU).buckets
        return sum(row.index[:, row.offset :].numel() for row in layout.rows)

    assert queries(100, 10) == 100 + 4 * 10
    assert queries(10, 100) == 4 * 110


@settings(max_examples=30, deadline=None, derandomize=True)
@given(trees(), windows)
def test_variable_length_spans_say_the_same(tree: tuple[list[int], list[int]], window: int | None) -> None:
    """By the kernel's documented rule, in plain tensors: the last query of a span aligned with its last key, and of each
    query its own place, so many tokens before and so many after."""
    lengths, prefixes = tree
    query, key, value = (draw(2, sum(lengths), seed) for seed in range(3))
    layout = Layout(np.array(lengths), np.array(prefixes), CPU).varlen
    k, v = (t if layout.keys is None else t.index_select(2, layout.keys) for t in (key, value))
    starts = list(zip(layout.query_starts.tolist(), layout.key_starts.tolist(), strict=True))
    before, after = kernel_window(window, layout.longest_key)
    assert after == 0
    outputs = []
    for (q0, k0), (q1, k1) in pairwise(starts):
        scores = query[0, :, q0:q1] @ k[0, :, k0:k1].transpose(1, 2) * 0.3
        behind = torch.arange(q1 - q0)[:, None] + (k1 - k0 - (q1 - q0)) - torch.arange(k1 - k0)[None, :]
        hidden = (behind < 0) | (behind > (before if before >= 0 else k1))
        outputs.append((scores.masked_fill(hidden, -math.inf).softmax(-1) @ v[0, :, k0:k1]).transpose(0, 1))
        assert q1 - q0 <= layout.longest_query
        assert k1 - k0 <= layout.longest_key
    expected = with_prefixes([query, key, value], lengths, prefixes, window)
    torch.testing.assert_close(torch.cat(outputs)[None], expected, rtol=0, atol=1e-12)


def test_a_window_that_covers_every_sequence_costs_no_mask() -> None:
    layout = Layout(np.array([5, 9, 300]), np.full(3, -1), CPU)
    rows = layout.buckets.rows
    assert [layout.mask(row, 300) is None for row in rows] == [True] * len(rows)
    assert [layout.mask(row, 40) is None for row in rows] == [row.width <= 40 for row in rows]
    masks = [mask for row in rows if (mask := layout.mask(row, 40)) is not None]
    assert [layout.mask(row, 40) is mask for row, mask in zip(rows[-1:], masks, strict=True)] == [True], "made once"


# --- What is refused, and what is said


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"softcap": 50.0}, r"soft caps \(softcap\)"),
        ({"s_aux": torch.zeros(2)}, r"attention sinks \(s_aux\)"),
        ({"bias": 1}, "bias"),
    ],
)
def test_attention_never_drops_what_it_is_asked_for(asked: dict[str, object], message: str) -> None:
    layout = Layout(np.array([3]), np.array([-1]), CPU)
    states = [draw(2, 3, seed) for seed in range(3)]
    harmless = {"position_ids": torch.arange(3), "use_cache": False, "softcap": None, "s_aux": None}
    packed_attention(nn.Identity(), *states, None, layout=layout, **harmless)
    with pytest.raises(InputError, match=f"{message}, which Identity asks for"):
        packed_attention(nn.Identity(), *states, None, layout=layout, **(harmless | asked))


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A GPU of compute capability 9.0, as far as the choice of kernels asks."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    for cached in (attention._varlen_serves, attention._varlen_kernel):
        cached.cache_clear()
    yield
    for cached in (attention._varlen_serves, attention._varlen_kernel):
        cached.cache_clear()


GPU = torch.device("cuda", 0)


@pytest.mark.usefixtures("card")
def test_the_log_says_once_which_attention_a_gpu_takes(capfd: pytest.CaptureFixture[str]) -> None:
    assert [attention._varlen_serves(GPU, 64, 64) for _ in range(3)] == [True] * 3
    assert capfd.readouterr().err == "rayzero: attention: variable-length flash attention, FA2\n"
    assert not attention._varlen_serves(GPU, 64, 128)
    assert not attention._varlen_serves(GPU, 320, 320)
    said = capfd.readouterr().err.splitlines()
    assert "heads of 64 for queries and 128 for values" in said[0]
    assert "heads of 320 are larger than 256" in said[1]


@pytest.mark.usefixtures("card")
def test_an_old_gpu_takes_buckets_and_the_log_says_why(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert not attention._varlen_serves(GPU, 64, 64)
    assert "compute capability 7.5 is below 8.0" in capfd.readouterr().err


@pytest.mark.usefixtures("card")
def test_a_kernel_with_other_arguments_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.attention import varlen

    monkeypatch.setattr(varlen, "varlen_attn", lambda query, key, value, scale: query)
    with pytest.raises(
        InputError, match="no varlen_attn with enable_gqa, window_size, which attention on this GPU needs"
    ):
        attention._varlen_serves(GPU, 64, 64)


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("broken", [False, True])
def test_faster_kernels_are_taken_where_their_package_works(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    taken: list[str] = []

    def activate(name: str) -> None:
        if broken:
            raise OSError("undefined symbol")
        taken.append(name)

    monkeypatch.setattr(attention, "find_spec", lambda name: name == "flash_attn_interface")
    monkeypatch.setattr("torch.nn.attention.activate_flash_attention_impl", activate, raising=False)
    assert attention._varlen_serves(GPU, 64, 64)
    said = capfd.readouterr().err
    assert taken == ([] if broken else ["FA3"])
    assert said.endswith(f"flash attention, {'FA2' if broken else 'FA3'}\n")
    assert ("cannot be used: undefined symbol" in said) == broken
