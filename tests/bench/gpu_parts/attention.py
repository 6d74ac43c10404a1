"""Packed attention (learner/model/attention.py) in bfloat16 beside its definition in float32, and its speed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from learner.model.attention import Layout, packed_attention, serves_varlen
from tests.bench.gpu_parts.bench import Bench
from tests.bench.gpu_parts.environment import timed

HEADS, KV_HEADS, SIZE = 12, 2, 128
"""Those of Qwen2.5-1.5B."""
Spans = tuple[list[int], list[int]]
"""(lengths, prefixes) as in learner.batch.Pack."""


def group(prompt: int, completions: list[int], first: int = 0) -> Spans:
    """A prompt that its completions share; `first`: number of spans before."""
    return [prompt, *completions], [-1, *([first] * len(completions))]


def groups(count: int, prompt: int, completions: list[int]) -> Spans:
    lengths: list[int] = []
    prefixes: list[int] = []
    for _ in range(count):
        more = group(prompt, completions, len(lengths))
        lengths, prefixes = lengths + more[0], prefixes + more[1]
    return lengths, prefixes


def run(bench: Bench) -> None:
    # The image's cuDNN may not be the one that torch wants; nothing of ours takes it.
    torch.backends.cuda.enable_cudnn_sdp(False)
    scale = 16 if bench.tiny else 1
    plain = [1500 // scale, 7, 800 // scale, 1, 2000 // scale], [-1] * 5
    shared = groups(2, 300 // scale, [900 // scale, 33, 500 // scale, 1])
    mixed = group(1200 // scale, [10, 40, 64 // scale], 0)
    for name, spans in {"plain": plain, "shared prompts": shared, "long shared prompt": mixed}.items():
        bench.record(**{name: correctness(spans, bench.device)})
    packs = {
        "16k, 8 x 2048": ([2048 // scale] * 8, [-1] * 8),
        "16k, shared prompt": groups(2, 1024 // scale, [896 // scale] * 8),
        "32k, one sequence": ([32768 // scale], [-1]),
        "32k, 4 x 8192": ([8192 // scale] * 4, [-1] * 4),
    }
    for name, spans in packs.items():
        bench.record(**{name: speed(spans, bench.device)})
    worst = max(figures["output"] for figures in bench.figures.values() if "output" in figures)
    worst_gradient = max(figures["gradients"] for figures in bench.figures.values() if "gradients" in figures)
    bench.record(worst_output=worst, worst_gradient=worst_gradient)
    # bfloat16 rounds to 2^-9; a wrong mask moves whole outputs.
    assert worst < 0.01, f"outputs differ by {worst:.3g} of their norm"
    assert worst_gradient < 0.02, f"gradients differ by {worst_gradient:.3g} of their norm"


def correctness(spans: Spans, device: str) -> dict[str, Any]:
    """Norm of the difference over the norm, of outputs and of the worst of the three gradients."""
    layout = _layout(spans, device)
    half = [states.requires_grad_() for states in draw(sum(spans[0]), device)]
    exact = [states.detach().float().requires_grad_() for states in half]
    found, expected = packed(half, layout), definition(exact, spans)
    pull = torch.randn_like(expected)
    got = torch.autograd.grad((found.float() * pull).sum(), half)
    wanted = torch.autograd.grad((expected * pull).sum(), exact)
    return {
        "varlen": serves_varlen(half[0], half[2]),
        "output": _apart(found, expected),
        "largest_output_difference": float((found.float() - expected).abs().max()),
        "gradients": max(_apart(one, other) for one, other in zip(got, wanted, strict=True)),
    }


def speed(spans: Spans, device: str) -> dict[str, float]:
    """Milliseconds, and model TFLOP/s (causal, a shared prompt once) of a forward and a forward with its backward pass."""
    layout = _layout(spans, device)
    states = [each.requires_grad_() for each in draw(sum(spans[0]), device)]
    pull = torch.randn(1, sum(spans[0]), HEADS, SIZE, device=device, dtype=torch.bfloat16)

    def both() -> None:
        torch.autograd.grad(packed(states, layout), states, pull)

    def forward() -> None:
        with torch.no_grad():
            packed(states, layout)

    lengths, prefixes = (np.array(part) for part in spans)
    before = np.where(prefixes < 0, 0, lengths[prefixes])
    flops = 2 * HEADS * SIZE * float((lengths * (2 * before + lengths)).sum())
    times = 2 if device == "cpu" else 20
    one, two = _milliseconds(forward, device, times), _milliseconds(both, device, times)
    figures = {"forward_ms": one, "forward_tflops": flops / one / 1e9}
    # A backward pass makes five products where a forward pass makes two.
    return figures | {"both_ms": two, "both_tflops": 3.5 * flops / two / 1e9}


def packed(states: list[Tensor], layout: Layout) -> Tensor:
    """[1, T, heads, D]"""
    query, key, value = states
    return packed_attention(nn.Identity(), query, key, value, None, layout=layout)[0]


def definition(states: list[Tensor], spans: Spans) -> Tensor:
    """[1, T, heads, D] by softmax(q kᵀ / √D) v in float32: every span after its prefix, keys of a group of heads repeated."""
    query, key, value = (tensor[0] for tensor in states)
    key, value = (tensor.repeat_interleave(len(query) // len(key), 0) for tensor in (key, value))
    starts = np.concatenate([[0], np.cumsum(spans[0])])
    outputs = []
    for span, prefix in enumerate(spans[1]):
        members = [span] if prefix < 0 else [prefix, span]
        k, v = (torch.cat([t[:, starts[i] : starts[i + 1]] for i in members], 1) for t in (key, value))
        q = query[:, starts[span] : starts[span + 1]]
        hidden = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool, device=q.device).triu(k.shape[1] - q.shape[1] + 1)
        scores = (q @ k.transpose(1, 2) * SIZE**-0.5).masked_fill(hidden, float("-inf"))
        outputs.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(outputs)[None]


def draw(tokens: int, device: str) -> list[Tensor]:
    torch.manual_seed(0)
    return [
        torch.randn(1, heads, tokens, SIZE, device=device, dtype=torch.bfloat16)
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    ]


def _layout(spans: Spans, device: str) -> Layout:
    return Layout(np.array(spans[0]), np.array(spans[1]), torch.device(device))


def _apart(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected).norm() / expected.norm())


def _milliseconds(call: Callable[[], None], device: str, times: int) -> float:
    return 1e3 * timed(call, device, times)
