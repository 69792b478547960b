"""Measures that rest on thresholds, and calibration, against scikit-learn and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    f1_score,
    roc_auc_score,
    roc_curve,
)

from esi_fast.evaluation.calibration import Calibration, reliability_curve
from esi_fast.evaluation.label_summary import f_max_threshold
from esi_fast.evaluation.ranking import (
    RankedScores,
    area_under_roc,
    average_precision,
    equal_error_rate,
    f_max,
    sensitivity_at,
)


def random_case(seed: int, n: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.3
    labels[0], labels[1] = True, False
    scores = rng.normal(size=n) + labels
    return (np.round(scores) if ties else scores), labels


def oracle_f_max(labels: np.ndarray, scores: np.ndarray, weight: np.ndarray) -> float:
    drawn = [
        f1_score(labels, scores >= t, sample_weight=weight, zero_division=0)
        for t in np.unique(scores)
    ]
    return max(drawn)


def oracle_sensitivity(labels, scores, weight, max_false_rate: float) -> float:
    false, true, _ = roc_curve(labels, scores, sample_weight=weight, drop_intermediate=False)
    return true[false <= max_false_rate + 1e-12].max()


def oracle_eer(labels, scores, weight) -> float:
    false, true, _ = roc_curve(labels, scores, sample_weight=weight, drop_intermediate=False)
    # The polyline by its arc, since a vertical stretch has no inverse.
    arc = np.append(0, np.cumsum(np.diff(false) + np.diff(true)))
    keep = np.append(True, np.diff(arc) > 0)
    accepted, missed = (interp1d(arc[keep], x[keep]) for x in (false, 1 - true))
    at = brentq(lambda t: accepted(t) - missed(t), 0, arc[-1], xtol=1e-14)
    return float(accepted(at))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [2, 3, 17, 60])
def test_every_measure_equals_its_oracle_under_weights(n: int, ties: bool):
    scores, labels = random_case(n, n, ties)
    weights = np.random.default_rng(1).integers(0, 4, size=(n, 8)).astype(np.float32)
    weights[:, 0] = 1
    weights[0], weights[1] = np.maximum(weights[0], 1), np.maximum(weights[1], 1)
    counts = RankedScores(scores, labels).counts(weights)
    for column, weight in enumerate(weights.T):
        expected = [
            roc_auc_score(labels, scores, sample_weight=weight),
            average_precision_score(labels, scores, sample_weight=weight),
            oracle_f_max(labels, scores, weight),
            oracle_sensitivity(labels, scores, weight, 0.1),
            oracle_sensitivity(labels, scores, weight, 0.3),
            oracle_eer(labels, scores, weight),
        ]
        ours = [
            area_under_roc(counts)[column],
            average_precision(counts)[column],
            f_max(counts)[column],
            sensitivity_at(counts, 0.1)[column],
            sensitivity_at(counts, 0.3)[column],
            equal_error_rate(counts)[column],
        ]
        assert ours == pytest.approx(expected, abs=1e-9)


def test_known_values():
    scores = np.array([0.1, 0.4, 0.35, 0.8])
    labels = np.array([False, False, True, True])
    counts = RankedScores(scores, labels).counts()
    assert area_under_roc(counts)[0] == 0.75
    assert average_precision(counts)[0] == pytest.approx(0.5 * 1.0 + 0.5 * 2 / 3)
    assert f_max(counts)[0] == pytest.approx(0.8)  # both found, one false
    assert sensitivity_at(counts, 0.1)[0] == 0.5
    assert equal_error_rate(counts)[0] == 0.5
    assert f_max_threshold(scores, labels) == 0.35
    tied = RankedScores(np.zeros(4), labels).counts()
    assert area_under_roc(tied)[0] == 0.5
    assert equal_error_rate(tied)[0] == 0.5
    assert sensitivity_at(tied, 0.1)[0] == 0.0
    reversed_ = RankedScores(-np.array([0.1, 0.2, 0.8, 0.9]), labels).counts()
    assert equal_error_rate(reversed_)[0] == 1.0


@pytest.mark.parametrize("labels", [np.zeros(5, bool), np.ones(5, bool)])
def test_one_kind_of_record_has_no_measure(labels: np.ndarray):
    counts = RankedScores(np.arange(5.0), labels).counts()
    for measure in (area_under_roc, average_precision, f_max, equal_error_rate):
        assert np.isnan(measure(counts)).all()
    assert np.isnan(sensitivity_at(counts, 0.1)).all()


def test_a_weighting_that_leaves_out_every_positive_has_no_measure():
    scores, labels = random_case(0, 30, ties=True)
    weights = np.stack([~labels, np.ones(30)], axis=1).astype(float)
    counts = RankedScores(scores, labels).counts(weights)
    for measure in (area_under_roc, average_precision, f_max, equal_error_rate):
        assert np.isnan(measure(counts)).tolist() == [True, False]


def test_counts_of_what_a_weighting_leaves():
    scores, labels = random_case(4, 40, ties=True)
    ranked = RankedScores(scores, labels)
    taken = np.random.default_rng(2).integers(0, 2, size=(40, 5)).astype(float)
    left = ranked.counts(taken).complement(ranked.counts())
    assert area_under_roc(left) == pytest.approx(area_under_roc(ranked.counts(1 - taken)))


def test_large_weights_stay_exact():
    """Above 2^24, where float32 skips whole numbers."""
    scores, labels = random_case(6, 50, ties=True)
    weights = np.random.default_rng(3).integers(10**7, 10**8, size=(50, 1)).astype(float)
    ours = area_under_roc(RankedScores(scores, labels).counts(weights))[0]
    assert ours == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights[:, 0]), 1e-12)


def test_calibration_equals_scikit_learn_and_brute_force():
    rng = np.random.default_rng(7)
    probabilities = np.round(rng.random(200), 1 + (rng.random() > 2))  # many on the bins' edges
    labels = rng.random(200) < probabilities**2
    weights = rng.integers(0, 4, size=(200, 4)).astype(float)
    weights[:, 0] = 1
    calibration = Calibration(probabilities, labels)
    for column, weight in enumerate(weights.T):
        expected = brier_score_loss(labels, probabilities, sample_weight=weight)
        assert calibration.brier(weights)[column] == pytest.approx(expected)
        rows = np.repeat(np.arange(200), weight.astype(int))
        edges = np.linspace(0, 1, 11)
        place = np.clip(np.digitize(probabilities[rows], edges, right=True) - 1, 0, 9)
        error = sum(
            np.mean(place == b)
            * abs(labels[rows][place == b].mean() - probabilities[rows][place == b].mean())
            for b in np.unique(place)
        )
        assert calibration.expected_error(weights)[column] == pytest.approx(error)
    curve = reliability_curve(probabilities, labels)
    observed, foretold = calibration_curve(labels, probabilities, n_bins=10)
    filled = curve.counts > 0
    assert curve.observed[filled] == pytest.approx(observed)
    assert curve.foretold[filled] == pytest.approx(foretold)
    assert curve.counts.sum() == 200


def test_calibrated_probabilities_have_little_error_and_shifted_ones_much():
    rng = np.random.default_rng(8)
    probabilities = rng.random(4000)
    labels = rng.random(4000) < probabilities
    ones = np.ones((4000, 1))
    assert Calibration(probabilities, labels).expected_error(ones)[0] < 0.03
    assert Calibration(probabilities / 2, labels).expected_error(ones)[0] > 0.2


@pytest.mark.parametrize("bad", [1.5, -0.1, np.nan])
def test_no_probability_is_refused(bad: float):
    with pytest.raises(ValueError, match="is no probability"):
        Calibration(np.array([0.5, bad]), np.array([True, False]))
