"""Figures of packs and ranks put together."""

import math
from typing import Any

from learner.stats import RankStats, is_extreme, merge_figures, train_stats


def test_sums_minima_and_maxima() -> None:
    parts = [{"count": 2, "kl": -1.0, "ratio_min": 0.5, "ratio_max": 2.0}, {"count": 3, "kl": 0.25, "ratio_min": 0.75}]
    assert merge_figures(parts) == {"count": 5, "kl": -0.75, "ratio_min": 0.5, "ratio_max": 2.0}
    assert merge_figures([]) == {}


def test_the_empty_pack_does_not_move_an_extreme() -> None:
    assert merge_figures([{"ratio_min": math.inf, "gap_max": 0}, {"ratio_min": 1.5, "gap_max": 0.1}]) == {
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


def rank_stats(**changes: Any) -> RankStats:
    settings: dict[str, Any] = {
        "figures": {"count": 2, "kl": 0.5, "ratio_min": 0.5, "ratio_max": 2.0},
        "parts": {"policy": 0.25, "kl": 0.5},
        "grad_norm": 3.0,
        "lr": 1e-3,
        "seconds": 2.0,
        "optimizer_steps": 7,
        "model_flops": 10.0,
        "peak_flops": 20.0,
        "memory_peak": 100,
    }
    return RankStats(**(settings | changes))


def test_ranks_are_put_together_by_the_slowest_and_the_largest() -> None:
    other = rank_stats(figures={"count": 6, "kl": 1.5, "ratio_min": 0.25}, seconds=4.0, memory_peak=90)
    stats = train_stats([rank_stats(), other])
    assert stats.means == {"kl": 2.0 / 8}
    assert stats.extremes == {"ratio_min": 0.25, "ratio_max": 2.0}
    assert (stats.count, stats.parts, stats.loss) == (8, {"policy": 0.5, "kl": 1.0}, 1.5)
    assert (stats.grad_norm, stats.lr, stats.optimizer_steps) == (3.0, 1e-3, 7)
    assert (stats.seconds, stats.memory_peak) == (4.0, 100)
    assert stats.mfu == (10 + 10) / 4 / (20 + 20)


def test_a_batch_of_which_nothing_trained_has_no_means() -> None:
    stats = train_stats([rank_stats(figures={}, parts={})])
    assert (stats.means, stats.extremes, stats.count, stats.loss) == ({}, {}, 0, 0)


def test_a_batch_of_empty_packs_has_no_means_and_no_extremes() -> None:
    nothing = {"count": 0.0, "kl": 0.0, "ratio_min": float("inf"), "ratio_max": 0.0}
    stats = train_stats([rank_stats(figures=nothing, parts={"policy": 0.0})] * 2)
    assert (stats.means, stats.extremes, stats.count, stats.loss, stats.parts) == ({}, {}, 0, 0, {"policy": 0})
