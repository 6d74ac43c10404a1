"""Bootstrap and paired tests against numbers worked by hand and against theory."""

import numpy as np
import pytest

from orchestrator.results.bootstrap import estimate, over_runs, resampled_means
from orchestrator.results.paired import bootstrap_p, difference, is_binary, sign_test


@pytest.mark.parametrize(
    ("more", "less", "p"),
    [
        (9, 1, 2 * (1 + 10) / 1024),
        (1, 9, 2 * (1 + 10) / 1024),
        (5, 0, 2 / 32),
        (3, 3, 1.0),
        (0, 0, 1.0),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
    ],
)
def test_the_sign_test(more: int, less: int, p: float) -> None:
    assert sign_test(more, less) == pytest.approx(p)


def test_a_bootstrap_p_counts_the_smaller_side_twice() -> None:
    assert bootstrap_p(np.array([-1.0] + [1.0] * 8)) == pytest.approx(2 * (1 + 1) / (9 + 1))
    assert bootstrap_p(np.ones(99)) == pytest.approx(2 / 100)
    assert bootstrap_p(np.zeros(10)) == 1.0


def test_the_interval_of_a_share_is_that_of_theory() -> None:
    values = np.array([[0.0, 1.0] * 200])
    found = estimate(0.5, resampled_means(values)[0])
    half = 1.96 * (0.25 / 400) ** 0.5
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.004)


def test_all_rows_draw_the_same_problems() -> None:
    rng = np.random.default_rng(3)
    values = rng.random((1, 50))
    means = resampled_means(np.concatenate([values, 1 - values, values]))
    assert np.array_equal(means[0], means[2])
    assert np.allclose(means[0] + means[1], 1)
    assert np.array_equal(means, resampled_means(np.concatenate([values, 1 - values, values])))
    assert not np.array_equal(means[:1], resampled_means(values, seed=1))


def test_a_problem_without_a_value_is_in_no_mean() -> None:
    means = resampled_means(np.array([[1.0, 1.0, np.nan, np.nan]]), resamples=200)
    assert set(means[~np.isnan(means)]) == {1.0}


def test_runs_that_differ_widen_the_interval() -> None:
    alike, apart = np.tile(np.linspace(0.4, 0.6, 500), (3, 1)), np.linspace(0.3, 0.7, 3)[:, None] * np.ones(500)
    spread = [np.ptp(over_runs(means, seed=1)) for means in (alike, apart)]
    assert spread[1] > 1.5 * spread[0]
    assert set(np.round(over_runs(apart, seed=1), 3)) >= {0.3, 0.5, 0.7}


def right(*problems: int) -> np.ndarray:
    return np.array([problems], dtype=float)


def test_right_and_wrong_of_one_run_each_is_an_exact_test() -> None:
    a, b = right(0, 0, 0, 0, 0, 0, 1, 1, 1, 0), right(1, 1, 1, 1, 1, 1, 1, 1, 0, 0)
    drawn = resampled_means(np.concatenate([a, b]))
    found = difference(a, b, drawn[:1].mean(axis=0), drawn[1], exact=is_binary(a, b))
    assert (found.more, found.less, found.test) == (6, 1, "exact")
    assert found.p == pytest.approx(2 * (1 + 7) / 128)
    assert found.estimate.value == pytest.approx(0.5)
    assert not found.sure


def test_shares_and_several_runs_are_bootstrapped() -> None:
    assert is_binary(right(0, 1), np.array([[1.0, np.nan]]))
    assert not is_binary(right(0, 1), np.array([[0.5, 1.0]]))
    assert not is_binary(right(0, 1), np.ones((2, 2)))


def test_pairing_tells_what_two_intervals_do_not() -> None:
    """Problems differ much in difficulty, and B is a little better on each."""
    hard = np.random.default_rng(5).random(200)[None]
    a, b = 0.8 * hard, 0.8 * hard + 0.02
    drawn = resampled_means(np.concatenate([a, b]))
    found = difference(a, b, drawn[0], drawn[1])
    assert estimate(0.0, drawn[0]).high > estimate(0.0, drawn[1]).low  # the two intervals overlap
    assert found.sure
    assert (found.more, found.less) == (200, 0)
    assert (found.estimate.low, found.estimate.high) == pytest.approx((0.02, 0.02))


def test_no_difference_is_found_where_there_is_none() -> None:
    """Of 200 pairs of equal models about one in twenty is told apart, and not many more."""
    rng = np.random.default_rng(11)
    sure = 0
    for trial in range(200):
        chance = rng.random(60)
        a, b = ((rng.binomial(4, chance) / 4)[None] for _ in range(2))
        drawn = resampled_means(np.concatenate([a, b]), seed=trial, resamples=400)
        sure += difference(a, b, drawn[0], drawn[1]).sure
    assert 2 <= sure <= 20
