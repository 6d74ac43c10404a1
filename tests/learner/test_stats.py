"""Figures of packs and ranks put together."""

import math

from learner.tally import is_extreme, merged


def test_sums_minima_and_maxima() -> None:
    parts = [{"count": 2, "kl": -1.0, "ratio_min": 0.5, "ratio_max": 2.0}, {"count": 3, "kl": 0.25, "ratio_min": 0.75}]
    assert merged(parts) == {"count": 5, "kl": -0.75, "ratio_min": 0.5, "ratio_max": 2.0}
    assert merged([]) == {}


def test_the_empty_pack_does_not_move_an_extreme() -> None:
    assert merged([{"ratio_min": math.inf, "gap_max": 0}, {"ratio_min": 1.5, "gap_max": 0.1}]) == {
        "ratio_min": 1.5,
        "gap_max": 0.1,
    }


def test_only_names_say_what_an_extreme_is() -> None:
    assert [is_extreme(name) for name in ("ratio_min", "ratio_max", "ratio", "min", "maximum")] == [
        True,
        True,
        False,
        False,
        False,
    ]
