"""Who of a service's members is asked for work: their states, who gets the next piece, and when a dead one starts again.

    STARTING ──▶ STALE ──▶ HEALTHY ⇄ SUSPECT          any of these ──▶ DEAD ── back-off ──▶ STARTING
                                                      any of these ──▶ LEAVING ──▶ RETIRED

Plain Python: no Ray, and a clock that is given. A member lives several lives, one after each start; what is said of an
earlier life than the present one is not heard.
"""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

FIRST_WAIT_S = 5.0
"""Back-off after the second death in a row; after the first there is none, and every further one doubles it."""
LONGEST_WAIT_S = 1800.0
"""Longest back-off."""
SETTLED_S = 300.0
"""Seconds of service after which earlier deaths are forgotten. A start alone clears nothing: it may die of the next request."""
BLAMED = 3
"""Requests in a row that a member failed and another one completed, after which it is the member that is at fault."""
NEWEST = 0.2
"""Weight of the newest figure in a measured speed."""


class State(Enum):
    """State of a member, by the word that users read."""

    STARTING = "starting"
    STALE = "stale"
    """Up, and not yet given the current weights: it serves nothing."""
    HEALTHY = "serving"
    SUSPECT = "suspect"
    """Does not answer at the moment: it gets nothing new, keeps what it has, and may come back."""
    DEAD = "dead"
    LEAVING = "leaving"
    """Gets nothing new, and ends once it has finished or handed back what it has."""
    RETIRED = "retired"


UP = (State.STALE, State.HEALTHY, State.SUSPECT)
"""States of a member whose process is there."""


@dataclass(eq=False, slots=True, kw_only=True)
class Member:
    """One member. `Fleet` alone writes to it."""

    id: int
    """Never given to another member of the same fleet."""
    state: State = State.STARTING
    since: float = 0.0
    """Time at which it came into this state."""
    life: int = 1
    """Number of its starts."""
    outstanding: int = 0
    """Work that it owes at most; engines count it in tokens."""
    speed: float = 0.0
    """Work a second of one request, queue included, as measured lately; 0: not known."""
    strikes: int = 0
    """Deaths in a row, without a longer time of service between."""
    probe_failures: int = 0
    """Probes in a row without an answer."""
    request_failures: int = 0
    """Requests in a row that it failed and another member completed."""
    served_since: float = 0.0
    """Time since which it has served in this life."""
    start_at: float = 0.0
    """Time of the next start; of use while it is dead."""
    current: bool = False
    """Whether it holds what the service is to serve with now."""
    reason: str = ""
    """Why it is dead or suspect."""


