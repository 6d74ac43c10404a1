"""Bytes that a stage takes of one GPU: of a rank's while it trains, and of an engine's. Estimates, from recipe and config alone.

What a rank holds between steps is in orchestrator/plan/memory.py; here are the activations and buffers of a step. Bytes a token
were read off a profile of what autograd keeps of a layer, and agree within 3 % with the peaks that were measured on a card
(deploy/bench/gpu-h200.md; tests/orchestrator/plan/test_gpu_memory.py holds them). Opening a model takes less than training it:
no moments are there yet, and under ZeRO-3 no device ever holds the whole of it.
"""

import math

from orchestrator.config.recipe import Stage
from orchestrator.config.schedule import Schedule
from orchestrator.config.stage_kinds import kind_of
from orchestrator.plan.memory import memory, offloaded_bytes, parameters, rank_bytes, vocabulary, wire_bytes
from orchestrator.plan.model_shape import ModelShape, model_shape

COMPILED_FROM = 200_000_000
"""Parameters of a model whose layers are compiled, under ZeRO 0 to 2 (learner/model/fused.py)."""
TILE_BYTES = 256 << 20
"""Logits of one tile of the head (learner/model/head.py)."""
BUCKET_ITEMS = 500_000_000
"""Gradients that DeepSpeed reduces at a time (`reduce_bucket_size`)."""
LIVE_ITEMS = 1_000_000_000
"""Parameters that ZeRO-3 keeps gathered at a time (`stage3_max_live_parameters`)."""
RANK_OVERHEAD_BYTES = 3 << 30
"""Bytes of a GPU that a rank holds beside its model while an engine samples: CUDA's and NCCL's own, a bucket, fragments."""
ENGINE_OVERHEAD_BYTES = 2 << 30
"""Bytes of a GPU that an engine takes beside weights and cache, also asleep: CUDA's own, graphs, the prompts of a step."""


def learner_gpu(stage: Stage, tokens: int) -> dict[str, float]:
    """Part of the memory → bytes of a rank's GPU when there is most, with `tokens` of a pack. Empty: size not known here."""
    sizes = memory(stage)
    if not sizes:
        return {}
    held = {part: size for part, size in sizes.items() if not part.startswith("engine")}
    trained = next(part for part in ("adapters", "learner") if part in held)
    held[trained] -= offloaded_bytes(stage)
    parts = {part: size / stage.learner.ranks for part, size in held.items()}
    if size := _second_copy(stage):
        parts["second copy of the parameters"] = size
    if buckets := _buckets(stage):
        parts["ZeRO's buffers"] = buckets
    shape = model_shape(stage.model, vocabulary(stage.model))
    if shape:
        compiled = stage.learner.zero_stage < 3 and parameters(stage.model) >= COMPILED_FROM
        parts["activations"] = activations(stage, shape, tokens, compiled=compiled, tile=TILE_BYTES)
    return parts


def engine_gpu(stage: Stage) -> dict[str, float]:
    """Part of the memory → bytes of the GPU of an engine's worker that it cannot do without. Empty: size not known here."""
    count, item, workers = parameters(stage.model), wire_bytes(stage.model), stage.rollout.tensor_parallel
    shape = model_shape(stage.model, vocabulary(stage.model))
    if not count:
        return {}
    parts = {"weights": count * item / workers}
    if shape:
        parts["cache of the longest sequence"] = 2 * shape.layers * shape.key * item * stage.model.max_tokens / workers
    return parts


def held_bytes(stage: Stage) -> int:
    """Memory of a GPU that an engine leaves to the rank on it, in whole GiB and with a reference, whether the stage has one or
    not: engines that would differ by it alone are started anew for a stage, which takes a minute."""
    return math.ceil((rank_bytes(stage) + RANK_OVERHEAD_BYTES) / 2**30) << 30


def sure_tokens(stage: Stage) -> int:
    """Tokens that a rank will have to pass of the fullest pack, as far as the recipe tells.

    Policies write completions up to the limit; how long examples and pairs are is known only once they are read.
    """
    budget = stage.learner.pack_tokens
    if not kind_of(stage).is_rl:
        return _share(stage, min(budget, stage.model.max_tokens))
    return _share(stage, max(longest_sequence(stage), min(budget, _batch_tokens(stage))))


