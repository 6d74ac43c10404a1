"""Accuracy and calibration of margins, by hand and on margins whose probabilities are known."""

import json
import math

import numpy as np
import pytest

from orchestrator.evaluation.pair_metrics import measure


def test_by_hand() -> None:
    # σ(log 3) = 3/4 three times, two of them right; and one pair that is not told apart.
    result = measure("s", np.array([math.log(3), math.log(3), -math.log(3), 0.0]))
    assert (result.pairs, result.accuracy) == (4, 2.5 / 4)
    assert result.log_loss == pytest.approx((2 * math.log(4 / 3) + math.log(4) + math.log(2)) / 4)
    assert result.calibration_error == pytest.approx(3 / 4 * (3 / 4 - 2 / 3))
    assert result.margin_mean == pytest.approx(math.log(3) / 4)
    assert [list(each) for each in result.bins] == [pytest.approx([0.5, 0.5, 1]), pytest.approx([0.75, 2 / 3, 3])]
    assert json.loads(json.dumps(result.record()))["accuracy"] == result.accuracy


def test_probabilities_that_hold_are_calibrated_and_exaggerated_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    size = rng.exponential(1.5, 50_000)
    margins = np.where(rng.random(50_000) < 1 / (1 + np.exp(-size)), size, -size)
    honest, loud, shy = (measure("s", factor * margins) for factor in (1, 4, 0.25))
    assert honest.calibration_error < 0.01
    assert min(loud.calibration_error, shy.calibration_error) > 0.1
    assert honest.accuracy == loud.accuracy == shy.accuracy
    assert honest.log_loss < min(loud.log_loss, shy.log_loss)


def test_a_margin_of_any_size_is_finite() -> None:
    result = measure("s", np.array([1e4, -1e4]))
    assert (result.accuracy, result.calibration_error) == (0.5, 0.5)
    assert result.log_loss == pytest.approx(5e3)
