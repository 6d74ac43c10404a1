"""Members by their states: who gets work, who is dead for how long, and what a life that is over may still say."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.fleet import BLAMED, FIRST_WAIT_S, LONGEST_WAIT_S, SETTLED_S, Fleet, Member, State


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def fleet_of(count: int, clock: Clock | None = None) -> tuple[Fleet, list[Member]]:
    """Members that serve."""
    fleet = Fleet(clock or Clock())
    fleet.wanted = count
    members = [fleet.add() for _ in range(count)]
    for member in members:
        up(fleet, member)
    return fleet, members


def up(fleet: Fleet, member: Member) -> None:
    assert fleet.started(member, member.life)
    assert fleet.serves(member, member.life)


def taken(fleet: Fleet, *work: int) -> list[int]:
    return [member.id for tokens in work if (member := fleet.acquire(tokens))]


# --- Routing


def test_the_least_outstanding_tokens_win_and_ties_go_to_the_first() -> None:
    fleet, members = fleet_of(3)
    assert taken(fleet, 10, 20, 5, 1) == [0, 1, 2, 2]
    fleet.release(members[1], 20)
    assert taken(fleet, 1) == [1]


def test_nobody_who_does_not_serve_gets_work() -> None:
    fleet, members = fleet_of(7)
    fleet.unanswered(members[0], 1, "silent")
    fleet.died(members[1], 1, "gone")
    fleet.leave(members[2])
    fleet.outdate(members[:3] + members[4:])
    assert fleet.serving == (4, 5, 6)
    assert set(taken(fleet, *[9] * 12)) == {4, 5, 6}
    for member in members[4:]:
        fleet.died(member, 1, "gone")
    assert fleet.acquire(9) is None


def test_who_was_tried_comes_after_all_others() -> None:
    fleet, members = fleet_of(3)
    members[0].outstanding = 100
    assert fleet.acquire(1, tried={1, 2}) is members[0], "busier, but not tried"
    fleet.died(members[0], 1, "gone")
    assert fleet.acquire(1, tried={1}) is members[2]
    assert fleet.acquire(1, tried={1, 2}) is members[1], "all were tried: the least busy"


def simulated(speeds: list[float], seconds: float) -> list[int]:
    """Groups that members of such speeds complete, when there are always 40 in flight: each computes those it has in turns."""
    clock = Clock()
    fleet, members = fleet_of(len(speeds), clock)
    done = [0] * len(speeds)
    flight: list[tuple[Member, float, float]] = []
    while clock.now < 1000 + seconds:
        while len(flight) < 40:
            member = fleet.acquire(100)
            assert member is not None
            flight.append((member, clock.now, 100.0))
        clock.now += 0.1
        shares = [max(1, sum(one is member for one, *_ in flight)) for member in members]
        flight = [(m, began, left - 0.1 * speeds[m.id] / shares[m.id]) for m, began, left in flight]
        for member, began, left in flight:
            if left <= 0:
                fleet.release(member, 100)
                fleet.completed(member, 100, clock.now - began)
                done[member.id] += 1
        flight = [one for one in flight if one[2] > 0]
    return done


def test_a_slow_member_gets_less_and_the_others_do_not_wait_for_it() -> None:
    equal, one_slow = simulated([1000.0] * 4, 60), simulated([1000.0] * 3 + [100.0], 60)
    assert max(equal) < 1.1 * min(equal)
    assert one_slow[3] < 0.2 * one_slow[0]
    assert sum(one_slow) > 0.93 * (3.1 / 4) * sum(equal), "nearly all that three and a tenth can do"


def test_a_member_whose_speed_is_not_known_counts_as_the_others_mean() -> None:
    fleet, (fast, slow, new) = fleet_of(3)
    fleet.completed(fast, 1000, 1.0)
    fleet.completed(slow, 100, 1.0)
    fast.outstanding = slow.outstanding = new.outstanding = 500
    assert fleet.acquire(1) is fast
    fast.outstanding = 1000
    assert fleet.acquire(1) is new


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(1, 4), st.lists(st.tuples(st.booleans(), st.integers(1, 50))))
def test_the_load_stays_balanced_and_ends_at_zero(count: int, events: list[tuple[bool, int]]) -> None:
    fleet, members = fleet_of(count)
    open_work: list[tuple[Member, int]] = []
    for done, tokens in events:
        if done and open_work:
            fleet.release(*open_work.pop(0))
        else:
            least = min(member.outstanding for member in members)
            member = fleet.acquire(tokens)
            assert member is not None
            assert member.outstanding - tokens == least
            open_work.append((member, tokens))
    for member, tokens in open_work:
        fleet.release(member, tokens)
    assert [member.outstanding for member in members] == [0] * count


# --- Coming and going


def test_a_member_serves_only_what_is_current() -> None:
    fleet, (one, two) = fleet_of(2)
    fleet.outdate([one])
    assert (fleet.serving, two.state) == ((0,), State.STALE)
    fleet.unanswered(two, 1, "silent")
    fleet.answered(two, 1)
    assert two.state is State.STALE, "a suspect that missed a publish does not serve the old weights"
    fleet.serves(two, 1)
    assert fleet.serving == (0, 1)


def test_a_suspect_keeps_its_work_and_is_no_death() -> None:
    fleet, (one, _) = fleet_of(2)
    one.outstanding = 7
    assert fleet.unanswered(one, 1, "the actor is unavailable")
    assert not fleet.unanswered(one, 1, "again"), "nothing new"
    assert (one.state, one.outstanding, one.probe_failures, one.strikes) == (State.SUSPECT, 7, 2, 0)
    fleet.answered(one, 1)
    assert (one.state, one.life, one.probe_failures) == (State.HEALTHY, 1, 0)


def test_what_an_earlier_life_says_is_not_heard() -> None:
    fleet, (one,) = fleet_of(1)
    fleet.died(one, 1, "killed")
    assert fleet.restart(one) == 2
    assert not fleet.died(one, 1, "its last call failed too")
    assert not fleet.serves(one, 1)
    fleet.started(one, 2)
    assert not fleet.unanswered(one, 1, "late")
    assert not fleet.blame(one, 1)
    assert (one.state, one.strikes) == (State.STALE, 1)


def test_repeated_deaths_back_off_and_a_start_alone_forgives_none() -> None:
    clock = Clock()
    fleet, (one,) = fleet_of(1, clock)
    waits = []
    for _ in range(14):
        fleet.died(one, one.life, "killed")
        waits.append(one.start_at - clock.now)
        if waits[-1]:
            clock.now = one.start_at - 0.001
            assert fleet.due() == []
        clock.now = one.start_at
        (due,) = fleet.due()
        fleet.restart(due)
        up(fleet, due)
        clock.now += SETTLED_S / 10
    assert waits[:4] == [0.0, FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S]
    assert waits[-1] == LONGEST_WAIT_S


def test_service_for_a_while_forgives_and_so_does_a_node_that_was_taken_away() -> None:
    clock = Clock()
    fleet, (one,) = fleet_of(1, clock)
    for _ in range(3):
        fleet.died(one, one.life, "killed")
        fleet.restart(one)
    up(fleet, one)
    fleet.died(one, one.life, "its node was taken away", preempted=True)
    assert (one.strikes, one.start_at) == (3, clock.now), "no back-off, and nothing forgotten"
    fleet.restart(one)
    up(fleet, one)
    fleet.unanswered(one, one.life, "a moment")
    fleet.answered(one, one.life)
    clock.now += SETTLED_S
    fleet.died(one, one.life, "killed")
    assert (one.strikes, one.start_at) == (1, clock.now)


def test_a_start_that_fails_is_a_death() -> None:
    fleet = Fleet(Clock())
    one = fleet.add()
    assert fleet.died(one, 1, "no model")
    assert (one.state, one.strikes, one.reason) == (State.DEAD, 1, "no model")


def test_a_member_is_to_blame_only_for_what_others_can_do_again_and_again() -> None:
    fleet, (one, _) = fleet_of(2)
    for _ in range(BLAMED - 1):
        assert not fleet.blame(one, 1)
    fleet.completed(one, 10, 1.0)
    assert [fleet.blame(one, 1) for _ in range(BLAMED)] == [False] * (BLAMED - 1) + [True]
    assert one.probe_failures == 0, "probes are another matter"


def test_the_epoch_goes_up_whenever_others_serve_and_only_then() -> None:
    clock = Clock()
    fleet, (one, two) = fleet_of(2, clock)
    epochs = [fleet.epoch]
    for change in (
        lambda: fleet.acquire(5),
        lambda: fleet.unanswered(one, 1, "silent"),
        lambda: fleet.died(one, 1, "gone"),
        lambda: fleet.restart(one),
        lambda: fleet.started(one, 2),
        lambda: fleet.serves(one, 2),
        lambda: fleet.leave(two),
    ):
        change()
        epochs.append(fleet.epoch)
    assert [after - before for before, after in pairwise(epochs)] == [0, 1, 0, 0, 0, 1, 1]


def test_the_time_without_service_begins_when_the_last_one_stops() -> None:
    clock = Clock()
    fleet, (one, two) = fleet_of(2, clock)
    clock.now += 10
    fleet.died(one, 1, "gone")
    clock.now += 10
    fleet.unanswered(two, 1, "silent")
    assert fleet.unserved_since == clock.now


# --- How many


def test_those_that_serve_nothing_leave_first_then_the_newest() -> None:
    fleet, members = fleet_of(4)
    fleet.died(members[1], 1, "gone")
    fleet.wanted = 2
    assert fleet.surplus() == [members[3], members[1]]
    for member in fleet.surplus():
        fleet.leave(member)
    assert (fleet.surplus(), fleet.serving) == ([], (0, 2))
    fleet.retire(members[3])
    assert (members[3].state, 3 in fleet, len(fleet.staying)) == (State.RETIRED, False, 2)
    fleet.wanted = 3
    assert fleet.add().id == 4, "nobody is called what another was called"


def test_a_member_that_leaves_does_not_start_again() -> None:
    fleet, (one,) = fleet_of(1)
    fleet.leave(one)
    assert fleet.died(one, 1, "killed as it left")
    assert (one.state, fleet.due()) == (State.LEAVING, [])


@pytest.mark.parametrize("state", [State.STARTING, State.STALE, State.HEALTHY, State.SUSPECT, State.DEAD])
def test_a_member_may_leave_in_every_state(state: State) -> None:
    fleet = Fleet(Clock())
    one = fleet.add()
    if state is not State.STARTING:
        fleet.started(one, 1)
    if state is State.HEALTHY:
        fleet.serves(one, 1)
    if state is State.SUSPECT:
        fleet.unanswered(one, 1, "silent")
    if state is State.DEAD:
        fleet.died(one, 1, "gone")
    assert one.state is state
    fleet.leave(one)
    assert one.state is State.LEAVING
