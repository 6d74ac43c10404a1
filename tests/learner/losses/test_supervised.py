"""The loss of supervised fine-tuning by hand."""

import torch

from learner.losses.supervised import sft_loss
from tests.learner.loss_numbers import numbers, vector


def test_sft_loss_by_hand() -> None:
    logprobs = vector(-1, -2, -4).requires_grad_()
    parts = sft_loss(logprobs, vector(0.5, 0.25, 8), vector(0.5, 0.25, 0))
    assert parts.loss.item() == 0.5 * 1 + 0.25 * 2
    assert numbers(parts) == {"count": 2, "nll": 3, "entropy": 0.75}
    parts.loss.backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [-0.5, -0.25, 0]
    entropies, weights = vector(0.1, 0.2, 0.3), vector(0.2, 0.3, 0.5)
    assert torch.autograd.gradcheck(lambda x: sft_loss(x, entropies, weights).loss, vector(-1, -2, -4).requires_grad_())
