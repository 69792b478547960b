"""The linear probe of an evaluation: its whole grid and its intervals, beside scikit-learn.

Embeddings are drawn with a spectrum that falls as a trained encoder's does, labels from planted
regressions, from common to rare. Scikit-learn fits a few of the labels over the same grid and is
scaled up to all of them, since it takes an hour for all; the losses of both are compared there.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from esi_fast.evaluation.bootstrap import Resampling
from esi_fast.evaluation.label_summary import summarise_labels
from esi_fast.evaluation.probe import C_GRID, fit_probe
from esi_fast.evaluation.results import LabelResult

PACKAGES = ("torch", "numpy", "scikit-learn")
_MAX_SHARE, _MIN_SHARE = 0.4, 0.002  # of the most and the least common label
_PART = 8192

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Size:
    """How much to do.

    Attributes:
        num_records: to fit on; a tenth of them to choose on, and as many to score.
        num_features, num_labels: of the probe.
        num_compared: labels that scikit-learn fits.
    """

    num_records: int
    num_features: int
    num_labels: int
    num_compared: int


FULL = Size(100_000, 512, 71, 3)
QUICK = Size(3_000, 32, 8, 2)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Embeddings and labels of the three splits."""

    train: NDArray[np.float32]
    val: NDArray[np.float32]
    test: NDArray[np.float32]
    train_labels: NDArray[np.bool_]
    val_labels: NDArray[np.bool_]
    test_labels: NDArray[np.bool_]


def draw(size: Size, seed: int = 0) -> Drawn:
    """Embeddings whose variances fall as 1 / rank, and labels that a regression tells in part."""
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.normal(size=(size.num_features, size.num_features)))
    sd = (1.0 / np.sqrt(np.arange(1, size.num_features + 1))).astype(np.float32)
    mean = rng.normal(scale=0.3, size=size.num_features).astype(np.float32)
    planted = rng.normal(size=(size.num_features, size.num_labels)).astype(np.float32)
    planted *= 3 / np.linalg.norm(sd[:, None] * planted, axis=0)
    shares = np.geomspace(_MAX_SHARE, _MIN_SHARE, size.num_labels)

    def split(number: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        x = np.empty((number, size.num_features), np.float32)
        labels = np.empty((number, size.num_labels), np.bool_)
        for start in range(0, number, _PART):
            end = min(start + _PART, number)
            drawn = sd * rng.standard_normal((end - start, size.num_features), np.float32)
            logits = drawn @ planted + rng.logistic(size=(end - start, size.num_labels))
            # The spread of a planted logit and of logistic noise together.
            cut = np.sqrt(9 + np.pi**2 / 3) * _upper_quantile(shares)
            labels[start:end] = logits > cut
            x[start:end] = drawn @ axes.T.astype(np.float32) + mean
        return x, labels

    few = size.num_records // 10
    (train, train_labels), (val, val_labels), (test, test_labels) = map(
        split, (size.num_records, few, few)
    )
    return Drawn(train, val, test, train_labels, val_labels, test_labels)


def _upper_quantile(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.stats import norm

    return np.asarray(norm.isf(shares))


def measure(size: Size, progress: Progress) -> list[dict[str, object]]:
    """The rows of the table."""
    num_parts = 3
    progress(0, num_parts)
    drawn = draw(size)
    work = f"{size.num_records:,} x {size.num_features}, {size.num_labels} labels, 16 fits"
    fit, cpu, wall = _timed(
        lambda: fit_probe(
            drawn.train,
            drawn.val,
            drawn.test,
            train_labels=drawn.train_labels,
            val_labels=drawn.val_labels,
        )
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    note = f"{fit.not_converged} of {16 * size.num_labels} did not converge; peak {peak:.1f} GiB"
    rows = [_row("esi_fast, the whole grid", work, cpu, wall, note=note)]
    progress(1, num_parts)
    compared = np.linspace(0, size.num_labels - 1, size.num_compared).astype(int)
    losses, cpu, wall = _timed(lambda: _with_sklearn(drawn, compared))
    ours = fit_probe(
        drawn.train,
        drawn.val,
        drawn.test,
        train_labels=drawn.train_labels[:, compared],
        val_labels=drawn.val_labels[:, compared],
    )
    apart = max(abs(losses[point] - loss) for point, loss in ours.val_log_loss.items())
    scale = size.num_labels / size.num_compared
    note = (
        f"computed from {size.num_compared} labels, at its default tolerance; log-losses of the "
        f"grid's points differ from ours by {apart:.1e} at most, of "
        f"{min(ours.val_log_loss.values()):.4f}"
    )
    rows.append(_row("scikit-learn, label by label", work, scale * cpu, scale * wall, note=note))
    progress(2, num_parts)
    result = _as_result(drawn, fit.scores)
    _, cpu, wall = _timed(lambda: summarise_labels(result, Resampling()))
    work = f"{len(drawn.test):,} test records, {size.num_labels} labels, 1,000 resamples"
    rows.append(_row("esi_fast, intervals of one contender", work, cpu, wall))
    progress(num_parts, num_parts)
    return rows


def _with_sklearn(drawn: Drawn, labels: NDArray[np.int64]) -> dict[str, float]:
    """Validation log-loss of every point of the grid, named as `esi_fast.evaluation.probe` does."""
    losses: dict[str, float] = {}
    for scale in (True, False):
        scaler = StandardScaler().fit(drawn.train) if scale else None
        train, val = (
            x if scaler is None else scaler.transform(x) for x in (drawn.train, drawn.val)
        )
        for balanced in (False, True):
            for c in C_GRID:
                loss = 0.0
                for k in labels:
                    model = LogisticRegression(
                        C=c, class_weight="balanced" if balanced else None, max_iter=2000
                    ).fit(train, drawn.train_labels[:, k])
                    logits = model.decision_function(val)
                    signed = np.where(drawn.val_labels[:, k], -logits, logits)
                    loss += float(np.logaddexp(0.0, signed).mean()) / len(labels)
                words = f"C {c:g}{', scaled' if scale else ''}{', balanced' if balanced else ''}"
                losses[words] = loss
    return losses


def _as_result(drawn: Drawn, scores: NDArray[np.float64]) -> LabelResult:
    num_records, num_labels = scores.shape
    names = tuple(f"label-{k:02d}" for k in range(num_labels))
    return LabelResult(
        task="probe",
        split="test",
        label_names=names,
        titles=names,
        keys=np.array([f"r{row}" for row in range(num_records)]),
        groups=np.array([f"p{row // 2}" for row in range(num_records)]),
        labels=drawn.test_labels,
        scores={"model": scores},
        probabilities=frozenset({"model"}),
        not_scored={},
        details={},
        errors={},
    )


def _timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it gives, and its seconds of CPU time and of the clock."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = work()
    return found, time.process_time() - cpu, time.perf_counter() - wall


def _row(who: str, work: str, cpu: float, wall: float, note: str = "") -> dict[str, object]:
    return {"who": who, "work": work, "cpu_s": f"{cpu:.1f}", "wall_s": f"{wall:.1f}", "note": note}
