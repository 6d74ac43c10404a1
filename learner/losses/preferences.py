"""The losses of preference pairs: of a reward model (Bradley–Terry) and of direct preference optimisation."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from learner.losses.types import LossParts, counted_sum


def pairwise_loss(scores: Tensor, weights: Tensor) -> LossParts:
    """−Σ_p w_p log σ(s_chosen − s_rejected): the Bradley–Terry model of preferences, for reward models.

    InstructGPT (arXiv:2203.02155, equation 1). `scores`, `weights`: [2 P], chosen and rejected of each pair in turn; the
    weight of a pair is the sum of its two. Scores are free up to a constant. `ordered`: equal scores count one half.
    """
    chosen, rejected = scores.view(-1, 2).unbind(1)
    pair_weights = weights.view(-1, 2).sum(1)
    margins = chosen - rejected
    loss = -(pair_weights * logsigmoid(margins)).sum()
    with torch.no_grad():
        sums = {"count": torch.ones_like(margins), "margin": margins, "ordered": (margins.sign() + 1) / 2}
        figures = {name: counted_sum(values, pair_weights > 0) for name, values in sums.items()}
    return LossParts(loss, {"preference": loss}, figures)


def implicit_rewards(logprobs: Tensor, ref_logprobs: Tensor, segments: Tensor, beta: float) -> Tensor:
    """[N + N mod 2] β log(π(y) / π_ref(y)) of each completion y, by its segment; 0 behind the last.

    The reward that a policy trained by DPO stands for, up to a part that the prompt alone decides (arXiv:2305.18290, section
    4). All inputs [N].
    """
    # As many places as tokens, more than there can be completions: their number need not be read from the device.
    rewards = logprobs.new_zeros(len(logprobs) + len(logprobs) % 2)
    return rewards.index_add(0, segments, beta * (logprobs - ref_logprobs))


def dpo_loss(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    segments: Tensor,
    weights: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0,
) -> LossParts:
    """−Σ_p w_p [ (1 − ε) log σ(Δ_p) + ε log σ(−Δ_p) ],  Δ = β log(π / π_ref)(chosen) − β log(π / π_ref)(rejected).

    Direct preference optimisation: Rafailov et al. 2023 (arXiv:2305.18290, equation 7) at ε = 0. ε > 0 takes that share of the
    preferences to be the wrong way round (Mitchell 2023, "A note on DPO with noisy preferences"). Log-probabilities are summed
    over a completion's tokens, not averaged. All inputs [N]; segments 2p and 2p + 1 are the chosen and the rejected completion
    of pair p, whose weight is the sum of those of its tokens.
    """
    rewards = implicit_rewards(logprobs, ref_logprobs, segments, beta)
    shares = torch.zeros_like(rewards).index_add(0, segments, weights.to(rewards.dtype))
    forward = pairwise_loss(rewards, shares)
    loss = forward.loss
    if label_smoothing:
        backward = pairwise_loss(-rewards, shares)
        loss = (1 - label_smoothing) * loss + label_smoothing * backward.loss
    with torch.no_grad():
        chosen, rejected = rewards.view(-1, 2).unbind(1)
        counted = shares.view(-1, 2).sum(1) > 0
        sums = {"chosen_reward": chosen, "rejected_reward": rejected}
        figures = forward.figures | {name: counted_sum(values, counted) for name, values in sums.items()}
    return LossParts(loss, {"preference": loss}, figures)
