"""Rewards made relative to their group. Plain arrays, a whole batch at a time."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

Baseline = Literal["group_mean", "leave_one_out"]
Scale = Literal["group_std", "batch_std", "batch_reward_std", "none"]


def advantages(
    groups: Sequence[np.ndarray], baseline: Baseline, scale: Scale, resolutions: Sequence[float] | None = None
) -> list[np.ndarray]:
    """[G] rewards of every group of a batch → [G] advantages of every group.

        baseline         scale
        group_mean       group_std          A = (r − mean r) / std r        GRPO: DeepSeekMath, arXiv:2402.03300, 4.1.2
        group_mean       none               A = r − mean r                  Dr. GRPO: arXiv:2503.20783
        leave_one_out    none               A = r_i − mean of the others    RLOO: arXiv:2402.14740
        group_mean       batch_std          A = c / std of all c            REINFORCE++ with baseline: arXiv:2501.03262
        group_mean       batch_reward_std   A = (r − mean r) / std of all r Lite PPO: arXiv:2508.08221

    c are the centred rewards; their mean over the batch is 0 already. Every completion counts once, however long it is.
    Standard deviations are the population's (divisor n) and have nothing added to them. Rewards of a group that all mean the
    same give exact zeros: no signal.

    `resolutions`: of each group the difference up to which two rewards mean the same; None: 0.
    """
    groups = [np.asarray(rewards, dtype=np.float64) for rewards in groups]
    ties = resolutions if resolutions is not None else [0.0] * len(groups)
    centred = [above_baseline(rewards, baseline, tie) for rewards, tie in zip(groups, ties, strict=True)]
    match scale:
        case "group_std":
            deviations = [_deviation(rewards) for rewards in groups]
        case "batch_std":
            deviations = [_deviation(np.concatenate(centred))] * len(groups)
        case "batch_reward_std":
            deviations = [_deviation(np.concatenate(groups))] * len(groups)
        case "none":
            return centred
    return [
        values / deviation if values.any() else values for values, deviation in zip(centred, deviations, strict=True)
    ]


def above_baseline(rewards: np.ndarray, baseline: Baseline, resolution: float = 0.0) -> np.ndarray:
    """[G] rewards of one group → [G] what each is above its baseline; exact zeros where none differ by more than `resolution`.

    leave_one_out: r_i − (Σ_j r_j − r_i) / (G − 1), which is G / (G − 1) times r_i − mean r.
    """
    count = rewards.size
    if count == 0 or rewards.max() - rewards.min() <= resolution:
        return np.zeros_like(rewards)
    centred: np.ndarray = rewards - rewards.mean()
    if baseline == "leave_one_out":
        centred *= count / (count - 1)
    return centred


def kl_penalised(rewards: np.ndarray, kl: np.ndarray, coef: float) -> np.ndarray:
    """[G] r_i − β Σ_t KL_t: the KL in the reward, as one outcome of the whole completion.

    As in RLHF (InstructGPT, arXiv:2203.02155, equation 2), before any baseline. `kl`: [G] the sum over each completion.
    """
    return np.asarray(rewards, dtype=np.float64) - coef * kl


def _deviation(sample: np.ndarray) -> float:
    return float(sample.std()) if sample.size else 0.0
