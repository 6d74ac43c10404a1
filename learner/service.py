"""The learner service: one Ray actor a rank, and the group that the loop talks to. The ranks fail together."""

import asyncio
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from learner.batch import TrainingBatch
from learner.build import BuildSpec, build_model
from learner.spec import LearnerSpec
from learner.tally import is_extreme, merged
from rollout.errors import ServiceError
from rollout.service import RolloutPool, compute_environment, reserve, within
from rollout.weights import WeightManifest


class LearnerActor:
    """Forwards to a LearnerRank, which is made once the ranks have met."""

    def __init__(self, rank: int) -> None:
        self._index = rank

    def address(self) -> tuple[str, int, str]:
        """(ip, free port, node id) of this actor's host, for the rendezvous."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        return ray.util.get_node_ip_address(), port, str(ray.get_runtime_context().get_node_id())

    def meet(self, ranks: int, address: str, port: int, threads: int, timeout_s: float) -> bool:
        from learner.steps import LearnerRank

        self._rank = LearnerRank(self._index, ranks, address, port, threads, timeout_s)
        return True

    def build(self, spec: BuildSpec, texts: list[str], folder: str) -> int:
        return build_model(spec, iter(texts), Path(folder))

    def call(self, verb: str, *args: Any) -> Any:
        """One of LearnerRank's verbs."""
        return getattr(self._rank, verb)(*args)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainStats:
    """What the ranks did of one batch, put together."""

    means: dict[str, float]
    """Per trained token (per pair, of a reward model); learner/loss.py says which of each objective. Empty when nothing
    trained."""
    extremes: dict[str, float]
    """Smallest (`*_min`) and largest (`*_max`) of a token: ratio_min, ratio_max, mismatch_max."""
    count: int
    """Tokens, or pairs, that trained."""
    loss: float
    parts: dict[str, float]
    """What the loss is the sum of."""
    grad_norm: float
    lr: float
    seconds: float
    """Of the slowest rank."""
    optimizer_steps: int
    mfu: float
    """Model FLOPs utilisation: share of the measured matrix-multiply peak of all ranks (learner/throughput.py)."""
    memory_peak: int
    """Bytes, of the rank that took most."""


