"""Where reward workers are placed."""

from collections import Counter

import pytest

from rewards.places import Host, place_of

GPUS = Host("gpus", 8, 4)
SMALL, LARGE = Host("small", 1, 0), Host("large", 2.5, 0)


def places(hosts: list[Host], count: int) -> list[str]:
    taken: Counter[str] = Counter()
    found = []
    for _ in range(count):
        found.append(place_of(hosts, taken))
        taken[found[-1]] += 1
    return found


@pytest.mark.parametrize("hosts", [[], [GPUS], [SMALL, LARGE], [GPUS, Host("more", 64, 8)]])
def test_hosts_of_one_kind_are_left_to_ray(hosts: list[Host]) -> None:
    assert places(hosts, 2) == ["", ""]


def test_hosts_without_gpus_fill_up_first() -> None:
    assert places([GPUS, SMALL, LARGE], 5) == ["large", "small", "large", "gpus", "gpus"]


def test_what_others_reserve_is_no_room() -> None:
    assert places([GPUS, Host("busy", 0.5, 0)], 2) == ["gpus", "gpus"]


def test_when_nobody_has_room_the_least_crowded_one_has_one_more() -> None:
    assert places([Host("gpus", 1, 1), SMALL], 4) == ["small", "gpus", "gpus", "small"]
