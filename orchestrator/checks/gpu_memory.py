"""Whether what a stage takes of one GPU fits into those of this machine, and what would fit if not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.stage_kinds import kind_of
from orchestrator.plan import machine
from orchestrator.plan.gpu_memory import (
    ENGINE_OVERHEAD_BYTES,
    engine_gpu,
    held_bytes,
    learner_gpu,
    longest_sequence,
    most_tokens,
    sure_tokens,
)
from orchestrator.plan.machine import in_units
from orchestrator.plan.memory import offloaded_bytes
from orchestrator.plan.placement import shares_gpus, stage_places
from rollout.errors import InputError

ROOMY = 0.9
"""Share of a GPU up to which an estimate leaves room for CUDA's own, NCCL's buffers and fragments."""
MOST_NAMED = 3
"""Ways out that a message names."""
LORA_RANK = 32
"""Rank of adapters that a message proposes."""
LEAST_TOKENS = 1024
"""Tokens below which no message proposes to go."""


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs of this machine, and what a stage takes of one."""

    count: int
    total: int
    """Bytes of the smallest."""

    def share(self, stage: Stage) -> bool:
        """Whether engines and ranks of a stage take turns on them."""
        return kind_of(stage).generates and shares_gpus(stage, self.count)

    def rank(self, stage: Stage, tokens: int) -> float:
        """Bytes of the GPU of a rank with packs of `tokens`; 0: size not known here."""
        parts = learner_gpu(stage, tokens)
        if parts and self.share(stage):
            parts["the engine, asleep"] = ENGINE_OVERHEAD_BYTES
        return sum(parts.values())

    def engine_has(self, stage: Stage, training: bool = True) -> float:
        """Bytes of a GPU that an engine of a stage takes."""
        share = stage.rollout.gpu_memory * self.total
        return min(share, self.total - held_bytes(stage)) if training and self.share(stage) else share

    def suit(self, stage: Stage, tokens: int) -> bool:
        """Whether a stage has room on them, and in the host's memory, with packs of `tokens`."""
        return stage_places(stage, gpus=self.count)[1] <= self.count and self.fits(stage, tokens)

    def fits(self, stage: Stage, tokens: int) -> bool:
        """The same, whatever the number of them."""
        if offloaded_bytes(stage) > machine.memory_bytes() or self.rank(stage, tokens) > ROOMY * self.total:
            return False
        return not self.share(stage) or sum(engine_gpu(stage).values()) + ENGINE_OVERHEAD_BYTES <= self.engine_has(
            stage
        )


def check_gpu_memory(recipe: Recipe, training: bool) -> list[str]:
    """Notes about GPUs of this machine that a stage fills to the brim.

    Raises:
        InputError: a stage takes more of a GPU than the smallest here has.
    """
    gpus = Gpus(len(machine.gpu_names()), machine.gpu_memory_bytes())
    notes: list[str] = []
    for stage in recipe.stages if gpus.total else ():
        if training and kind_of(stage).trains:
            notes += _check_rank(stage, gpus)
        if kind_of(stage).generates:
            notes += _check_engine(stage, gpus, training and kind_of(stage).trains)
    return notes


def _check_rank(stage: Stage, gpus: Gpus) -> Iterator[str]:
    held, memory = offloaded_bytes(stage), machine.memory_bytes()
    if held > memory:
        yield (
            f"stage {stage.name}: learner.offload_optimizer = true keeps about {in_units(held)} in this machine's memory, "
            f"which is {in_units(memory)}"
        )
    named, total = f"stage {stage.name}: a learner rank", in_units(gpus.total)
    need = gpus.rank(stage, sure_tokens(stage))
    if need > gpus.total:
        parts = _in_words(learner_gpu(stage, sure_tokens(stage)))
        raise InputError(
            f"{named} needs about {in_units(need)} of a GPU of {total} ({parts});\n"
            f"{_ways_out(stage, gpus, sure_tokens)}"
        )
    tokens = most_tokens(stage)
    need = gpus.rank(stage, tokens)
    if need > gpus.total:
        yield (
            f"{named} has memory for packs of {_most_that_fits(stage, gpus):,} tokens, and its data may have longer ones, up to "
            f"{stage.model.max_tokens:,} (model.max_tokens); {_ways_out(stage, gpus, most_tokens)}"
        )
    elif need > ROOMY * gpus.total:
        yield f"{named} is a tight fit: about {in_units(need)} of {total}; {_ways_out(stage, gpus, most_tokens)}"


def _check_engine(stage: Stage, gpus: Gpus, training: bool) -> Iterator[str]:
    parts, has = engine_gpu(stage), gpus.engine_has(stage, training)
    need = sum(parts.values())
    if not parts or need + ENGINE_OVERHEAD_BYTES <= has:
        return
    said = f"stage {stage.name}: an engine needs about {in_units(need)} of a GPU ({_in_words(parts)}), and has "
    if has < stage.rollout.gpu_memory * gpus.total:
        said += f"{in_units(max(has, 0))}, which the rank on it leaves of {in_units(gpus.total)};\n"
        said += _ways_out(stage, gpus, sure_tokens)
    else:
        said += f"{in_units(has)} (rollout.gpu_memory = {stage.rollout.gpu_memory:g} of {in_units(gpus.total)}); "
        said += "raise rollout.tensor_parallel, or lower model.max_tokens"
    if need > has:
        raise InputError(said)
    yield said