class LearnerGroup:
    """The ranks as one service. Every verb goes to all of them; the first failure ends the wait for the others."""

    def __init__(
        self, actors: list[Any], group: PlacementGroup, node: str, timeout_s: float, seconds_to_start: float
    ) -> None:
        self._actors = actors
        self._group = group
        self._timeout_s = timeout_s
        self.node = node
        """Node of rank 0, from which weights are published."""
        self.start_seconds = seconds_to_start

    @classmethod
    async def start(
        cls,
        *,
        ranks: int,
        cpus: float,
        gpus: float,
        device: str,
        threads: int,
        timeout_s: float,
        start_timeout_s: float,
        name: str = "learner",
    ) -> "LearnerGroup":
        """Place the ranks and let them meet. Their actors are called `<name>-<rank>`.

        Raises:
            InputError: the cluster cannot place them.
            ServiceError: they did not meet in time.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        bundle = {"CPU": cpus} | ({"GPU": gpus} if device == "cuda" else {})
        group = reserve([bundle] * ranks, f"learner.ranks = {ranks}", start_timeout_s)
        remote = ray.remote(LearnerActor)
        actors = [
            remote.options(
                name=f"{name}-{rank}",
                num_cpus=cpus,
                num_gpus=bundle.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement_group=group, placement_group_bundle_index=rank
                ),
                runtime_env={"env_vars": compute_environment(device, threads)},
            ).remote(rank)
            for rank in range(ranks)
        ]
        address, port, node = await within(actors[0].address.remote(), start_timeout_s, "learner rank 0 to start")
        meetings = [actor.meet.remote(ranks, address, port, threads, timeout_s) for actor in actors]
        await within(asyncio.gather(*meetings), start_timeout_s, f"{ranks} learner ranks to meet at {address}:{port}")
        return cls(actors, group, node, timeout_s, loop.time() - began)

    @property
    def ranks(self) -> int:
        return len(self._actors)

    async def build(self, spec: BuildSpec, texts: list[str], folder: str) -> int:
        """A small model from scratch in `folder`; returns its number of parameters."""
        call = self._actors[0].build.remote(spec, texts, folder)
        return int(await within(call, self._timeout_s, "learner rank 0 to build a model"))

    async def open(self, spec: LearnerSpec) -> int:
        """Load a stage's model on every rank; returns its number of parameters."""
        return int((await self._all("open", spec))[0])

    async def plan(self, total_steps: int, warmup_steps: int) -> None:
        """The length of the stage and of its warm-up, in optimizer steps, where `open` could not know them yet."""
        await self._all("plan", total_steps, warmup_steps)

    async def train(self, batch: TrainingBatch, objective: str) -> TrainStats:
        """One optimizer step a mini-batch."""
        stats = await self._all("train", ray.put(batch), objective)
        figures = merged(rank.figures for rank in stats)
        parts = merged(rank.parts for rank in stats)
        count = figures.pop("count", 0.0)
        seconds = max(rank.seconds for rank in stats)
        return TrainStats(
            means={name: total / count for name, total in figures.items() if not is_extreme(name)},
            extremes={name: value for name, value in figures.items() if is_extreme(name)},
            count=int(count),
            loss=sum(parts.values()),
            parts=parts,
            grad_norm=stats[0].grad_norm,
            lr=stats[0].lr,
            seconds=seconds,
            optimizer_steps=stats[0].optimizer_steps,
            mfu=sum(rank.model_flops for rank in stats) / seconds / sum(rank.peak_flops for rank in stats),
            memory_peak=max(rank.memory_peak for rank in stats),
        )

    async def kl_to_reference(self, batch: TrainingBatch) -> np.ndarray:
        """[S] estimated KL summed over each sequence, in the order in which `make_batch` was given them."""
        shares = await self._all("kl_to_reference", ray.put(batch))
        kl = np.empty(batch.num_sequences)
        for rows, sums in shares:
            kl[rows] = sums
        return kl

    async def mean_nll(self, batch: TrainingBatch) -> float:
        """−log p of a target, in nats, over all targets of a batch; nothing trains."""
        pairs = [pair for rank in await self._all("logprobs", ray.put(batch)) for pair in rank]
        return -sum(float(logprobs.sum(dtype=np.float64)) for logprobs, _ in pairs) / batch.num_targets

    async def max_logprob_gap(self, batch: TrainingBatch) -> float:
        """Largest |learner − sampler| over all targets of a batch (audits)."""
        pairs = [pair for rank in await self._all("logprobs", ray.put(batch)) for pair in rank]
        return max((float(np.abs(learner - sampler).max()) for learner, sampler in pairs), default=0.0)

    async def stage_weights(self, version: int) -> WeightManifest:
        """Make the current weights ready for the engines as `version`."""
        manifest: WeightManifest = (await self._all("stage_weights", version))[0]
        return manifest

    async def send_weights(self) -> None:
        """Runs beside `RolloutPool.load`: what the manifest does not hold itself."""
        await self._all("send_weights")

    async def meet(self, pool: RolloutPool) -> None:
        """Join the engines in one NCCL group, rank 0 here, the engine workers after it."""
        address, port, _ = await within(self._actors[0].address.remote(), self._timeout_s, "learner rank 0")
        size = 1 + pool.workers
        await asyncio.gather(pool.meet(address, port, size), self._all("meet_engines", address, port, size))

    async def release_weights(self, manifest: WeightManifest) -> None:
        await self._all("release_weights", manifest)

    async def save(self, folder: Path, state: dict[str, Any]) -> None:
        await self._all("save", str(folder), state)

    async def load(self, folder: Path) -> None:
        await self._all("load", str(folder))

    async def export(self, folder: Path, tokenizer_from: str) -> None:
        await self._all("export", str(folder), tokenizer_from)

    async def close(self) -> None:
        """Free shared memory, then end the actors and their reservation."""
        closing = asyncio.gather(*(actor.call.remote("close") for actor in self._actors), return_exceptions=True)
        await asyncio.wait({asyncio.ensure_future(closing)}, timeout=10)
        for actor in self._actors:
            ray.kill(actor)
        remove_placement_group(self._group)

    async def _all(self, verb: str, *args: Any) -> list[Any]:
        calls = asyncio.gather(*(actor.call.remote(verb, *args) for actor in self._actors))
        what = f"{self.ranks} learner rank{'s' * (self.ranks > 1)} to finish `{verb}`"
        try:
            return list(await within(calls, self._timeout_s, what))
        except ServiceError as problem:
            raise ServiceError(f"learner: {problem}") from problem
