"""The learner service: one Ray actor a rank, and the group that the loop talks to. The ranks fail together."""

import asyncio
import math
import os
import re
import secrets
import socket
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import rollout.ray_defaults  # noqa: F401

import numpy as np
import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from learner.allocator import allocator_settings
from learner.audit import LogprobGap, logprob_gaps
from learner.batch import TrainingBatch
from learner.model.small import BuildSpec, build_model
from learner.progress import Note, Progress, RankState, diagnosis
from learner.rendezvous import Rendezvous, listen
from learner.spec import LearnerSpec, ObjectiveName
from learner.stats import TrainStats, train_stats
from learner.verbs import RankVerbs
from rollout.actors import (
    ANY_ROOM,
    Device,
    Room,
    SharedGpus,
    actor_name,
    both,
    compute_environment,
    node_here,
    reserve,
    said,
    within,
)
from rollout.errors import InputError, ServiceError, is_storage, told
from rollout.service import RolloutPool
from rollout.storage.folders import written
from rollout.storage.objects import StoredFile
from rollout.waits import waiting as open_wait
from rollout.weights.link import FileServer, Source
from rollout.weights.manifest import Bucket, Holding, WeightManifest
from rollout.weights.relay import offered

P = ParamSpec("P")
T = TypeVar("T")

GRACE_S = 10.0
"""Seconds that the other ranks have, after the first one failed, to finish, fail, or be reported gone by Ray."""
ANSWER_S = 5.0
"""Seconds that a rank has to say where it is in its work."""


class RanksLost(ServiceError):
    """A rank died, raised or hung, and its group was ended."""


