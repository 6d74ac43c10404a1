"""The task that makes the engines that there are equal to those that are wanted, and notices when one is there no more.

A restart, more engines, fewer engines and an engine that hangs differ only in who changed the fleet: this one task starts what
is dead or missing and sees off what is too many. Whether an engine that is up may serve is not decided here but by a publish.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rollout.actors import within
from rollout.engines import Engine, Engines, is_away, is_gone, is_preempted
from rollout.errors import InputError, ServiceError
from rollout.fleet import UP, Fleet, Member, State

TICK_S = 0.5
"""Seconds between two looks at all members, at most."""
REST_S = 0.02
"""Seconds between two looks, at least."""
PROBE_EVERY_S = 5.0
"""Seconds between two probes of a member that answers."""
PROBE_S = 10.0
"""Seconds without an answer after which a member gets nothing new."""
LEAVE_S = 60.0
"""Seconds that a member which leaves has to finish what it has; then that goes to others."""
PLACE_S = 15.0
"""Longest wait for places for more engines before whoever asked for them hears that they are on their way."""


class EndedError(ServiceError):
    """The life of a member ended while somebody waited for it."""

    def __init__(self, reason: str, *, leaves: bool = False, of_work: bool = False) -> None:
        super().__init__(reason)
        self.leaves = leaves
        """Whether it went because it was told to."""
        self.of_work = of_work
        """Whether what it was asked for may have ended it."""


@dataclass(slots=True)
class _Signs:
    """What a member in its present life has let us see."""

    end: "asyncio.Future[EndedError]"
    """Done when its life ends."""
    probed: float
    """Time of the last probe."""
    heard: float
    """Time at which its engine's core last answered, or a token came."""
    moved: float
    """Time at which it last had finished a token more, or had nothing to do."""
    tokens: int = 0
    core: "asyncio.Future[Any] | None" = None
    """A question to its engine's core that is not answered yet."""
    asked: float = 0.0
    """Time of that question."""


