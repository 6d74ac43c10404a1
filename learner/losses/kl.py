"""KL(π ‖ π_ref) estimated from the tokens that π has drawn."""

import torch
from torch import Tensor

from learner.spec import KlEstimator


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, estimator: KlEstimator = "k3") -> Tensor:
    """[N] one estimate a token, with r = π_ref / π (J. Schulman, "Approximating KL divergence", 2020).

        k1 = −log r               unbiased, of either sign
        k2 = (log r)² / 2         biased, never negative
        k3 = r − log r − 1        unbiased, never negative; GRPO's (DeepSeekMath, arXiv:2402.03300, equation 4)

    As a term of the loss an estimate works through its gradient, which is another matter (arXiv:2506.09477). With tokens
    drawn from π, the expected gradient of k1 is zero: it only adds noise. That of k2, −log r · ∇log π, is the gradient of
    KL(π ‖ π_ref). That of k3, (1 − r) · ∇log π, is the gradient of the other divergence, KL(π_ref ‖ π); both pull towards
    the reference and agree to first order near it. In the reward only the value counts, and k1 is the exact choice.
    """
    log_ratio = ref_logprobs - logprobs
    match estimator:
        case "k1":
            return -log_ratio
        case "k2":
            return log_ratio.square() / 2
        case "k3":
            return torch.exp(log_ratio) - log_ratio - 1
