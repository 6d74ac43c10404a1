"""The policy as a module: packs of tokens in, log-probabilities and entropies of the targets out. And a reward model.

Only positions whose next token trains pass through the output head, and their logits never exist at a time
(learner/model/head.py).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from learner.batch import Pack
from learner.model.architecture import check_architecture
from learner.model.attention import NAME, Layout, packed_attention
from learner.model.head import LanguageHead
from learner.model.sequence import SequenceGroup
from learner.model.transfer import moved
from rollout.errors import InputError


@dataclass(frozen=True, slots=True)
class Share:
    """What of a pack is this rank's, where a group of ranks passes it together."""

    group: SequenceGroup
    targets: Tensor
    """[n] int64 index of each of its targets among those of the pack."""
    ends: Tensor
    """[n] int64 index of each sequence that ends in its tokens among those of the pack."""
    num_sequences: int
    """Sequences of the pack."""


@dataclass(frozen=True, slots=True)
class PackTensors:
    """A pack on the device of its rank; shapes as in learner.batch.Pack.

    A rank of a group has the tokens, ends and targets of its share; their layout and what the loss reads are of the whole.
    """

    token_ids: Tensor
    position_ids: Tensor
    ends: Tensor
    layout: Layout
    target_positions: Tensor
    targets: Tensor
    segments: Tensor
    weights: Tensor
    advantages: Tensor
    rollout_logprobs: Tensor
    share: Share | None = None

    def of_all_targets(self, values: Tensor) -> Tensor:
        """[N] values of the pack's targets, of which this rank has computed those of its own."""
        return values if self.share is None else self.share.group.whole(values, self.share.targets, len(self.weights))

    def of_all_sequences(self, values: Tensor) -> Tensor:
        """[S] values of the pack's sequences, of which this rank has computed those that end in its tokens."""
        share = self.share
        return values if share is None else share.group.whole(values, share.ends, share.num_sequences)


def to_device(pack: Pack, device: torch.device, group: SequenceGroup | None = None) -> PackTensors:
    """A copy of a pack on the device: all of it, or this rank's share in the group."""
    share = None
    if group:
        pack, share = _share_of(pack, group, device)
    return PackTensors(
        token_ids=moved(pack.token_ids, device),
        position_ids=moved(pack.position_ids, device),
        ends=moved(pack.ends, device),
        layout=Layout(pack.lengths, pack.prefixes, device, group),
        target_positions=moved(pack.target_positions, device),
        targets=moved(pack.targets, device),
        segments=moved(pack.segments, device),
        weights=moved(pack.weights, device),
        advantages=moved(pack.advantages, device),
        rollout_logprobs=moved(pack.rollout_logprobs, device),
        share=share,
    )


def _share_of(pack: Pack, group: SequenceGroup, device: torch.device) -> tuple[Pack, Share]:
    """What of a pack is this rank's: of the tokens and what stands at them; the spans stay those of the whole."""
    # Tokens of nobody, in a span of their own, make the shares equal.
    filling = -len(pack.token_ids) % group.size
    own = group.own(len(pack.token_ids) + filling)
    targets, ends = (
        np.flatnonzero((own.start <= places) & (places < own.stop)) for places in (pack.target_positions, pack.ends)
    )
    part = replace(
        pack,
        token_ids=np.pad(pack.token_ids, (0, filling))[own],
        position_ids=np.concatenate([pack.position_ids, np.arange(filling)])[own],
        lengths=np.append(pack.lengths, filling) if filling else pack.lengths,
        prefixes=np.append(pack.prefixes, -1) if filling else pack.prefixes,
        ends=pack.ends[ends] - own.start,
        target_positions=pack.target_positions[targets] - own.start,
        targets=pack.targets[targets],
    )
    return part, Share(group, moved(targets, device), moved(ends, device), len(pack.ends))


