"""Which models packs and the tiled head serve: what an architecture computes, read off a copy of it without weights.

The copy is made on torch's `meta` device, where nothing is stored and nothing is computed, and run once. Its attention only
notes what it is asked for, so that whatever a model adds to plain causal attention, or does to its logits, is seen in its
code rather than looked for in a list of models. A billion parameters or a million, it takes less than a second.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from learner.model.attention import unserved
from rollout.errors import InputError

PROBE = "rayzero_probe"
"""Name under which `transformers` knows the attention of the copy."""
_BY_LENGTH = frozenset({"dynamic", "longrope"})
"""Kinds of rotary embedding whose frequencies follow from the longest sequence of a batch."""


class _Seen:
    """What a forward pass asks for."""

    def __init__(self, model: Any) -> None:
        """Run a model whose attention and masks are this object's, on four tokens."""
        self.layers = 0
        """Calls of attention that were given what packs hand through the model."""
        self.unserved: dict[str, None] = {}
        """What attention was asked for that it does not serve, in words and in order."""
        self.windows: set[int | None] = set()
        """Sliding windows that attention was told."""
        self.masks: set[int | None] = set()
        """Windows and chunks of the masks that were made for it."""
        self.custom = False
        """Whether a mask was made by a rule of the model's own."""
        self.states: Tensor | None = None
        """Last states of the body."""
        self.read: Tensor | None = None
        """What the head was given."""
        self.answered: Tensor | None = None
        """What the head made of it."""
        _register(self.attention, self.mask)
        head = model.get_output_embeddings()
        if head is not None:
            head.register_forward_hook(self._note_head)
        model.base_model.register_forward_hook(self._note_states)
        ids = torch.zeros(1, 4, dtype=torch.int64, device="meta")
        result = model(
            input_ids=ids, position_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, layout=self
        )
        self.logits: Tensor = result.logits
        """What the model made of what the head answered."""

    def attention(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **asked: Any
    ) -> tuple[Tensor, None]:
        """In the place of `packed_attention`."""
        self.layers += asked.pop("layout", None) is self
        for name in ("scaling", "dropout"):
            asked.pop(name, None)
        self.windows.add(asked.pop("sliding_window", None))
        self.unserved |= dict.fromkeys(unserved(module, asked))
        return query.new_empty(*query.transpose(1, 2).shape[:3], value.shape[-1]), None

    def mask(self, *, local_size: int | None = None, use_vmap: bool = False, **_: Any) -> None:
        """In the place of a mask; `transformers` sets `use_vmap` for rules of a model's own."""
        self.masks.add(local_size)
        self.custom |= use_vmap

    def _note_head(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.read, self.answered = inputs[0], output

    def _note_states(self, _: nn.Module, __: Any, output: Any) -> None:
        self.states = output.last_hidden_state


def check_architecture(kind: Any, config: Any, path: str, *, trust_remote_code: bool) -> None:
    """See that packed attention, the tiled head and a publish serve a model as its own code has it.

    Args:
        kind: the `AutoModel…` class that makes it.
        config: its `transformers` configuration.
        path: what the user calls it.

    Raises:
        InputError: they do not; names what is not served.
    """
    name = config.model_type
    if config.get_text_config() is not config:
        raise InputError(f"model.path = {path!r}: {name} is more than a language model; take its text-only checkpoint")
    if by_length := _rope_kinds(config) & _BY_LENGTH:
        raise InputError(
            f"model.path = {path!r}: {name} has rotary embeddings that depend on the length of a batch ("
            f"{', '.join(sorted(by_length))}), which packs and engines read differently; not supported"
        )
    try:
        problem = _problem(kind, deepcopy(config), trust_remote_code)
    except (OSError, ValueError):
        raise  # `transformers` knows no such model, and says so
    except Exception as error:  # noqa: BLE001 - whatever a stranger's code does on tensors without values
        problem = f"cannot be examined ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})"
    if problem:
        raise InputError(f"model.path = {path!r}: {name} {problem}; not supported")


def _problem(kind: Any, config: Any, trust_remote_code: bool) -> str:
    """What of a model is not served; empty: all of it is."""
    _register(lambda *_, **__: None, lambda **_: None)
    options = {"dtype": torch.float32, "attn_implementation": PROBE, "trust_remote_code": trust_remote_code}
    with torch.device("meta"):
        model = kind.from_config(config, **options).eval()
    if problem := _mixture(model) or _names(model):
        return problem
    seen = _Seen(model)
    return _attention(seen, config) or _head(seen, model)


def _rope_kinds(config: Any) -> set[str]:
    """Kinds of rotary embedding: of the model, or of each kind of layer."""
    settings = getattr(config, "rope_parameters", None) or {}
    per_layer = [value for value in settings.values() if isinstance(value, dict)]
    return {str(one.get("rope_type", "default")) for one in per_layer or [settings]}


def _mixture(model: Any) -> str:
    routed = any("router_logits" in (getattr(m, "_can_record_outputs", None) or {}) for m in model.modules())
    if routed or any(".experts." in name for name, _ in model.named_parameters()):
        return "is a mixture of experts, and only dense models train (no auxiliary loss, no replay of the router)"
    return ""


def _names(model: Any) -> str:
    """Weights are published under their names in memory, so these must be the names in a checkpoint."""
    from transformers.core_model_loading import revert_weight_conversion

    held = dict(model.named_parameters())
    written = revert_weight_conversion(model, dict(held))
    different = sorted(held.keys() - written.keys())
    return f"has other names in memory than in a checkpoint ({different[0]}, …)" if different else ""


def _attention(seen: _Seen, config: Any) -> str:
    if seen.unserved:
        return f"needs {', '.join(seen.unserved)} in its attention"
    if seen.layers != config.num_hidden_layers:
        return (
            f"has {config.num_hidden_layers} layers, and {seen.layers} of them with causal attention as packs need it"
        )
    if seen.custom or not seen.masks <= seen.windows | {None}:
        return "hides tokens by a rule of its own (neither causal nor by a sliding window)"
    return ""


def _head(seen: _Seen, model: Any) -> str:
    head = model.get_output_embeddings()
    if head is None:  # a reward model has another
        return ""
    if not isinstance(head, nn.Linear):
        return f"has an output layer that is a {type(head).__name__}"
    if seen.read is None or seen.states is None:
        return "has a body that its output layer does not read"
    # What is cut out of a tensor shares its storage, what is computed from it does not.
    if seen.read.untyped_storage()._cdata != seen.states.untyped_storage()._cdata:
        return "changes its states before the output layer"
    return "rescales its logits" if seen.logits is not seen.answered else ""


def _register(attention: Any, mask: Any) -> None:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(PROBE, attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(PROBE, mask)
