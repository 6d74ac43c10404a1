"""Rewards made relative to their group. Plain arrays."""

import numpy as np


def group_advantages(rewards: np.ndarray, normalize_std: bool) -> np.ndarray:
    """[G] rewards of one group → [G] advantages.

    A_i = (r_i − mean r) / std r    GRPO: DeepSeekMath, arXiv:2402.03300, section 4.1.2
    A_i = r_i − mean r              Dr. GRPO: arXiv:2503.20783 (`normalize_std=False`)

    The standard deviation is the population's (divisor G). Equal rewards give exact zeros: no signal.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    if rewards.size == 0 or np.all(rewards == rewards[0]):
        return np.zeros_like(rewards)
    centred = rewards - rewards.mean()
    return centred / rewards.std() if normalize_std else centred