class Keeper:
    """The members of a pool with their engines. Everything here runs in one event loop."""

    def __init__(
        self,
        engines: Engines,
        arrived: Callable[[Member, int], Awaitable[None]],
        *,
        timeout_s: float,
        tell: Callable[[str], None],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            arrived: called with a member that has started, and its life.
            timeout_s: seconds without any progress after which a member is taken for dead.
            tell: hears of what went wrong.
            say: hears of what else happens to members.
        """
        self._make = engines
        self._arrived = arrived
        self._timeout_s = timeout_s
        self._tell, self._say = tell, say
        self._clock = clock
        self.fleet = Fleet(clock, self._moved)
        self.engines: dict[int, Engine] = {}
        """Id of a member → its engine."""
        self._busy: set[int] = set()
        self.asleep = False
        """Whether engines have left their GPUs to others. None starts meanwhile, and none has to get on."""
        self.failure: BaseException | None = None
        """What ended the service: whoever waits for a member hears it."""
        self._signs: dict[int, _Signs] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        """Id of a member → its start, or its end."""
        self._others: set[asyncio.Task[Any]] = set()
        self._adding: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._change = asyncio.Event()

    # --- Start and end

    async def begin(self, count: int) -> None:
        """Start the first engines. Raises InputError or ServiceError where one does not start; nothing is left then."""
        self.fleet.wanted = count
        try:
            groups = await self._make.reserve(count, count)
            members = [self.fleet.add() for _ in groups]
            for member, group in zip(members, groups, strict=True):
                self.engines[member.id] = self._make.create(member.id, group)
            async with asyncio.TaskGroup() as starts:
                for member in members:
                    starts.create_task(self._make.start(self.engines[member.id]))
        except BaseException as problem:
            await self._make.end(list(self.engines.values()))
            if isinstance(problem, BaseExceptionGroup):
                raise problem.exceptions[0] from None
            raise
        for member in members:
            self.fleet.started(member, member.life)
            self.fleet.serves(member, member.life)
        self._task = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """End the task and all engines."""
        tasks = [task for task in (self._task, self._adding, *self._tasks.values(), *self._others) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._make.end(list(self.engines.values()))

    # --- For whoever works with members

    async def changed(self, timeout_s: float) -> None:
        """Wait until something has happened to a member, for a bounded time."""
        change = self._change
        try:
            async with asyncio.timeout(timeout_s):
                await change.wait()
        except TimeoutError:
            pass

    def notice(self) -> None:
        """Something has happened."""
        self._change.set()
        self._change = asyncio.Event()

    async def while_it_lives(self, member: Member, call: Awaitable[Any]) -> Any:
        """What a member answers.

        Raises:
            EndedError: its life ended, or it leaves, before it has.
        """
        work = asyncio.ensure_future(call)
        signs = self._signs.get(member.id)
        if signs is None:
            work.cancel()
            raise EndedError(f"rollout replica {member.id} is {member.state.value}: {member.reason}")
        try:
            await asyncio.wait({work, signs.end}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise signs.end.result()
            return work.result()
        finally:
            if not work.done():
                work.cancel()
                work.add_done_callback(lambda done: done.cancelled() or done.exception())

    @contextmanager
    def without_probes(self, members: Iterable[Member]) -> Iterator[None]:
        """Members are in a call that has a limit of its own, such as a load: their silence means nothing."""
        busy = {member.id for member in members}
        self._busy |= busy
        try:
            yield
        finally:
            self._busy -= busy

    async def judge(self, member: Member, life: int, problem: ServiceError) -> bool:
        """What a failed call says of its member. Whether the call may have been at fault: the engine answers, or died of it."""
        if is_away(problem):
            self.fleet.unanswered(member, life, str(problem))
            self.notice()
            return False
        if is_gone(problem):
            self.put_down(member, life, problem, end=False)
            return False
        engine = self.engines[member.id]
        asked = asyncio.ensure_future(within(engine.actor.version.remote(), self._timeout_s, f"replica {member.id}"))
        done, _ = await asyncio.wait({asked}, timeout=PROBE_S)
        if not done:
            asked.cancel()
            self.fleet.unanswered(member, life, f"no answer within {PROBE_S:.0f} s")
        elif isinstance(fault := asked.exception(), ServiceError):
            if is_away(fault):
                self.fleet.unanswered(member, life, str(fault))
            else:
                self.put_down(member, life, problem, end=not is_gone(fault), of_work=not is_gone(fault))
        return True

    def put_down(
        self, member: Member, life: int, reason: BaseException | str, *, end: bool, of_work: bool = False
    ) -> None:
        """A member is dead.

        Args:
            end: its process may be there still, and must not go on.
            of_work: what it was asked for may be at fault.
        """
        preempted = isinstance(reason, BaseException) and is_preempted(reason)
        if not self.fleet.died(member, life, str(reason), preempted=preempted):
            return
        self._end_life(member, EndedError(f"rollout replica {member.id} is dead: {member.reason}", of_work=of_work))
        if end:
            self._make.put_down(self.engines[member.id])

    async def scale(self, count: int) -> None:
        """Want another number of members.

        Raises:
            InputError: the cluster has no place for more; as many are wanted as before.
        """
        if not self._make.can_change:
            raise InputError(f"rollout = {count}: engines that share GPUs with ranks (rollout.share_gpus) stay as many")
        before, self.fleet.wanted = self.fleet.wanted, count
        self._balance()
        if self._adding:
            adding = self._adding
            done, _ = await asyncio.wait({adding}, timeout=PLACE_S)
            if done and isinstance(problem := adding.exception(), InputError):
                self.fleet.wanted = min(before, count)
                raise problem

    # --- The task

    async def _keep(self) -> None:
        try:
            while True:
                self._balance()
                for member in self.fleet.in_state(*UP):
                    self._look_at(member)
                await self.changed(TICK_S)
                await asyncio.sleep(REST_S)  # every group is a change
        except Exception as problem:
            self.failure = problem
            self.notice()
            raise

    def _balance(self) -> None:
        """Start what is dead or missing, see off what is too many."""
        for member in self.fleet.surplus():
            self.fleet.leave(member)
            if task := self._tasks.pop(member.id, None):
                task.cancel()
            self._do(member, self._see_off(member))
        for member in self.fleet.due():
            if not self.asleep and member.id not in self._tasks:
                self._do(member, self._start(member, self.fleet.restart(member)))
        missing = self.fleet.wanted - len(self.fleet.staying)
        if missing > 0 and self._adding is None:
            self._adding = asyncio.create_task(self._add(missing))
            self._adding.add_done_callback(self._added)

    def _do(self, member: Member, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[member.id] = asyncio.create_task(work)

        def done(task: asyncio.Task[None]) -> None:
            if self._tasks.get(member.id) is task:
                del self._tasks[member.id]
            if not task.cancelled() and (problem := task.exception()):
                self.failure = self.failure or problem
            self.notice()

        task.add_done_callback(done)

    async def _add(self, count: int) -> None:
        for group in await self._make.reserve(count, self.fleet.wanted):
            member = self.fleet.add()
            self.engines[member.id] = self._make.create(member.id, group)
            self._say(f"rollout replica {member.id}: {member.state.value}")
            self._do(member, self._start(member, member.life))

    def _added(self, task: asyncio.Task[None]) -> None:
        self._adding = None
        if not task.cancelled() and (problem := task.exception()):
            self.fleet.wanted = len(self.fleet.staying)
            self._tell(f"no place for more engines, {self.fleet.wanted} stay: {problem}")
        self.notice()

    async def _start(self, member: Member, life: int) -> None:
        try:
            await self._make.start(self.engines[member.id])
        except (ServiceError, InputError) as problem:
            self.put_down(member, life, problem, end=not (is_gone(problem) or is_away(problem)))
            return
        if self.fleet.started(member, life):
            await self._arrived(member, life)

    async def _see_off(self, member: Member) -> None:
        until = self._clock() + LEAVE_S
        while member.outstanding and (left := until - self._clock()) > 0 and member.id in self._signs:
            await self.changed(left)
        self._end_life(member, EndedError(f"rollout replica {member.id} leaves", leaves=True))
        while member.outstanding:  # whoever waited for it lets go
            await self.changed(TICK_S)
        await self._make.end([self.engines[member.id]])
        self.fleet.retire(member)
        del self.engines[member.id]

    # --- Probes

    def _look_at(self, member: Member) -> None:
        signs, now = self._signs[member.id], self._clock()
        every = TICK_S if member.state is State.SUSPECT else min(PROBE_EVERY_S, self._timeout_s / 4)
        if now - signs.probed < every:
            return
        signs.probed = now
        task = asyncio.create_task(self._probe(member, member.life, signs))
        self._others.add(task)
        task.add_done_callback(self._probed)

    def _probed(self, task: asyncio.Task[None]) -> None:
        self._others.discard(task)
        if not task.cancelled() and (problem := task.exception()):
            self.failure = self.failure or problem
            self.notice()

    async def _probe(self, member: Member, life: int, signs: _Signs) -> None:
        engine = self.engines[member.id]
        limit = min(PROBE_S, self._timeout_s)
        try:
            process, tokens = await within(engine.actor.alive.remote(), limit, f"replica {member.id} to answer a probe")
        except ServiceError as problem:
            if is_gone(problem):
                self.put_down(member, life, problem, end=False)
            elif not self._excused(member):
                self.fleet.unanswered(member, life, str(problem))
                self._judge_silence(member, life, signs)
            return
        if process != engine.process:
            self.put_down(member, life, "its process ended, and Ray has started another", end=False)
            return
        now = self._clock()
        if tokens != signs.tokens or not member.outstanding:
            signs.moved = now
        if tokens != signs.tokens:
            signs.tokens, signs.heard = tokens, now
        self._hear_core(member, life, signs)
        if signs.core is None or now - signs.asked < limit or self._excused(member):
            self.fleet.answered(member, life)
        else:
            self.fleet.unanswered(member, life, f"its engine has not answered for {now - signs.asked:.0f} s")
        self._judge_silence(member, life, signs)

    def _hear_core(self, member: Member, life: int, signs: _Signs) -> None:
        """Ask the engine's core, or see what it has answered."""
        if signs.core is not None and signs.core.done():
            problem = None if signs.core.cancelled() else signs.core.exception()
            if problem is None:
                signs.heard = self._clock()
            elif isinstance(problem, ServiceError) and not is_away(problem):
                self.put_down(member, life, problem, end=not is_gone(problem), of_work=not is_gone(problem))
            signs.core = None
        if signs.core is None and member.life == life and member.state in UP:
            call = self.engines[member.id].actor.version.remote()
            signs.core = asyncio.ensure_future(within(call, None, f"replica {member.id} to answer"))
            signs.core.add_done_callback(lambda done: done.cancelled() or done.exception())
            signs.asked = self._clock()

    def _excused(self, member: Member) -> bool:
        return self.asleep or member.id in self._busy

    def _judge_silence(self, member: Member, life: int, signs: _Signs) -> None:
        """Whether a member has been silent, or has not got on, for too long. A long queue is neither: its tokens come."""
        now = self._clock()
        if self._excused(member):
            signs.heard = signs.moved = now
        elif now - signs.heard > self._timeout_s:
            reason = f"it has said nothing for {now - signs.heard:.0f} s (rollout.timeout_s)"
            self.put_down(member, life, reason, end=True, of_work=True)
        elif now - signs.moved > self._timeout_s:
            reason = f"it has finished no token for {now - signs.moved:.0f} s (rollout.timeout_s)"
            self.put_down(member, life, reason, end=True, of_work=True)

    # --- Changes of state

    def _moved(self, member: Member, before: State) -> None:
        """A member has changed its state."""
        if before is State.STARTING and member.state in UP:
            now, loop = self._clock(), asyncio.get_running_loop()
            self._signs[member.id] = _Signs(loop.create_future(), probed=now, heard=now, moved=now)
        if member.state is State.DEAD:
            serving, wait = len(self.fleet.serving), max(0.0, member.start_at - self._clock())
            when = f"in {wait:.0f} s" if wait else "at once"
            self._tell(
                f"rollout replica {member.id}: {before.value} → dead, {serving} of {self.fleet.wanted} serve; "
                f"it starts again {when}: {member.reason}"
            )
        elif member.state is State.SUSPECT:
            self._tell(f"rollout replica {member.id}: {before.value} → suspect: {member.reason}")
        elif self._task:
            self._say(f"rollout replica {member.id}: {before.value} → {member.state.value}")
        self.notice()

    def _end_life(self, member: Member, end: EndedError) -> None:
        """Whoever waits for a member hears that it will not answer."""
        signs = self._signs.pop(member.id, None)
        if signs is not None:
            signs.end.set_result(end)
            if signs.core:
                signs.core.cancel()