class LearnerActor:
    """Forwards to a LearnerRank, which is made once the ranks have met."""

    def __init__(self, rank: int) -> None:
        self._index = rank
        self._progress = Progress()
        self._rank: RankVerbs | None = None
        self._server: FileServer | None = None
        self._listening: socket.socket | None = None

    def __repr__(self) -> str:
        return actor_name() or super().__repr__()

    def address(self) -> tuple[str, int]:
        """(ip, free port) of this actor's host, for the engines' group."""
        address = ray.util.get_node_ip_address()
        with listen(address) as probe:
            return address, probe.getsockname()[1]

    def rendezvous(self) -> tuple[Rendezvous, str]:
        """(where the ranks are to meet, node id): a port of this actor's host that listens from here on. Of rank 0."""
        address = ray.util.get_node_ip_address()
        self._listening = listen(address)
        place = Rendezvous(address, self._listening.getsockname()[1], secrets.token_hex(16))
        return place, str(ray.get_runtime_context().get_node_id())

    def meet(
        self, ranks: int, place: Rendezvous, threads: int, timeout_s: float, device: Device, shares_gpu: bool
    ) -> bool:
        if device == "cuda":
            os.environ.update(allocator_settings(os.environ, shares_memory=shares_gpu))
        from learner.rank import LearnerRank

        with self._progress.verb("meet"):
            settings = (threads, timeout_s, self._progress, device, self._listening)
            self._rank = LearnerRank(self._index, ranks, place, *settings)
        return True

    def build(self, spec: BuildSpec, texts: list[str], folder: str) -> tuple[int, list[StoredFile]]:
        with written(folder) as (path, files):
            count = build_model(spec, iter(texts), path)
        return count, files

    def call(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        """One of the verbs of learner/verbs.py."""
        with self._progress.verb(verb):
            return getattr(self._rank, verb)(*args, **kwargs)

    def serve(self, version: int, files: Sequence[Bucket]) -> Source:
        """Offer files of this host, in place of those before, to others that engines live on."""
        if self._server is None:
            self._server = FileServer(ray.util.get_node_ip_address())
        self._server.offer(offered(version, files, complete=True))
        return self._server.source

    @ray.method(concurrency_group="progress")
    def progress(self) -> tuple[Note, float]:
        """What this rank is at, and for how many seconds already; answered while a verb runs too."""
        return self._progress.read()

    @ray.method(concurrency_group="progress")
    def where(self) -> str:
        """Id of the node that this rank lives on; answered while a verb runs too."""
        return node_here()

    @ray.method(concurrency_group="progress")
    def free(self) -> None:
        """Free the shared memory of publishes, whatever a verb is at: this rank is about to be ended."""
        if self._rank is not None:
            self._rank.close()


class LearnerGroup:
    """The ranks as one service. Every verb goes to all of them, and they fail together: when the process of one ends, or
    a verb raises or hangs on it, all are ended, and the error names it."""

    def __init__(
        self, actors: list[Any], group: PlacementGroup | None, timeout_s: float, name: str = "learner"
    ) -> None:
        """`group`: reserved for these actors alone."""
        self._name = name
        self._actors = actors
        self._group = group
        self.timeout_s = timeout_s
        """Longest time in which no rank makes progress with a verb."""
        self._ended = ""
        self.node = ""
        """Node of rank 0, from which weights are published."""
        self._where: list[Any] = []
        self._adapts = False
        self._bucket_bytes = 0
        self._holding = Holding()

    @classmethod
    async def start(
        cls,
        *,
        ranks: int,
        cpus: float,
        gpus: float,
        resources: Mapping[str, float] | None = None,
        device: Device,
        threads: int,
        timeout_s: float,
        start_timeout_s: float,
        room: Room = ANY_ROOM,
        name: str = "learner",
        shared: SharedGpus | None = None,
    ) -> "LearnerGroup":
        """Place the ranks and let them meet. Their actors are called `<name>-<rank>`.

        Args:
            resources: custom ones of the cluster's nodes that each rank takes.
            room: how their places are waited for.
            shared: GPUs that engines use too, in place of some of their own.

        Raises:
            InputError: the cluster cannot place them.
            ServiceError: they did not meet in time.
        """
        bundle = {"CPU": cpus, **(resources or {})} | ({"GPU": gpus} if device == "cuda" else {})
        group = None if shared else await reserve([bundle] * ranks, f"learner.ranks = {ranks}", room)
        remote = ray.remote(concurrency_groups={"progress": 1})(LearnerActor)
        actors = [
            remote.options(
                name=f"{name}-{rank}",
                num_cpus=cpus,
                num_gpus=shared.share if shared else bundle.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement_group=shared.group if shared else group, placement_group_bundle_index=rank
                ),
                runtime_env={"env_vars": compute_environment(device, threads)},
            ).remote(rank)
            for rank in range(ranks)
        ]
        learner = cls(actors, group, timeout_s, name)
        try:
            place, learner.node = await within(
                actors[0].rendezvous.remote(), start_timeout_s, "learner rank 0 to start"
            )
            settings = (threads, timeout_s, device, shared is not None)
            meetings = [actor.meet.remote(ranks, place, *settings) for actor in actors]
            await learner._together("meet", meetings, start_timeout_s)
        except BaseException:
            await learner.close()
            raise
        return learner

    def members(self) -> list[dict[str, Any]]:
        """Every rank by the name of its actor, its state (`ready`, or `dead` as all of them once one has failed), and its node as
        far as it is known."""
        self._where = self._where or [actor.where.remote() for actor in self._actors]
        state, nodes = "dead" if self._ended else "ready", map(said, self._where)
        return [{"name": f"{self._name}-{rank}", "state": state, "node": node} for rank, node in enumerate(nodes)]

    @property
    def ranks(self) -> int:
        return len(self._actors)

    async def build(self, spec: BuildSpec, texts: list[str], folder: str) -> tuple[int, list[StoredFile]]:
        """A small model from scratch in `folder`; returns its number of parameters, and the files where that is in a storage."""
        call = self._actors[0].build.remote(spec, texts, folder)
        count, files = await within(call, self.timeout_s, "learner rank 0 to build a model")
        return int(count), list(files)

    async def open(self, spec: LearnerSpec) -> int:
        """Load a stage's model on every rank; returns its number of parameters."""
        counts = await self._all(RankVerbs.open, spec)
        self._adapts = spec.lora_rank > 0
        self._bucket_bytes = spec.bucket_bytes
        self._holding = Holding(base=spec.model_path)
        self._new_holding()
        return counts[0]

    async def plan(self, total_steps: int, warmup_steps: int) -> None:
        """The length of the stage and of its warm-up, in optimizer steps, where `open` could not know them yet."""
        await self._all(RankVerbs.plan, total_steps, warmup_steps)

    async def train(self, batch: TrainingBatch, objective: ObjectiveName) -> TrainStats:
        """One optimizer step a mini-batch."""
        self._new_holding()
        return train_stats(await self._all(RankVerbs.train, _store(batch), objective))

    async def kl_to_reference(self, batch: TrainingBatch) -> np.ndarray:
        """[S] estimated KL summed over each sequence, in the order in which `make_batch` was given them."""
        return _in_order(await self._all(RankVerbs.kl_to_reference, _store(batch)), batch.num_sequences)

    async def scores(self, batch: TrainingBatch) -> np.ndarray:
        """[S] what ranks the answers to a prompt, in the order in which `make_batch` was given them: a reward model's score,
        or of a policy DPO's implicit reward."""
        return _in_order(await self._all(RankVerbs.scores, _store(batch)), batch.num_sequences)

    async def mean_nll(self, batch: TrainingBatch) -> float:
        """−log p of a target, in nats, over all targets of a batch; nothing trains."""
        packs = [pack for rank in await self._all(RankVerbs.logprobs, _store(batch)) for pack in rank]
        return -sum(float(logprobs.sum(dtype=np.float64)) for _, logprobs, _ in packs) / batch.num_targets

    async def logprob_gaps(self, batch: TrainingBatch, sampler: Sequence[int]) -> dict[int, LogprobGap]:
        """How far the learner is from each sampler, over all targets of the sequences that it sampled (audits).

        Args:
            sampler: [S] which one sampled a sequence, in the order in which `make_batch` was given them.
        """
        packs = [pack for rank in await self._all(RankVerbs.logprobs, _store(batch)) for pack in rank]
        return logprob_gaps(packs, sampler)

    async def stage_weights(self, version: int, held: Holding | None = None) -> WeightManifest:
        """Make the current weights ready for the engines as `version`: all that is not in `held`, which they hold."""
        now = self._holding
        base = held is None or held.base != now.base
        # An engine that takes another base drops its adapter.
        adapter = base or held is None or held.adapter != now.adapter
        manifest = (await self._all(RankVerbs.stage_weights, version, base, adapter))[0]
        assert manifest is not None, "rank 0 answers with the manifest"
        return replace(manifest, holding=now)

    async def serve(self, manifest: WeightManifest) -> Source:
        """Where other hosts fetch the files of a manifest from, until it is released."""
        serving = self._actors[0].serve.remote(manifest.version, manifest.files)
        source: Source = await within(serving, self.timeout_s, "learner rank 0 to serve its weights")
        return source

    async def send_weights(self) -> None:
        """Runs beside `RolloutPool.load`: what the manifest does not hold itself."""
        await self._all(RankVerbs.send_weights)

    async def meet(self, pool: RolloutPool, members: Sequence[int]) -> None:
        """Join these engines in one NCCL group, rank 0 here, the engine workers after it."""
        address, port = await within(self._actors[0].address.remote(), self.timeout_s, "learner rank 0")
        size = 1 + pool.workers(members)
        meeting = pool.meet(members, address, port, size, self._bucket_bytes)
        await both(meeting, self._all(RankVerbs.meet_engines, address, port, size), self.abandon)

    async def release_weights(self, manifest: WeightManifest) -> None:
        await self._all(RankVerbs.release_weights, manifest)

    async def save(self, folder: Path | str, state: dict[str, Any]) -> list[StoredFile]:
        """`folder`: one that all hosts see, or the URI of one in a storage; then the files that were put there, in no manifest yet."""
        return list(chain.from_iterable(await self._all(RankVerbs.save, str(folder), state)))

    async def load(self, folder: Path | str) -> None:
        self._new_holding()
        await self._all(RankVerbs.load, str(folder))

    async def digests(self, folder: Path) -> dict[str, str]:
        """Digest of every file of a folder that all ranks see; each hashes its share of them."""
        return {name: digest for own in await self._all(RankVerbs.digests, str(folder)) for name, digest in own.items()}

    async def export(self, folder: Path | str, tokenizer_from: str) -> list[StoredFile]:
        """As `save`: the files that were put in a storage."""
        return list(chain.from_iterable(await self._all(RankVerbs.export, str(folder), tokenizer_from)))

    async def answer(self) -> None:
        """Raises RanksLost when a rank is gone."""
        if self._ended:
            raise RanksLost(self._ended)
        await self._together("answer", [actor.progress.remote() for actor in self._actors], ANSWER_S)

    async def abandon(self, why: str) -> None:
        """End the ranks, whatever they are at: they wait for somebody who will not come."""
        if not self._ended:
            self._ended = why
            await self._end(self._actors)

    async def close(self) -> None:
        """Free shared memory, then end the actors and their reservation."""
        await self.abandon("closed")
        if self._group:
            remove_placement_group(self._group)

    def _new_holding(self) -> None:
        """Give the weights a new name, since they are, or may be, other ones than before: with adapters, those alone."""
        name = uuid.uuid4().hex
        self._holding = Holding(self._holding.base, name) if self._adapts else Holding(name)

    async def _all(self, verb: Callable[Concatenate[RankVerbs, P], T], *args: P.args, **kwargs: P.kwargs) -> list[T]:
        """The answers of all ranks to one verb, given as a function of RankVerbs."""
        name = verb.__name__
        if self._ended:
            raise RanksLost(f"`{name}`: the learner was ended before: {self._ended}")
        calls = [actor.call.remote(name, *args, **kwargs) for actor in self._actors]
        return await self._together(name, calls, self.timeout_s)

    async def _together(self, verb: str, calls: list[Any], timeout_s: float) -> list[Any]:
        """The answers of all ranks.

        Raises:
            InputError: as a rank raised it.
            StorageError: a file could not be read or written, and nothing else went wrong.
            RanksLost: a rank died, raised or hung; all of them have been ended.
        """
        answers = [asyncio.ensure_future(call) for call in calls]
        for answer in answers:
            # When this wait is cancelled, nobody else reads what an answer that fails later raised, and asyncio complains.
            answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        waiting = await self._until_answered(verb, answers, timeout_s)
        failed = any(_problem(answer) for answer in answers)
        if failed and waiting:
            # The peers of a rank whose process ended fail too, often before Ray notices that it ended.
            _, waiting = await asyncio.wait(waiting, timeout=GRACE_S)
        mistakes = [problem for problem in map(_problem, answers) if isinstance(problem, InputError)]
        if not failed and not waiting:
            return [answer.result() for answer in answers]
        if mistakes and not waiting:
            raise mistakes[0] from None
        problems = [problem for problem in map(_problem, answers) if problem]
        if not waiting and all(map(is_storage, problems)):
            # An answer, not a death: the ranks are whole, and whoever asked may ask again when there is room.
            raise told(cast(OSError, problems[0]), f"`{verb}` of {len(answers)} learner ranks") from None
        states = await self._states(answers)
        self._ended = diagnosis(verb, states, timeout_s)
        await self._end(actor for actor, state in zip(self._actors, states.values(), strict=True) if state.note)
        if mistakes:
            raise mistakes[0] from None
        raise RanksLost(self._ended) from next((_problem(answer) for answer in answers if _problem(answer)), None)

    async def _until_answered(self, verb: str, answers: list[Any], timeout_s: float) -> set[Any]:
        """Wait until all ranks have answered or one has failed; those that have not when none has moved for `timeout_s`."""
        with open_wait(f"`{verb}` of {len(answers)} learner ranks", timeout_s) as wait:
            while True:
                _, pending = await asyncio.wait(
                    answers, timeout=max(0.0, wait.left_s), return_when=asyncio.FIRST_EXCEPTION
                )
                if not pending or any(map(_problem, answers)):
                    return pending
                asked = (self._note(rank) for rank, answer in enumerate(answers) if answer in pending)
                notes = await asyncio.gather(*asked)
                wait.moved(min((seconds for note, seconds in filter(None, notes) if note.verb), default=math.inf))
                if wait.left_s <= 0:
                    return pending

    async def _note(self, rank: int) -> tuple[Note, float] | None:
        """What a rank is at, and for how many seconds already; None: it does not answer."""
        try:
            note: tuple[Note, float] = await within(self._actors[rank].progress.remote(), ANSWER_S, f"rank {rank}")
        except ServiceError:
            return None
        return note

    async def notes(self) -> list[str]:
        """What every rank is at, in words, whatever verb goes on."""
        found = await asyncio.gather(*map(self._note, range(self.ranks)))
        return [
            f"{self._name}-{rank}: "
            + (f"{note[0].verb or 'idle'}, {note[0]}, for {note[1]:.0f} s" if note else "no answer")
            for rank, note in enumerate(found)
        ]

    async def _states(self, answers: list[Any]) -> dict[int, RankState]:
        """What every rank is at. They answer from a thread of its own, in the middle of a verb too."""

        async def ask(rank: int, answer: Any) -> RankState:
            problem = _problem(answer)
            if answer.done() and problem is None:
                return RankState(finished=True, note=Note())
            if isinstance(problem, RayActorError):
                return RankState(died=_reason(problem))
            try:
                note, seconds = await within(self._actors[rank].progress.remote(), ANSWER_S, f"rank {rank}")
            except ServiceError as silence:
                if isinstance(silence.__cause__, RayActorError):
                    return RankState(died=_reason(silence.__cause__))
                note, seconds = None, 0.0
            return RankState(failed=_reason(problem) if problem else "", note=note, seconds=seconds)

        states = await asyncio.gather(*(ask(rank, answer) for rank, answer in enumerate(answers)))
        return dict(enumerate(states))

    async def _end(self, answering: Iterable[Any]) -> None:
        """Free shared memory on the ranks that answer, then end all of them, also one that waits for ever."""
        freeing = asyncio.gather(*(actor.free.remote() for actor in answering), return_exceptions=True)
        await asyncio.wait({asyncio.ensure_future(freeing)}, timeout=ANSWER_S)
        for actor in self._actors:
            ray.kill(actor)


def _store(value: T) -> T:
    """A large argument, stored by Ray once for all ranks; each gets the value itself."""
    return cast(T, ray.put(value))


def _in_order(shares: list[tuple[np.ndarray, np.ndarray]], count: int) -> np.ndarray:
    """[count] values of all sequences of a batch, from ([S] indices, [S] values) of each rank's sequences."""
    values = np.empty(count)
    for indices, own in shares:
        values[indices] = own
    return values


def _problem(answer: Any) -> BaseException | None:
    """What a rank raised, or that it is gone; None while it works and when it has answered."""
    if not answer.done() or answer.cancelled():
        return None
    problem: BaseException | None = answer.exception()
    return problem.cause if isinstance(problem, RayTaskError) and problem.cause is not None else problem


def _reason(problem: BaseException) -> str:
    """What went wrong, in one line."""
    text = " ".join(str(problem).split())
    if isinstance(problem, RayActorError):
        # Ray's account ends in a paragraph of advice about memory.
        detail = re.search(r"Worker exit detail: (.+?)( Some common causes|$)", text)
        return f"killed, out of memory, or crashed: {detail[1]}" if detail else text
    return f"{type(problem).__name__}: {text}"
