"""What tests of losses share: a loss as recipes give it by default, its figures as numbers, and slopes taken two ways."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from learner.losses.types import LossParts
from learner.spec import LossSpec


def loss_spec(**changes: Any) -> LossSpec:
    """The plain clipped surrogate; `changes` add the rest."""
    settings: dict[str, Any] = {
        "policy_loss": "clip",
        "clip_low": 0.2,
        "clip_high": 0.3,
        "dual_clip": 0.0,
        "kl_coef": 0.0,
        "kl_estimator": "k3",
        "kl_in": "loss",
        "entropy_coef": 0.0,
        "importance_mode": "truncate",
        "importance_level": "token",
        "importance_floor": 0.5,
        "importance_cap": 0.0,
    }
    return LossSpec(**(settings | changes))


def numbers(parts: LossParts) -> dict[str, float]:
    """The figures of a loss."""
    return {name: value.item() for name, value in parts.figures.items()}


def gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    at = at.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(function(at), at)
    return slopes


def finite_difference(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences of a scalar function."""
    slopes = torch.zeros_like(at)
    for i in range(len(at)):
        shift = torch.zeros_like(at)
        shift[i] = step
        slopes[i] = (function(at + shift) - function(at - shift)) / (2 * step)
    return slopes


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
