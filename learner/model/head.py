"""Log-probabilities and entropies of targets from hidden states, without the logits of all tokens.

N targets, H hidden size, V vocabulary. The output layer is applied to a tile of the vocabulary at a time, for some tokens at a
time, and once more in the backward pass, where a tile of logits turns into a tile of their gradient in place. So what exists
besides the gradients themselves is one tile, whatever N and V are: memory does not grow with tokens × vocabulary, and on a
CPU the tile stays in the cache. What it costs is one matrix product in four. By hand: the fused heads of others (Liger, cut
cross-entropy) are Triton kernels, which need a GPU.

With logits z = (h Wᵀ + b) / temperature, p = softmax(z) and y = z − log Σ e^z, so that the log-probability of target t is y_t:

    H = −Σ_j p_j y_j        ∂y_t/∂z_j = [j = t] − p_j        ∂H/∂z_j = −p_j (y_j + H)

On a GPU in 16 bits, products are taken of 16-bit factors and come out in float32, so that no logit is rounded: what an
engine whose head is in float32 computes (vLLM's `head_dtype`), at no cost.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from learner.model.fused import absorb, fused, tile_slopes

_TILE_BYTES = {"cpu": 16 << 20}
"""Device → bytes of one tile of float32 logits: on a CPU a share of the last cache."""
_TILE_BYTES_ELSEWHERE = 256 << 20
"""Bytes of a tile on any other device: large enough to keep a GPU busy."""


class LanguageHead(nn.Linear):
    """The output layer of a causal language model, which answers for targets when it is given them.

    A module of its own, called as one, because DeepSpeed ZeRO-3 gathers weights when the module that holds them is called.
    """

    def forward(
        self,
        hidden: Tensor,
        targets: Tensor | None = None,
        temperature: float = 1.0,
        entropy_gradient: bool = False,
        chunk: int = 1024,
    ) -> Any:
        """[N, H] and [N] → [N] log-probabilities and [N] entropies (in float32, or float64 if the model is); or logits.

        `entropy_gradient`: whether the entropies carry one. `chunk`: tokens at a time.
        """
        if targets is None:
            return super().forward(hidden)
        return TargetLogprobs.apply(hidden, self.weight, self.bias, targets, temperature, entropy_gradient, chunk)


class TargetLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        entropy_gradient: bool,
        chunk: int,
    ) -> tuple[Tensor, Tensor]:
        exact = torch.promote_types(hidden.dtype, torch.float32)
        # Per token: the largest logit m so far, Σ e^(z − m), Σ e^(z − m) (z − m) and the target's z.
        largest, total, weighted, picked = hidden.new_zeros((4, len(hidden)), dtype=exact)
        largest.fill_(torch.finfo(exact).min / 4)
        for first, last in _tiles(len(weight), chunk, hidden.device):
            rows, offset = weight[first:last], None if bias is None else bias[first:last]
            for part in _chunks(len(hidden), chunk):
                logits = _logits(hidden[part], rows, offset, temperature, exact)
                m, s, w = largest[part], total[part], weighted[part]
                here, column = _inside(targets[part], first, last)
                picked[part] = torch.where(here, logits.gather(1, column[:, None])[:, 0], picked[part])
                if hidden.is_cuda:
                    for old, value in zip((m, s, w), fused(absorb)(logits, m, s, w), strict=True):
                        old.copy_(value)
                    continue
                new = torch.maximum(m, logits.amax(1))
                shift = m - new
                m.copy_(new)
                w.add_(shift * s).mul_(shift.exp())
                s.mul_(shift.exp())
                logits.sub_(new[:, None])
                powers = logits.exp()
                s.add_(powers.sum(1))
                w.add_(powers.mul_(logits).sum(1))
        logsumexp, entropies = largest + total.log(), total.log() - weighted / total
        ctx.save_for_backward(hidden, weight, bias, targets, logsumexp, entropies)
        ctx.temperature, ctx.chunk, ctx.entropy_gradient = temperature, chunk, entropy_gradient
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropies)
        return picked - logsumexp, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, logprob_slopes: Tensor, entropy_slopes: Tensor) -> tuple[Any, ...]:
        hidden, weight, bias, targets, logsumexp, entropies = ctx.saved_tensors
        temperature, chunk, exact = ctx.temperature, ctx.chunk, logsumexp.dtype
        hidden_wanted, weight_wanted, bias_wanted = ctx.needs_input_grad[:3]
        hidden_slopes = torch.zeros_like(hidden, dtype=exact) if hidden_wanted else None
        weight_slopes = torch.empty_like(weight) if weight_wanted else None
        bias_slopes = torch.empty_like(bias) if bias is not None and bias_wanted else None
        for first, last in _tiles(len(weight), chunk, hidden.device):
            rows, offset = weight[first:last], None if bias is None else bias[first:last]
            row_sums = torch.zeros_like(rows, dtype=exact)
            offset_sums = hidden.new_zeros(last - first, dtype=exact)
            for part in _chunks(len(hidden), chunk):
                logits = _logits(hidden[part], rows, offset, temperature, exact)
                slopes = _slopes(
                    logits,
                    logsumexp[part],
                    entropies[part] if ctx.entropy_gradient else None,
                    _inside(targets[part], first, last),
                    logprob_slopes[part],
                    entropy_slopes[part],
                    1 / temperature,
                    hidden.dtype,
                )
                if bias_slopes is not None:
                    offset_sums.add_(slopes.sum(0, dtype=exact))
                slopes = slopes.to(hidden.dtype)
                if hidden_slopes is not None:
                    _add_product(hidden_slopes[part], slopes, rows)
                if weight_slopes is not None:
                    _add_product(row_sums, slopes.T, hidden[part])
            if weight_slopes is not None:
                weight_slopes[first:last] = row_sums
            if bias_slopes is not None:
                bias_slopes[first:last] = offset_sums
        if hidden_slopes is not None:
            hidden_slopes = hidden_slopes.to(hidden.dtype)
        return hidden_slopes, weight_slopes, bias_slopes, None, None, None, None


def _slopes(
    logits: Tensor,
    logsumexp: Tensor,
    entropies: Tensor | None,
    inside: tuple[Tensor, Tensor],
    slope: Tensor,
    entropy_slope: Tensor,
    factor: float,
    dtype: torch.dtype,
) -> Tensor:
    """The gradient of a tile of logits: on a GPU in one pass and rounded to `dtype` in it, elsewhere in the place of the logits.

    Without `entropies` they carry none.
    """
    here, column = inside
    if logits.is_cuda:
        at = torch.where(here, column, -1)
        gradient: Tensor = fused(tile_slopes)(logits, logsumexp, entropies, at, slope, entropy_slope, factor, dtype)
        return gradient
    slopes = logits.sub_(logsumexp[:, None])
    if entropies is None:
        slopes.exp_().mul_(-slope[:, None])
    else:
        pull = (slopes + entropies[:, None]).mul_(entropy_slope[:, None]).add_(slope[:, None]).neg_()
        slopes.exp_().mul_(pull)
    slopes.scatter_add_(1, column[:, None], torch.where(here, slope, 0)[:, None])
    return slopes if factor == 1 else slopes.mul_(factor)


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float, exact: torch.dtype) -> Tensor:
    if _keeps_float32(hidden, exact):
        logits = torch.mm(hidden, weight.T, out_dtype=exact)
        if bias is not None:
            logits.add_(bias)
    else:
        logits = torch.nn.functional.linear(hidden, weight, bias).to(exact)
    return logits if temperature == 1 else logits.mul_(1 / temperature)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right; the sum in the dtype of `total`."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    elif _keeps_float32(left, total.dtype):
        total.add_(torch.mm(left, right, out_dtype=total.dtype))
    else:
        total.add_(left @ right)


def _keeps_float32(factor: Tensor, exact: torch.dtype) -> bool:
    """Whether a product with this factor can come out in `exact` without being rounded to the factor's dtype before."""
    return factor.is_cuda and factor.dtype != exact == torch.float32 and "dtype" in torch.ops.aten.mm.overloads()


def _inside(targets: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
    """Which targets lie in the tile [first, last), and the column of each; 0 of those that do not."""
    here = (targets >= first) & (targets < last)
    return here, torch.where(here, targets - first, 0)


def _tiles(size: int, chunk: int, device: torch.device) -> Iterator[tuple[int, int]]:
    width = max(1, _TILE_BYTES.get(device.type, _TILE_BYTES_ELSEWHERE) // (4 * chunk))
    for first in range(0, size, width):
        yield first, min(first + width, size)


def _chunks(size: int, chunk: int) -> Iterator[slice]:
    for first in range(0, size, chunk):
        yield slice(first, min(first + chunk, size))