class Fleet:
    """Members by id, routing, and back-off. Used from one event loop."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        moved: Callable[[Member, State], None] = lambda *_: None,
    ) -> None:
        """`moved`: called with a member that has changed its state, and the state before."""
        self._clock = clock
        self._moved = moved
        self._members: dict[int, Member] = {}
        self._next_id = 0
        self.wanted = 0
        """Members that there should be; those that leave do not count."""
        self.epoch = 0
        """Goes up whenever the set of serving members changes."""
        self.unserved_since = clock()
        """Time since which no member serves; of use while none does."""

    # --- Who is there

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._members.values()))

    def __getitem__(self, member: int) -> Member:
        return self._members[member]

    def __contains__(self, member: int) -> bool:
        return member in self._members

    @property
    def staying(self) -> list[Member]:
        """Members that are not leaving, whatever their state."""
        return [member for member in self._members.values() if member.state is not State.LEAVING]

    @property
    def serving(self) -> tuple[int, ...]:
        """Ids of the members that get work, in order."""
        return tuple(member.id for member in self._members.values() if member.state is State.HEALTHY)

    def in_state(self, *states: State) -> list[Member]:
        return [member for member in self._members.values() if member.state in states]

    # --- Work

    def acquire(self, work: int, tried: Collection[int] = ()) -> Member | None:
        """The serving member that would be done first, now charged with `work` more; None: none serves.

        What a member owes is weighed by its measured speed, so a slow one gets less. One whose speed is not known counts as
        the others' mean.

        Args:
            tried: ids of members to be taken only where no other serves.
        """
        serving = self.in_state(State.HEALTHY)
        if not serving:
            return None
        known = [member.speed for member in serving if member.speed]
        usual = sum(known) / len(known) if known else 1.0

        def cost(member: Member) -> tuple[bool, float, int]:
            return member.id in tried, (member.outstanding + work) / (member.speed or usual), member.id

        member = min(serving, key=cost)
        member.outstanding += work
        return member

    def release(self, member: Member, work: int) -> None:
        """Work charged by `acquire` is done or lost."""
        member.outstanding -= work

    @contextmanager
    def charged(self, member: Member, work: int) -> Iterator[None]:
        """Work that one given member is asked for, outside of routing."""
        member.outstanding += work
        try:
            yield
        finally:
            self.release(member, work)

    def completed(self, member: Member, work: int, seconds: float) -> None:
        """A member has completed a request: its failures before are forgiven, and its speed is measured."""
        member.request_failures = 0
        if seconds > 0:
            speed = work / seconds
            member.speed = speed if not member.speed else (1 - NEWEST) * member.speed + NEWEST * speed

    def blame(self, member: Member, life: int) -> bool:
        """A member failed a request that another one then completed. Whether that makes it unfit to serve."""
        if member.life != life or member.state not in UP:
            return False
        member.request_failures += 1
        return member.request_failures >= BLAMED

    # --- Coming

    def add(self) -> Member:
        """A new member, STARTING."""
        member = Member(id=self._next_id, since=self._clock())
        self._next_id += 1
        self._members[member.id] = member
        return member

    def started(self, member: Member, life: int) -> bool:
        """Its process is up: STALE, until it `serves`. False: not heard, as below wherever a `life` is asked for."""
        return self._move(member, life, State.STALE, State.STARTING)

    def serves(self, member: Member, life: int) -> bool:
        """It holds what is current, and answers: from now on it gets work."""
        if member.life == life:
            member.current = True
        return self._move(member, life, State.HEALTHY, State.STALE)

    def outdate(self, but: Collection[Member]) -> None:
        """What the service serves with has changed; `but` these hold it already. Others serve no more until they do."""
        for member in self:
            if member not in but:
                member.current = False
                if member.state is State.HEALTHY:
                    self._move(member, member.life, State.STALE, State.HEALTHY)

    # --- Going

    def unanswered(self, member: Member, life: int, reason: str) -> bool:
        """A probe, or a request, did not reach it, which may pass: SUSPECT. Whether it was serving until now."""
        if member.life == life and member.state in UP:
            member.probe_failures += 1
            member.reason = reason
        return self._move(member, life, State.SUSPECT, State.HEALTHY, State.STALE)

    def answered(self, member: Member, life: int) -> None:
        """A probe was answered: a suspect is one no more."""
        if member.life == life:
            member.probe_failures = 0
            self._move(member, life, State.HEALTHY if member.current else State.STALE, State.SUSPECT)

    def died(self, member: Member, life: int, reason: str, *, preempted: bool = False) -> bool:
        """Its process is gone, or as good as gone.

        Args:
            preempted: its node was taken away, which is no fault of the member's and costs no back-off.
        """
        if member.life != life or member.state in (State.DEAD, State.RETIRED):
            return False
        now = self._clock()
        if member.served_since and now - member.served_since >= SETTLED_S:
            member.strikes = 0
        if not preempted:
            member.strikes += 1
        doubled = member.strikes - 2
        wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**doubled) if doubled >= 0 and not preempted else 0.0
        member.start_at = now + wait
        member.reason, member.current = reason, False
        if member.state is State.LEAVING:
            return True  # whoever sees it off ends it
        return self._move(member, life, State.DEAD, State.STARTING, *UP)

    def due(self) -> list[Member]:
        """Dead members whose back-off is over."""
        return [member for member in self.in_state(State.DEAD) if member.start_at <= self._clock()]

    def restart(self, member: Member) -> int:
        """A dead member starts again; returns the number of its new life."""
        member.life += 1
        member.speed, member.served_since = 0.0, 0.0
        member.probe_failures = member.request_failures = 0
        self._move(member, member.life, State.STARTING, State.DEAD)
        return member.life

    def surplus(self) -> list[Member]:
        """Members above those wanted: those that serve nothing first, then the newest."""
        staying = sorted(self.staying, key=lambda member: (member.state is not State.HEALTHY, member.id))
        return staying[self.wanted :]

    def leave(self, member: Member) -> None:
        """It gets nothing more, and goes when it has no more work."""
        self._move(member, member.life, State.LEAVING, State.STARTING, State.DEAD, *UP)

    def retire(self, member: Member) -> None:
        """It is gone for good."""
        self._move(member, member.life, State.RETIRED, State.LEAVING)
        del self._members[member.id]

    def _move(self, member: Member, life: int, state: State, *sources: State) -> bool:
        """Change a member's state, if it is still in this life and in one of these states."""
        if member.life != life or member.state not in sources:
            return False
        before, now = member.state, self._clock()
        member.state, member.since = state, now
        if State.HEALTHY in (before, state):
            self.epoch += 1
            if not self.serving:
                self.unserved_since = now
        if state is State.HEALTHY:
            member.served_since = member.served_since or now
            member.reason = ""
        self._moved(member, before)
        return True
