"""Batched logistic regressions, with scikit-learn's as the oracle."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from esi_fast.evaluation.logistic import Features, LogisticFit

CS = (0.01, 0.1, 1.0, 10.0)
TOLERANCE = 1e-6


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Products here are tiny: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def problem(n: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Correlated features of unlike scales and offsets; noisy, rare and separable labels."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(n, width)) @ rng.normal(size=(width, width)) / width**0.5
    x = mixed * np.logspace(-1, 1, width) + rng.normal(size=width)
    logits = mixed @ rng.normal(size=(width, 3)) + 0.5 * rng.logistic(size=(n, 3))
    rare = np.zeros(n, bool)
    rare[rng.choice(n, 3, replace=False)] = True
    labels = np.column_stack([logits > [0.0, 1.0, -1.0], rare, mixed[:, 0] > 0.5])
    return x.astype(np.float32), labels


def oracle(x: np.ndarray, y: np.ndarray, c: float, balanced: bool) -> LogisticRegression:
    weight = "balanced" if balanced else None
    with threadpool_limits(1):
        return LogisticRegression(C=c, class_weight=weight, tol=1e-9, max_iter=20_000).fit(x, y)


@pytest.mark.parametrize(("n", "width", "seed"), [(250, 10, 0), (40, 60, 2)])
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("scale", [False, True])
def test_coefficients_and_decisions_equal_scikit_learns(
    n: int, width: int, seed: int, balanced: bool, scale: bool
):
    x, labels = problem(n, width, seed)
    wide = x.astype(np.float64)
    scaler = StandardScaler(with_mean=scale, with_std=scale).fit(wide)
    exact = Features.of(wide, scale=scale).fit(
        labels, CS, balanced=balanced, tolerance=TOLERANCE, max_steps=2000
    )
    single = Features.of(x, scale=scale).fit(labels, CS, balanced=balanced, tolerance=1e-5)
    for c in CS:
        assert exact[c].converged.all()
        for k in range(labels.shape[1]):
            theirs = oracle(scaler.transform(wide), labels[:, k], c, balanced)
            decision = theirs.decision_function(scaler.transform(wide))
            size = np.abs(decision).max()
            own = exact[c].coef[:, k] * (scaler.scale_ if scale else 1.0)
            assert own == pytest.approx(theirs.coef_[0], abs=1e-3 * np.abs(theirs.coef_).max())
            assert exact[c].decision(wide)[:, k] == pytest.approx(decision, abs=2e-3 * size)
            assert single[c].decision(x)[:, k] == pytest.approx(decision, abs=1e-2 * size)


def mean_loss(x: np.ndarray, labels: np.ndarray, fit: LogisticFit, c: float) -> np.ndarray:
    signed = np.where(labels, 1.0, -1.0) * fit.decision(x)
    return np.logaddexp(0, -signed).mean(axis=0) + (fit.coef**2).sum(axis=0) / (2 * c * len(x))


def test_the_default_tolerance_leaves_the_loss_close_to_its_minimum():
    x, labels = problem(500, 30, 3)
    features = Features.of(x.astype(np.float64), scale=False)
    loose = features.fit(labels, CS)
    tight = features.fit(labels, CS, tolerance=1e-8, max_steps=5000)
    for c in CS:
        above = mean_loss(x, labels, loose[c], c) - mean_loss(x, labels, tight[c], c)
        assert (above > -1e-12).all()
        assert (above < 1e-7).all()


def test_a_feature_in_other_units_stops_at_the_same_place():
    x, labels = problem(200, 10, 4)
    plain = Features.of(x, scale=True).fit(labels, [1.0])[1.0]
    tiny = Features.of(x * np.float32(1e-6), scale=True).fit(labels, [1.0])[1.0]
    assert tiny.decision(x * np.float32(1e-6)) == pytest.approx(plain.decision(x), abs=1e-2)


def test_a_constant_feature_and_a_copied_one_do_no_harm():
    x, labels = problem(150, 8, 5)
    constant = np.full((len(x), 1), 3.3, np.float32)
    more = np.hstack([x, constant, x[:, :1]])
    for scale in (False, True):
        fit = Features.of(more, scale=scale).fit(labels, [1.0], tolerance=1e-6)[1.0]
        assert np.abs(fit.coef[8]).max() < 1e-4
        assert fit.coef[9] == pytest.approx(fit.coef[0], abs=1e-3 * np.abs(fit.coef).max())


def test_without_a_use_of_the_features_the_intercept_is_the_frequency():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(4000, 5)).astype(np.float32)
    labels = rng.random((4000, 2)) < [0.03, 0.6]
    fit = Features.of(x, scale=False).fit(labels, [1e-4])[1e-4]
    assert expit(fit.intercept) == pytest.approx(labels.mean(axis=0), rel=0.02)


def test_fits_do_not_depend_on_what_else_is_fitted():
    x, labels = problem(200, 10, 7)
    features = Features.of(x.astype(np.float64), scale=True)
    together = features.fit(labels, CS, tolerance=TOLERANCE)
    alone = features.fit(labels[:, 1:2], [1.0], tolerance=TOLERANCE)[1.0]
    size = np.abs(alone.coef).max()
    assert together[1.0].coef[:, 1] == pytest.approx(alone.coef[:, 0], abs=1e-3 * size)


def test_a_fit_that_stops_early_says_so_and_progress_is_told():
    x, labels = problem(100, 10, 8)
    told: list[int] = []
    features = Features.of(x, scale=False)
    fits = features.fit(labels, CS, max_steps=1, progress=lambda: told.append(1))
    assert not fits[10.0].converged.any()
    assert (fits[10.0].num_steps == 1).all()
    assert len(told) == len(CS)


def test_what_cannot_be_fitted_is_refused():
    x, labels = problem(50, 4, 9)
    features = Features.of(x, scale=False)
    with pytest.raises(ValueError, match="label number 1 has only one value"):
        features.fit(np.column_stack([labels[:, 0], np.ones(50, bool)]), CS)
    with pytest.raises(ValueError, match="do not fit 50 records"):
        features.fit(labels[:-1], CS)
    with pytest.raises(ValueError, match="C must be positive"):
        features.fit(labels, [0.0])
    x[7, 2] = np.nan
    with pytest.raises(ValueError, match="feature 2 of record 7 is nan"):
        Features.of(x, scale=False)
    with pytest.raises(ValueError, match="n >= 1"):
        Features.of(x[:0], scale=False)
