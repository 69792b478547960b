"""Linear probe: what a logistic regression reads from frozen embeddings, against random weights.

A random encoder with a linear probe is a strong baseline on ECG (Berger et al. 2026, "Position:
Evaluation of ECG Representations Must Be Fixed", arXiv 2602.17531), so it is always run beside the
model, with its own choice of C, and the difference carries a paired interval.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from esi_fast.evaluation.embed import Embedder
from esi_fast.evaluation.metrics import BoolArray, FloatArray, Resampling, TaskResult, compare

C_GRID = (0.01, 0.1, 1.0, 10.0)
_MAX_ITERATIONS = 2000


@dataclass(frozen=True)
class ProbeFit:
    """A probe fitted on the training split with the C that the validation split preferred.

    Attributes:
        scores: (n, K) decision values of the scored records; NaN for labels not fitted.
        c: the inverse regularisation strength chosen, one for all labels.
        val_log_loss: of each C of the grid, mean over the labels and validation records.
        not_converged: fits of the grid that stopped at the iteration limit.
    """

    scores: FloatArray
    c: float
    val_log_loss: dict[float, float]
    not_converged: int


def linear_probe(
    trained: Embedder,
    untrained: Embedder,
    *,
    split: str = "test",
    resampling: Resampling | None = None,
    c_grid: Sequence[float] = C_GRID,
) -> TaskResult:
    """Probe a model's frozen embeddings and its untrained twin's, and score both on a split.

    Trained on ``train``, C chosen on ``val``, scored on ``split``, the same way for both models.

    Args:
        trained: the model over the dataset.
        untrained: the same architecture with random weights, over the same dataset.
        split: which records to score; neither ``train`` nor ``val``.
        resampling: of the intervals.
        c_grid: values of C to choose from.

    Raises:
        ValueError: ``split`` was used for fitting, a split is empty, or no label can be fitted.
    """
    if split in ("train", "val"):
        raise ValueError(f"the probe is fitted on train and val, so it cannot be scored on {split}")
    resampling = resampling or Resampling()
    dataset = trained.dataset
    rows = {name: trained.ecg(name).rows for name in ("train", "val", split)}
    labels = {name: dataset.split(name).labels[rows[name]] for name in rows}
    not_scored = {
        name: reason
        for name, column in zip(dataset.label_names, labels["train"].T, strict=True)
        if (reason := _unfit(column))
    }
    fits = {
        name: fit_probe(
            *(embedder.ecg(part).values for part in ("train", "val", split)),
            train_labels=labels["train"],
            val_labels=labels["val"],
            c_grid=c_grid,
        )
        for name, embedder in (("trained", trained), ("untrained", untrained))
    }
    resampling = replace(resampling, not_scored={**resampling.not_scored, **not_scored})
    target = dataset.split(split)
    groups = target.groups[rows[split]]
    scores, baseline = fits["trained"].scores, fits["untrained"].scores
    return TaskResult(
        task="probe",
        split=split,
        label_names=dataset.label_names,
        keys=tuple(target.keys[row] for row in rows[split]),
        groups=groups,
        labels=labels[split],
        trained=scores,
        untrained=baseline,
        comparison=compare(
            scores, baseline, labels[split], groups, dataset.label_names, resampling
        ),
        resampling=resampling,
        details={
            "train_records": len(rows["train"]),
            "val_records": len(rows["val"]),
            **{name: _details(fit) for name, fit in fits.items()},
        },
        errors={k: v for name in rows for k, v in trained.ecg(name).errors.items()},
    )


def fit_probe(
    train: npt.NDArray[np.float32],
    val: npt.NDArray[np.float32],
    target: npt.NDArray[np.float32],
    *,
    train_labels: BoolArray,
    val_labels: BoolArray,
    c_grid: Sequence[float] = C_GRID,
) -> ProbeFit:
    """Fit one-vs-rest logistic regressions on standardised embeddings, C by validation log-loss.

    One C serves all labels: a validation split holds a handful of a rare label's positives, too
    few to choose by.

    Args:
        train: (n, D) embeddings to fit on.
        val: (m, D) embeddings to choose C on.
        target: (t, D) embeddings to score.
        train_labels: (n, K) booleans; a label without positives or negatives is not fitted.
        val_labels: (m, K) booleans.
        c_grid: values of C to choose from.

    Raises:
        ValueError: no label has both a positive and a negative training record.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
    from tqdm import tqdm

    fitted = [k for k in range(train_labels.shape[1]) if not _unfit(train_labels[:, k])]
    if not fitted:
        raise ValueError("no label has both positive and negative training records")
    # float64: the solver's line search stalls on float32 gradients of a nearly separable label.
    scaler = StandardScaler().fit(train.astype(np.float64))
    train_x, val_x, target_x = (
        scaler.transform(x.astype(np.float64)) for x in (train, val, target)
    )
    val_log_loss: dict[float, float] = {}
    scores_of_c: dict[float, FloatArray] = {}
    not_converged = 0
    # One BLAS thread: the solver's vectors are short, and threads that wait for each other on busy
    # cores made 2,000 x 256 take 24 times as long on two cores as on one.
    with threadpool_limits(limits=1):
        for c in tqdm(c_grid, desc="probe", unit="C", disable=None, leave=False):
            scores = np.full((len(target), train_labels.shape[1]), np.nan)
            losses = []
            for k in fitted:
                probe = LogisticRegression(C=c, max_iter=_MAX_ITERATIONS)
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always", ConvergenceWarning)
                    probe.fit(train_x, train_labels[:, k])
                not_converged += any(issubclass(w.category, ConvergenceWarning) for w in caught)
                losses.append(_log_loss(probe.decision_function(val_x), val_labels[:, k]))
                scores[:, k] = probe.decision_function(target_x)
            val_log_loss[c] = float(np.mean(losses))
            scores_of_c[c] = scores
    best = min(val_log_loss, key=val_log_loss.__getitem__)
    return ProbeFit(scores_of_c[best], best, val_log_loss, not_converged)


def _unfit(train_column: BoolArray) -> str:
    """Why a label cannot be fitted; empty if it can."""
    if not train_column.any():
        return "no positive training record"
    return "no negative training record" if train_column.all() else ""


def _log_loss(logits: FloatArray, labels: BoolArray) -> float:
    """Mean negative log-likelihood in nats, from logits: no probability is rounded to 0 or 1."""
    return float(np.logaddexp(0.0, np.where(labels, -logits, logits)).mean())


def _details(fit: ProbeFit) -> dict[str, Any]:
    return {
        "c": fit.c,
        "val_log_loss": {f"{c:g}": loss for c, loss in fit.val_log_loss.items()},
        "fits_not_converged": fit.not_converged,
    }
