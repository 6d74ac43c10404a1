"""The policy as a module: packs of tokens in, log-probabilities and entropies of the targets out.

The logits of all tokens never exist at a time: only positions whose next token trains pass through the output head, in
chunks that are recomputed in the backward pass, so memory does not grow with tokens × vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from learner.attention import NAME, Layout, make_layout, packed_attention
from learner.batch import Pack
from rollout.errors import InputError


@dataclass(frozen=True, slots=True)
class PackTensors:
    """A pack on the device of its rank; shapes as in learner.batch.Pack."""

    token_ids: Tensor
    position_ids: Tensor
    layout: Layout
    target_positions: Tensor
    targets: Tensor
    weights: Tensor
    advantages: Tensor
    rollout_logprobs: Tensor


def to_device(pack: Pack, device: torch.device) -> PackTensors:
    def tensor(array: Any) -> Tensor:
        # Arrays that came through Ray's object store are read-only; torch wants to own what it may write.
        return torch.tensor(array, device=device)

    return PackTensors(
        token_ids=tensor(pack.token_ids),
        position_ids=tensor(pack.position_ids),
        layout=make_layout(pack.lengths, device),
        target_positions=tensor(pack.target_positions),
        targets=tensor(pack.targets),
        weights=tensor(pack.weights),
        advantages=tensor(pack.advantages),
        rollout_logprobs=tensor(pack.rollout_logprobs),
    )


class Policy(nn.Module):
    """A causal language model that answers for targets only."""

    def __init__(self, model: Any, logit_chunk_tokens: int) -> None:
        super().__init__()
        self.model = model
        self.chunk = logit_chunk_tokens

    def forward(self, pack: PackTensors, temperature: float) -> tuple[Tensor, Tensor]:
        """[N] float32 log-probabilities of the targets under logits / temperature, [N] entropies (no gradient)."""
        states = self.model.base_model(
            input_ids=pack.token_ids[None],
            position_ids=pack.position_ids[None],
            use_cache=False,
            layout=pack.layout,
        ).last_hidden_state[0]
        states = states.index_select(0, pack.target_positions)
        head = self.model.get_output_embeddings()
        logprobs, entropies = [], []
        for hidden, targets in zip(states.split(self.chunk), pack.targets.split(self.chunk), strict=True):
            if torch.is_grad_enabled():
                part = checkpoint(_target_logprobs, head, hidden, targets, temperature, use_reentrant=False)
            else:
                part = _target_logprobs(head, hidden, targets, temperature)
            logprobs.append(part[0])
            entropies.append(part[1])
        return torch.cat(logprobs), torch.cat(entropies)


def _target_logprobs(head: nn.Module, hidden: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logits = head(hidden).float() / temperature
    logsumexp = logits.logsumexp(-1)
    picked = logits.gather(-1, targets[:, None])[:, 0]
    with torch.no_grad():
        # H = log Σ e^z − Σ p z
        entropy = logsumexp - (torch.softmax(logits, -1) * logits).sum(-1)
    return picked - logsumexp, entropy


def load_policy(path: str, dtype: torch.dtype, *, trust_remote_code: bool, logit_chunk_tokens: int) -> Policy:
    """A Hugging Face causal language model with packed attention.

    Raises:
        InputError: no such folder or hub id, or an architecture that packed attention or the chunked head do not serve.
    """
    from transformers import AutoModelForCausalLM
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, packed_attention)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, attn_implementation=NAME, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise InputError(f"model.path = {path!r} cannot be loaded: {str(error).splitlines()[0]}") from error
    config = model.config
    if getattr(config, "final_logit_softcapping", None) or getattr(config, "logit_scale", None):
        raise InputError(f"model.path = {path!r}: {config.model_type} rescales its logits, which is not supported")
    if getattr(config, "use_sliding_window", False):
        raise InputError(f"model.path = {path!r}: sliding-window attention is not supported; use a model without it")
    return Policy(model, logit_chunk_tokens)
