"""How numbers are put in words."""

import math

import pytest

from orchestrator.results.words import age, as_finite, decimal, duration, parameter_words, percent


@pytest.mark.parametrize("value", [None, "0.5", True, math.nan, math.inf, -math.inf, [1.0]])
def test_what_is_no_finite_number_is_a_dash(value: object) -> None:
    assert as_finite(value) is None
    assert percent(value) == decimal(value) == "–"


def test_shares_are_per_cent_and_numbers_have_the_digits_that_are_asked_for() -> None:
    assert (percent(0.7125), percent(1), percent(0.5, 0)) == ("71.2 %", "100.0 %", "50 %")
    assert (decimal(1250), decimal(0.69314, 3), decimal(8192, 0)) == ("1,250.0", "0.693", "8,192")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.04, "0.0 s"), (4.21, "4.2 s"), (9.94, "9.9 s"), (9.96, "10 s"), (34.4, "34 s"),
        (60, "1 min 00 s"), (125, "2 min 05 s"), (3599.6, "1 h 00 min"), (11_220, "3 h 07 min"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (9000, "2 h")]
)
def test_ages_have_one_unit(seconds: float, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, ""), (98_304, "98,304 parameters"), (494_032_768, "494 million parameters"),
        (1_543_714_304, "1.54 billion parameters"),
    ],
)  # fmt: skip
def test_sizes_of_models(count: int, text: str) -> None:
    assert parameter_words(count) == text