def _ways_out(stage: Stage, gpus: Gpus, tokens: Callable[[Stage], int]) -> str:
    """Settings with which a stage has room, the cheapest first. `tokens`: those of a pack."""
    found = list(_that_suit(stage, gpus, tokens))
    if len(found) < MOST_NAMED and not stage.learner.activation_checkpointing:
        again = "learner.activation_checkpointing=true"
        recomputing = _with(stage, activation_checkpointing=True)
        if again not in found:
            found += [f"{text} {again}" for text in _that_suit(recomputing, gpus, tokens) if text not in found]
    if not found:
        return "lower model.max_tokens, take a smaller model, or join a cluster: --address"
    return f"there is room with {', or '.join(found[:MOST_NAMED])}"


def _that_suit(stage: Stage, gpus: Gpus, tokens: Callable[[Stage], int]) -> Iterator[str]:
    """Changes of one thing, as on a command line, with which a stage has room: of each the smallest."""
    for change in (_recomputing, _together, _sharding, _more_ranks, _offloading, _adapters, _smaller_packs, _shorter):
        for text, changed in change(stage, gpus):
            if gpus.suit(changed, tokens(changed)):
                yield text
                break


Change = Iterator[tuple[str, Stage]]
"""(settings as on a command line, the stage with them), from the smallest on."""


def _recomputing(stage: Stage, _: Gpus) -> Change:
    if not stage.learner.activation_checkpointing:
        yield "learner.activation_checkpointing=true", _with(stage, activation_checkpointing=True)


def _together(stage: Stage, _: Gpus) -> Change:
    settings = stage.learner
    for size in range(settings.sequence_parallel + 1, settings.ranks + 1):
        if settings.ranks % size == 0:
            yield f"learner.sequence_parallel={size}", _with(stage, sequence_parallel=size)


def _sharding(stage: Stage, _: Gpus) -> Change:
    for zero in range(stage.learner.zero_stage + 1, 4) if stage.learner.ranks > 1 else ():
        yield f"learner.zero_stage={zero}", _with(stage, zero_stage=zero)


def _more_ranks(stage: Stage, gpus: Gpus) -> Change:
    sharding = "" if stage.learner.zero_stage == 3 else " learner.zero_stage=3"
    for ranks in range(stage.learner.ranks + 1, gpus.count + 1):
        if ranks % stage.learner.zero_hpz_partition_size == 0:
            yield f"learner.ranks={ranks}{sharding}", _with(stage, ranks=ranks, zero_stage=3)


def _offloading(stage: Stage, _: Gpus) -> Change:
    if not stage.learner.offload_optimizer:
        zero = max(stage.learner.zero_stage, 2)
        sharding = "" if stage.learner.zero_stage == zero else f" learner.zero_stage={zero}"
        yield f"learner.offload_optimizer=true{sharding}", _with(stage, offload_optimizer=True, zero_stage=zero)


def _adapters(stage: Stage, _: Gpus) -> Change:
    refreshed = stage.learner.kl_coef and stage.learner.reference_refresh_steps
    if not stage.learner.lora_rank and not refreshed:
        yield f"learner.lora_rank={LORA_RANK}", _with(stage, lora_rank=LORA_RANK)


def _smaller_packs(stage: Stage, _: Gpus) -> Change:
    for tokens in _halves(stage.learner.micro_batch_tokens):
        yield f"learner.micro_batch_tokens={tokens}", _with(stage, micro_batch_tokens=tokens)


def _shorter(stage: Stage, _: Gpus) -> Change:
    """Shorter completions, where these decide."""
    if stage.schedule or not kind_of(stage).is_rl or longest_sequence(stage) <= stage.learner.pack_tokens:
        return
    for tokens in _halves(stage.rollout.max_tokens):
        rollout = stage.rollout.model_copy(update={"max_tokens": tokens})
        yield f"rollout.max_tokens={tokens}", stage.model_copy(update={"rollout": rollout})


def _halves(tokens: int) -> Iterator[int]:
    while tokens >= 2 * LEAST_TOKENS:
        tokens //= 2
        yield tokens


def _with(stage: Stage, **changes: Any) -> Stage:
    return stage.model_copy(update={"learner": stage.learner.model_copy(update=changes)})


def _most_that_fits(stage: Stage, gpus: Gpus) -> int:
    """Tokens of the largest pack that a rank has memory for its part of, in thousands."""
    low, high = 0, most_tokens(stage) // 1000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if gpus.rank(stage, 1000 * middle) <= gpus.total else (low, middle)
    return 1000 * low * stage.learner.sequence_parallel


def _in_words(parts: dict[str, float]) -> str:
    return ", ".join(f"{part} {in_units(size)}" for part, size in parts.items())
