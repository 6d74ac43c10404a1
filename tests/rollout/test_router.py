"""The least busy of those that serve."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.errors import ServiceError
from rollout.router import Health, Router


def test_the_least_outstanding_tokens_win_and_ties_go_to_the_first() -> None:
    router = Router(3)
    assert [router.acquire(tokens) for tokens in (10, 20, 5, 1)] == [0, 1, 2, 2]
    assert router.outstanding == (10, 20, 6)
    router.release(1, 20)
    assert router.acquire(1) == 1


def test_the_dead_get_no_work_until_they_serve_again() -> None:
    router = Router(2)
    router.mark(0, Health.DEAD)
    assert router.serving == (1,)
    assert [router.acquire(100) for _ in range(3)] == [1, 1, 1]
    router.mark(0, Health.SERVING)
    assert router.serving == (0, 1)
    assert router.acquire(1) == 0


def test_work_of_a_replica_that_died_is_released_too() -> None:
    router = Router(2)
    index = router.acquire(7)
    router.mark(index, Health.DEAD)
    router.release(index, 7)
    assert router.outstanding == (0, 0)


def test_who_was_tried_comes_after_all_others() -> None:
    router = Router(3)
    router.acquire(100)
    assert router.acquire(1, tried={1, 2}) == 0, "busier, but not tried"
    router.mark(0, Health.DEAD)
    assert router.acquire(1, tried={1}) == 2
    assert router.acquire(1, tried={1, 2}) == 1, "all were tried: the least busy"


@pytest.mark.parametrize("replicas", [1, 3])
def test_nobody_serving_is_an_error_that_says_so(replicas: int) -> None:
    router = Router(replicas)
    for index in range(replicas):
        router.mark(index, Health.DEAD)
    with pytest.raises(ServiceError, match=f"none of the {replicas} rollout replicas is serving"):
        router.acquire(1)
    assert router.outstanding == (0,) * replicas


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(1, 4), st.lists(st.tuples(st.booleans(), st.integers(1, 50))))
def test_the_load_stays_balanced_and_ends_at_zero(replicas: int, events: list[tuple[bool, int]]) -> None:
    router = Router(replicas)
    open_work: list[tuple[int, int]] = []
    for done, tokens in events:
        if done and open_work:
            router.release(*open_work.pop(0))
        else:
            before = router.outstanding
            index = router.acquire(tokens)
            assert before[index] == min(before)
            open_work.append((index, tokens))
    assert sum(router.outstanding) == sum(tokens for _, tokens in open_work)
    for index, tokens in open_work:
        router.release(index, tokens)
    assert router.outstanding == (0,) * replicas