class Policy(nn.Module):
    """A causal language model that answers for targets only."""

    def __init__(self, model: Any, logit_chunk_tokens: int) -> None:
        super().__init__()
        head = model.get_output_embeddings()
        assert isinstance(head, nn.Linear), f"the output layer is a {type(head).__name__}"
        head.__class__ = LanguageHead
        self.model = model
        self.chunk = logit_chunk_tokens

    def forward(self, pack: PackTensors, temperature: float, entropy_gradient: bool = False) -> tuple[Tensor, Tensor]:
        """[N] float32 log-probabilities of the targets under logits / temperature, [N] entropies.

        The entropies carry a gradient only when asked: it costs one more tile of logits.
        """
        states = last_states(self.model, pack).index_select(0, pack.target_positions)
        head = self.model.get_output_embeddings()
        logprobs, entropies = head(states, pack.targets, temperature, entropy_gradient, self.chunk)
        return pack.of_all_targets(logprobs), pack.of_all_targets(entropies)


class RewardModel(nn.Module):
    """A transformer that answers with one number a sequence, read from the state of its last token."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pack: PackTensors) -> Tensor:
        """[S] float32 scores."""
        states = last_states(self.model, pack).index_select(0, pack.ends)
        scores: Tensor = self.model.score(states)[:, 0].float()
        return pack.of_all_sequences(scores)


def last_states(model: Any, pack: PackTensors) -> Tensor:
    """[T, hidden] states of every token of a pack, before the head."""
    states: Tensor = model.base_model(
        input_ids=pack.token_ids[None],
        position_ids=pack.position_ids[None],
        use_cache=False,
        layout=pack.layout,
    ).last_hidden_state[0]
    return states


def load_policy(
    path: str, dtype: torch.dtype, *, trust_remote_code: bool, logit_chunk_tokens: int, empty: bool = False
) -> Policy:
    """A Hugging Face causal language model with packed attention.

    Args:
        empty: whether only its shapes are wanted, on torch's `meta` device: its weights come from another rank.

    Raises:
        InputError: no such folder or hub id, or an architecture that is not served (learner/model/architecture.py).
    """
    from transformers import AutoModelForCausalLM

    return Policy(_load(AutoModelForCausalLM, path, dtype, trust_remote_code, empty), logit_chunk_tokens)


def load_reward_model(path: str, dtype: torch.dtype, *, trust_remote_code: bool, empty: bool = False) -> RewardModel:
    """A Hugging Face model with a value head (`score`: hidden → 1) in place of the language head; drawn anew if it has none.

    Args:
        empty: as of `load_policy`.

    Raises:
        InputError: as `load_policy`.
    """
    from transformers import AutoModelForSequenceClassification

    model = _load(AutoModelForSequenceClassification, path, dtype, trust_remote_code, empty, num_labels=1)
    ends = model.config.eos_token_id
    if model.config.pad_token_id in (ends if isinstance(ends, list) else [ends]):
        # `transformers` reads the score before the padding, so it would pass over the end of a sequence too.
        model.config.pad_token_id = None
    return RewardModel(model)


def _load(kind: Any, path: str, dtype: torch.dtype, trust_remote_code: bool, empty: bool, **settings: Any) -> Any:
    """`settings`: of the configuration."""
    from transformers import AutoConfig
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if (
        NAME not in ALL_ATTENTION_FUNCTIONS
    ):  # compiled layers have put a form of their own there (learner/model/fused.py)
        ALL_ATTENTION_FUNCTIONS.register(NAME, packed_attention)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code, **settings)
        options = {"dtype": dtype, "attn_implementation": NAME, "trust_remote_code": trust_remote_code}
        if empty:
            with torch.device("meta"):
                return kind.from_config(config, **options).eval()
        check_architecture(kind, config, path, trust_remote_code=trust_remote_code)
        return kind.from_pretrained(path, config=config, **options)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"model.path = {path!r} cannot be loaded: {str(error).splitlines()[0]}") from error
