"""The rollout service: engines behind one pool that the loop talks to. Who of them serves, the fleet says (rollout/fleet.py)."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import rollout.ray_defaults  # noqa: F401

import ray

from rollout.actors import ANY_ROOM, Room, SharedGpus, within
from rollout.engine import EngineSpec
from rollout.engines import Engines, is_away, is_gone
from rollout.errors import GroupError, ServiceError
from rollout.fleet import Member, State
from rollout.keeper import EndedError, Keeper
from rollout.loading import disagreeing, load_on, nobody
from rollout.relays import Relays, Sender
from rollout.types import Completion, Prompt, RolloutGroup, Sampling
from rollout.weights.manifest import PACKED_BUFFERS, Holding, LoadReport, WeightManifest

TRIES = 2
"""Members that a group may fail on, or take with it: then it is the group that is at fault."""
INTERRUPTIONS = 4
"""Members that may end under a group for reasons of their own before it is given up all the same."""
FAILED_IN_ROW = 16
"""Groups that fail one after the other, with none completed between: then it is no single prompt that is at fault."""
ROLL_CALL_S = 30.0
"""Seconds that a member has to answer before a publish, which else goes on without it."""
FIRST_WORD = Prompt(prompt_id="first word", source="", rubric="", text="", token_ids=(0,), answer="")
"""What a member that has come is asked where nothing has been asked before."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What is asked of a replica before it serves, and who looks at it."""

    sampling: Sampling
    judge: Callable[[Sequence[RolloutGroup]], Awaitable[Mapping[int, str]]]
    """Given a group of each replica; id of a replica → why it must not serve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishReport:
    """One publish as the engines saw it."""

    version: int
    num_bytes: int
    seconds: float
    """Wall time until the last engine serves the new version."""
    pause_seconds: float
    """Longest standstill of generation on any replica."""


class RolloutPool:
    """The engines as one service: routed generation, publishes that decide who serves, bounded waits."""

    def __init__(
        self,
        engines: Engines,
        *,
        timeout_s: float,
        wait_s: float,
        name: str = "rollout",
        tell: Callable[[str], None] = lambda _: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """
        Args:
            timeout_s: longest time without progress of an engine that has work, and longest load.
            wait_s: longest time in which nobody serves before whoever waits is told.
            tell: hears of every group that is asked for again, and of every replica that serves no more.
            say: hears of replicas that come and go.
        """
        self._timeout_s, self._wait_s = timeout_s, wait_s
        self._tell, self._name = tell, name
        self._tensor_parallel = engines.tensor_parallel
        self._relays = Relays(name, timeout_s)
        self._keeper = Keeper(engines, self._arrived, timeout_s=timeout_s, tell=tell, say=say)
        self._fleet = self._keeper.fleet
        self._asked = FIRST_WORD
        self._published = False
        self._failed_in_row = 0
        self.version = 0
        """Policy version that every serving replica holds."""
        self.num_tokens = 0
        """Completion tokens sampled so far."""

    @classmethod
    async def start(
        cls,
        spec: EngineSpec,
        model: "asyncio.Future[str]",
        *,
        replicas: int,
        cpus: float,
        gpus: float,
        resources: Mapping[str, float] | None = None,
        threads: int,
        timeout_s: float,
        start_timeout_s: float,
        room: Room = ANY_ROOM,
        name: str = "rollout",
        shared: SharedGpus | None = None,
        tell: Callable[[str], None] = lambda _: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> "RolloutPool":
        """Place and start every replica. The actors are called `<name>-<id>`.

        Args:
            model: the folder or hub id, once it is there.
            resources: custom ones of the cluster's nodes that each replica takes.
            start_timeout_s: longest start of an engine, and longest wait for one to serve again where none does.
            room: how their places are waited for.
            shared: GPUs that learner ranks use too, in place of some of their own.

        Raises:
            InputError: the cluster cannot place them.
            ServiceError: an engine failed to start in time.
        """
        engines = Engines(
            spec,
            model,
            cpus=cpus,
            gpus=gpus,
            resources=resources,
            threads=threads,
            start_timeout_s=start_timeout_s,
            room=room,
            name=name,
            shared=shared,
        )
        pool = cls(engines, timeout_s=timeout_s, wait_s=start_timeout_s + room.coming_s, name=name, tell=tell, say=say)
        await pool._keeper.begin(replicas)
        return pool

    # --- Groups

    async def generate(
        self, group_id: str, prompt: Prompt, sampling: Sampling, finished: "Callable[[Completion], None] | None" = None
    ) -> RolloutGroup:
        """A group from the replica that will have it first; from another one when that fails, dies or leaves.

        Args:
            finished: called with every completion as it comes back. After a failure it sees those of the next try too;
                only the completions of the returned group count.

        Raises:
            GroupError: `TRIES` replicas failed on it, which are well or died of it.
            ServiceError: none serves, and none has come back in time; or no group at all is completed any more.
        """
        tokens = sampling.n * sampling.max_tokens
        failed: list[tuple[Member, int]] = []
        reasons: list[str] = []
        interrupted = 0
        while len(failed) < TRIES and interrupted < INTERRUPTIONS:
            member = await self._acquire(tokens, {member.id for member, _ in failed})
            life = member.life
            try:
                group = await self._generate_on(member, group_id, prompt, sampling, finished)
            except EndedError as end:
                reasons.append(str(end))
                if end.of_work:
                    failed.append((member, life))
                else:
                    interrupted += not end.leaves
            except ServiceError as problem:
                reasons.append(str(problem))
                if await self._keeper.judge(member, life, problem):
                    failed.append((member, life))
                else:
                    interrupted += 1
            else:
                self._completed(group, tokens, member, failed)
                return group
            finally:
                self._fleet.release(member, tokens)
                self._keeper.notice()
            if (
                member.life == life and member.state is State.HEALTHY
            ):  # else its end is told, once for all groups that it had
                self._tell(f"group {group_id} is asked for again: {reasons[-1]}")
        self._failed_in_row += 1
        why = f"group {group_id} could not be generated: {'; '.join(dict.fromkeys(reasons))}"
        if self._failed_in_row >= FAILED_IN_ROW:
            raise ServiceError(f"{self._failed_in_row} groups in a row failed, none came back between; the last: {why}")
        raise GroupError(why)

    async def generate_on(self, member: int, group_id: str, prompt: Prompt, sampling: Sampling) -> RolloutGroup:
        """A group from one given replica (audits). Raises ServiceError where that is gone, or fails."""
        if member not in self._fleet:
            raise ServiceError(f"there is no rollout replica {member} any more")
        asked = self._fleet[member]
        life = asked.life
        with self._fleet.charged(asked, sampling.n * sampling.max_tokens):
            try:
                return await self._generate_on(asked, group_id, prompt, sampling, None)
            except EndedError:
                raise
            except ServiceError as problem:
                await self._keeper.judge(asked, life, problem)
                raise
            finally:
                self._keeper.notice()

    async def served(self) -> None:
        """Wait until a replica serves.

        Raises:
            ServiceError: none has served for too long.
        """
        while not self.serving:
            await self._wait_for_one(State.STALE)

    async def _acquire(self, tokens: int, tried: set[int]) -> Member:
        while (member := self._fleet.acquire(tokens, tried)) is None:
            await self.served()
        return member

    async def _wait_for_one(self, *as_good: State) -> None:
        """Wait until something changes while no replica serves.

        Args:
            as_good: states in which one is on its way to serve, and only the loop's next publish is missing.

        Raises:
            ServiceError: none has served for too long.
        """
        if self._keeper.failure:
            raise ServiceError(f"the rollout service failed: {self._keeper.failure}") from self._keeper.failure
        left = self._fleet.unserved_since + self._wait_s - time.monotonic()
        if left > 0 or self._fleet.in_state(State.HEALTHY, *as_good):
            await self._keeper.changed(max(1.0, left))
            return
        reasons = "; ".join(f"{member.id} is {member.state.value}: {member.reason}" for member in self._fleet)
        raise ServiceError(
            f"none of the {self.replicas} rollout replicas has served for {self._wait_s:.0f} s "
            f"(cluster.start_timeout_s): replica {reasons}"
        )

    async def _generate_on(
        self,
        member: Member,
        group_id: str,
        prompt: Prompt,
        sampling: Sampling,
        finished: "Callable[[Completion], None] | None",
    ) -> RolloutGroup:
        began = time.perf_counter()
        completions: dict[int, Completion] = {}
        actor = self._keeper.engines[member.id].actor
        stream = actor.generate.options(num_returns="streaming").remote(group_id, prompt, sampling)

        async def receive() -> None:
            async for chunk in stream:
                for i, completion in await chunk:
                    completions[i] = completion
                    if finished:
                        finished(completion)

        # How long it may take is the keeper's to say, which sees whether the replica gets on.
        call = within(receive(), None, f"replica {member.id} to generate {group_id}")
        try:
            await self._keeper.while_it_lives(member, call)
        except BaseException:
            # Nobody waits for it any more: the engine drops the request, and computes what somebody waits for.
            ray.cancel(stream)
            raise
        group = RolloutGroup(
            group_id=group_id,
            prompt=prompt,
            completions=tuple(completions[i] for i in range(sampling.n)),
            replica=member.id,
            seconds=time.perf_counter() - began,
        )
        self.num_tokens += group.num_tokens
        return group

    def _completed(self, group: RolloutGroup, work: int, member: Member, failed: Sequence[tuple[Member, int]]) -> None:
        """A group is there; members that failed on it before were at fault themselves."""
        self._asked, self._failed_in_row = group.prompt, 0
        self._fleet.completed(member, group.num_tokens, group.seconds)
        for other, life in failed:
            if other is not member and self._fleet.blame(other, life):
                self._keeper.put_down(other, life, "it fails groups that others complete", end=True)

    # --- Publishes

    async def roll_call(self, *, joining: bool = False) -> tuple[int, ...]:
        """Ids of the replicas that can take weights now; those that have died are noticed, and those that are silent left out.

        Args:
            joining: only those that do not serve yet, of which there may be none. Otherwise it waits for one.

        Raises:
            ServiceError: there is none, and none has come in time.
        """
        joining = joining and not self._keeper.asleep
        able = (State.STALE,) if joining else (State.HEALTHY, State.STALE)
        while True:
            asked = self._fleet.in_state(*able, *(() if joining else (State.SUSPECT,)))
            await asyncio.gather(*(self._ask(member) for member in asked))
            found = tuple(member.id for member in asked if member.state in able)
            if found or joining:
                return found
            await self._wait_for_one()

    async def _ask(self, member: Member) -> None:
        life, limit = member.life, min(ROLL_CALL_S, self._timeout_s)
        version = self._keeper.engines[member.id].actor.version.remote()
        asked = asyncio.ensure_future(within(version, None, f"replica {member.id} to answer"))
        done, _ = await asyncio.wait({asked}, timeout=limit)
        if not done:
            asked.cancel()
            self._fleet.unanswered(member, life, f"no answer within {limit:.0f} s")
        elif (problem := asked.exception()) is None:
            self._fleet.answered(member, life)
        elif is_away(problem):
            self._fleet.unanswered(member, life, str(problem))
        else:
            self._keeper.put_down(member, life, problem, end=not is_gone(problem))

    def holding_of(self, members: Sequence[int]) -> Holding | None:
        """Weights that all of these hold, as far as known: a publish sends them the others."""
        held = [self._keeper.engines[member].holding for member in members]
        if not held or None in held:
            return None
        bases, adapters = ({getattr(each, part) for each in held} for part in ("base", "adapter"))
        if len(bases) > 1:
            return None
        return Holding(bases.pop(), adapters.pop() if len(adapters) == 1 else "")

    @property
    def holding(self) -> Holding | None:
        """Weights that every replica holds which can take some, as far as known."""
        return self.holding_of([member.id for member in self._fleet.in_state(State.HEALTHY, State.STALE)])

    async def load(
        self,
        manifest: WeightManifest,
        sender: Sender,
        members: Sequence[int] | None = None,
        *,
        joining: bool = False,
        audit: Audit | None = None,
    ) -> PublishReport:
        """Load a manifest and compare versions and checksums. Who has loaded it serves from then on.

        Args:
            members: ids of the replicas; None: all that can take weights.
            joining: it is what the others serve with already; else they serve no more until they have loaded it too.
            audit: of those that did not serve before; by default they answer one prompt.

        Raises:
            NobodyLoadedError: every one of them failed; they are started again.
        """
        able = self._fleet.in_state(State.HEALTHY, State.STALE)
        lives = {member: member.life for member in able if members is None or member.id in members}
        if not lives:
            raise nobody([ServiceError("none is there")], manifest.version)
        began = time.perf_counter()
        engines = self._keeper.engines
        for member in lives:
            engines[member.id].holding = None  # until it has answered
        try:
            with self._keeper.without_probes(lives):
                answers = await load_on(self._keeper, list(lives), manifest, self._relays, sender, self._timeout_s)
        except BaseException:
            if manifest.backend == "nccl":
                for member, life in lives.items():
                    # It waits for the ranks, without an end, whatever they do next.
                    self._keeper.put_down(member, life, "the publish that it waited for was given up", end=True)
            raise
        reports = {member.id: said for member, said in zip(lives, answers, strict=True) if isinstance(said, LoadReport)}
        failures = {m.id: said for m, said in zip(lives, answers, strict=True) if not isinstance(said, LoadReport)}
        failures |= disagreeing(reports, manifest)
        for member, life in lives.items():
            if member.id in failures:
                self._failed_to_load(member, life, failures[member.id])
        loaded = [member for member, life in lives.items() if member.id not in failures and member.life == life]
        if not loaded:
            raise nobody(failures.values(), manifest.version)
        for member in loaded:
            engines[member.id].holding = manifest.holding
        if not joining:
            self._fleet.outdate(loaded)
        self.version, self._published, self._keeper.asleep = manifest.version, True, False
        await self._admit({member: lives[member] for member in loaded if member.state is State.STALE}, audit)
        return PublishReport(
            version=manifest.version,
            num_bytes=manifest.num_bytes,
            seconds=time.perf_counter() - began,
            pause_seconds=max(reports[member.id].pause_seconds for member in loaded),
        )

    def _failed_to_load(self, member: Member, life: int, problem: BaseException) -> None:
        if is_away(problem):
            self._fleet.unanswered(member, life, str(problem))
        else:
            # It holds half of two versions, at worst.
            self._keeper.put_down(member, life, problem, end=not is_gone(problem))

    async def _admit(self, joiners: Mapping[Member, int], audit: Audit | None = None) -> None:
        """Let replicas serve that hold the current weights, have answered a prompt, and stand an audit."""
        sampling = audit.sampling if audit else Sampling(max_tokens=1)
        groups, failures = [], {}
        asked = [self.generate_on(member.id, f"joins/{member.id}", self._asked, sampling) for member in joiners]
        for member, said in zip(joiners, await asyncio.gather(*asked, return_exceptions=True), strict=True):
            if isinstance(said, RolloutGroup):
                groups.append(said)
            else:
                failures[member.id] = str(said)
        if audit and groups:
            failures |= await audit.judge(groups)
        for member, life in joiners.items():
            if reason := failures.get(member.id):
                self._keeper.put_down(member, life, reason, end=True)
            else:
                self._fleet.serves(member, life)

    async def _arrived(self, member: Member, life: int) -> None:
        """A replica has started. It waits for a publish, unless none was made yet: then the others too hold what it started with."""
        if not self._published:
            await self._admit({member: life})

    async def sleep(self) -> None:
        """Let every engine leave its GPU's memory to others until the next `load`."""
        self._keeper.asleep = True
        while self._fleet.in_state(State.STARTING):
            await self._keeper.changed(1.0)
        awake = {member: member.life for member in self._fleet.in_state(State.HEALTHY, State.STALE, State.SUSPECT)}
        calls = [
            self._keeper.while_it_lives(
                member,
                within(self._keeper.engines[member.id].actor.sleep.remote(), self._timeout_s, f"{member.id} to sleep"),
            )
            for member in awake
        ]
        for (member, life), held in zip(
            awake.items(), await asyncio.gather(*calls, return_exceptions=True), strict=True
        ):
            if isinstance(held, BaseException):
                # Awake, it would hold memory that the ranks need.
                self._keeper.put_down(member, life, held, end=True)
            if held is not True:
                self._keeper.engines[member.id].holding = None

    def meeting(self, members: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """(id, number of its start) of each: equal ones are the same processes."""
        return tuple((member, self._fleet[member].life) for member in members)

    def workers(self, members: Sequence[int]) -> int:
        """Engine workers of these replicas."""
        return len(members) * self._tensor_parallel

    async def meet(self, members: Sequence[int], address: str, port: int, world_size: int, bucket_bytes: int) -> None:
        """Every engine worker of these replicas joins the learner's NCCL group; the learner must be joining it at the same time."""
        calls = [
            self._keeper.engines[member].actor.init_transfer.remote(
                {
                    "master_address": address,
                    "master_port": port,
                    "rank_offset": 1 + place * self._tensor_parallel,
                    "world_size": world_size,
                    "packed": True,
                    "packed_buffer_size_bytes": bucket_bytes,
                    "packed_num_buffers": PACKED_BUFFERS,
                }
            )
            for place, member in enumerate(members)
        ]
        await within(asyncio.gather(*calls), self._timeout_s, f"engines to meet the learner at {address}:{port}")

    # --- Members

    @property
    def replicas(self) -> int:
        """Replicas that are wanted, whatever state they are in."""
        return self._fleet.wanted

    @property
    def serving(self) -> tuple[int, ...]:
        """Ids of the replicas that get work."""
        return self._fleet.serving

    async def scale(self, replicas: int) -> None:
        """Want another number of replicas, while the run goes on. More start beside those that serve and join them with a
        publish; those that leave finish their groups, or hand them to the others.

        Raises:
            InputError: the cluster has no place for them.
        """
        await self._keeper.scale(replicas)

    async def joiners(self) -> None:
        """Wait until a replica is up that a publish would let serve, while engines are awake."""
        while self._keeper.asleep or not (self._published and self._fleet.in_state(State.STALE)):
            await self._keeper.changed(60.0)

    def give_up(self, problem: BaseException) -> None:
        """Tell whoever waits for a replica that none will come."""
        self._keeper.failure = self._keeper.failure or problem
        self._keeper.notice()

    def members(self) -> list[dict[str, Any]]:
        """Every replica by the name of its actor: its state (a word of rollout/fleet.py, or `asleep`), its host's node, and tokens
        that it owes at most."""
        return [
            {
                "name": f"{self._name}-{member.id}",
                "state": "asleep" if self._keeper.asleep and member.state is State.HEALTHY else member.state.value,
                "node": self._keeper.engines[member.id].node,
                "owed_tokens": member.outstanding,
            }
            for member in self._fleet
        ]

    async def versions(self) -> list[int]:
        """The policy version of each serving replica, as its vLLM itself says it."""
        calls = [self._keeper.engines[member].actor.version.remote() for member in self.serving]
        return list(await within(asyncio.gather(*calls), self._timeout_s, "engines to tell their version"))

    async def close(self) -> None:
        """End the engines, then their actors and reservations."""
        await self._keeper.close()
        self._relays.close()