def most_tokens(stage: Stage) -> int:
    """Tokens that a rank may have to pass of a pack: of the budget, or of a longer sequence alone (a pair stays together)."""
    if kind_of(stage).is_rl:
        return sure_tokens(stage)
    together = 2 if kind_of(stage).learns_from == "pairs" else 1
    return _share(stage, max(stage.learner.pack_tokens, together * stage.model.max_tokens))


def _share(stage: Stage, tokens: int) -> int:
    """A rank's part of a pack of so many tokens."""
    return -(-tokens // stage.learner.sequence_parallel)


def longest_sequence(stage: Stage) -> int:
    """Tokens of the longest prompt and completion together of a stage of reinforcement learning."""
    return min(stage.data.max_prompt_tokens + Schedule(stage).max_tokens, stage.model.max_tokens)


def _batch_tokens(stage: Stage) -> int:
    """Tokens of a mini-batch that pass in the packs of one rank, or of ranks that pass them together, at most."""
    completions = stage.loop.groups_per_step * stage.rollout.group_size
    share = -(-completions // (stage.learner.mini_batches * stage.learner.groups))
    return share * longest_sequence(stage)


def activations(stage: Stage, shape: ModelShape, tokens: int, *, compiled: bool, tile: int) -> float:
    """Bytes at the worse of two moments of the backward pass: at the head, and in a layer, whose own are made again if need be.

    Args:
        compiled: whether the layers are.
        tile: bytes of the head's logits that are made at a time.
    """
    item = wire_bytes(stage.model)
    mlp, norms = (6, 8) if compiled else (8, 14)
    layer = mlp * shape.intermediate + norms * shape.hidden + 6 * (shape.query + shape.key)
    slopes = 4 * shape.intermediate
    if stage.learner.sequence_parallel > 1:
        slopes += 2 * (shape.query + 2 * shape.key)  # tokens exchanged for heads: what is sent, and what comes
    if stage.learner.activation_checkpointing:
        kept, again = 2 * shape.hidden, layer + slopes
    else:
        kept, again = layer, slopes
    wide = tokens * item / 2  # the above are bytes a token at 16 bits
    head, head_slopes = _head(stage, shape, tokens, tile)
    return wide * shape.layers * kept + max(head, wide * again + head_slopes)


def _head(stage: Stage, shape: ModelShape, tokens: int, tile: int) -> tuple[float, float]:
    """(bytes of the head's backward pass, those of them that stay: the gradient of its weights)."""
    if kind_of(stage).leaves == "rewards":
        return 0.0, 0.0
    slopes = float(shape.vocabulary * shape.hidden * wire_bytes(stage.model))
    rows = min(tile / (4 * stage.learner.logit_chunk_tokens), shape.vocabulary)
    return 2 * tile + 8 * (rows + tokens) * shape.hidden + slopes, slopes


def _second_copy(stage: Stage) -> float:
    """Bytes of what the ranks of a node keep a second time (ZeRO++ hpZ): of the model, and of a reference of its own."""
    size = stage.learner.zero_hpz_partition_size
    if size == 1:
        return 0.0
    reference = kind_of(stage).needs_reference(stage.learner.kl_coef) and not stage.learner.lora_rank
    return parameters(stage.model) * wire_bytes(stage.model) * (2 if reference else 1) / size


def _buckets(stage: Stage) -> float:
    """Bytes in which ZeRO 2 and 3 reduce gradients, in float32 on their way, and in which ZeRO-3 gathers parameters."""
    settings, item = stage.learner, wire_bytes(stage.model)
    if settings.zero_stage < 2:
        return 0.0
    count = parameters(stage.model)
    reduced = BUCKET_ITEMS * item + 4 * min(count, BUCKET_ITEMS)
    return float(reduced + (item * min(count, LIVE_ITEMS) if settings.zero_stage == 3 else 0))
