"""Linear probe: what a logistic regression reads from frozen embeddings.

The protocol of Berger et al. 2026 ("Position: Evaluation of ECG Representations Must Be Fixed",
arXiv 2602.17531): penalty, scaling and class weights are chosen by validation log-loss, for every
contender by itself, and few training patients are asked for, too. A random encoder with such a
probe is a strong baseline on ECG, so that it belongs beside the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from esi_fast.evaluation.contenders import (
    label_result,
    require_held_out,
    unfit_labels,
    val_thresholds,
)
from esi_fast.evaluation.embed import Embedder
from esi_fast.evaluation.label_summary import THRESHOLDS
from esi_fast.evaluation.logistic import Features, LogisticFit
from esi_fast.evaluation.results import BoolArray, FloatArray, LabelResult
from esi_fast.evaluation.shared_records import shared_rows

C_GRID = (0.01, 0.1, 1.0, 10.0)
SHARES = (0.01, 0.1, 1.0)
_SCALINGS, _WEIGHTS = (True, False), (False, True)
_GRID_SIZE = len(C_GRID) * len(_SCALINGS) * len(_WEIGHTS)


@dataclass(frozen=True)
class ProbeFit:
    """A probe fitted on training records with what the validation records preferred.

    Attributes:
        scores: (n, K) sigmoids of the scored records; NaN for labels not fitted.
        val_scores: (m, K) of the validation records.
        c: the inverse strength of the penalty chosen.
        scale: whether features were divided by their standard deviations.
        balanced: whether positive and negative records weigh alike; scores are no probabilities
            then.
        val_log_loss: of each point of the grid, mean over the labels and validation records.
        not_converged: fits of the grid that stopped before the tolerance.
    """

    scores: FloatArray
    val_scores: FloatArray
    c: float
    scale: bool
    balanced: bool
    val_log_loss: dict[str, float]
    not_converged: int


def probe(
    embedders: Mapping[str, Embedder],
    *,
    split: str = "test",
    shares: Sequence[float] = SHARES,
    seed: int = 0,
) -> list[LabelResult]:
    """Probe the frozen embeddings of every contender, from few and from all training patients.

    Fitted on a share of the patients of ``train``, chosen on ``val``, scored on ``split``. Shares
    are nested: who is among the 1 % is among the 10 %. They are the same for all contenders, as are
    the records, which are those that all of them could embed. Scores are sigmoids; contenders that
    chose class weights are not among ``probabilities``.

    Args:
        embedders: contender to its frozen model over the dataset, all of them over one dataset.
        split: which records to score.
        shares: of the training patients, in (0, 1]; at least one patient is taken.
        seed: of the draw of patients.

    Returns:
        A result a share: task "probe" for all patients, "probe-10" for 10 %, ...

    Raises:
        ValueError: ``split`` was used for fitting, a share is not in (0, 1], a split is empty or
            unreadable, or all training patients together do not allow a single label to be fitted.
    """
    from tqdm import tqdm

    require_held_out(split)
    if bad := [share for share in shares if not 0 < share <= 1]:
        raise ValueError(f"a share of the training patients must be in (0, 1], not {bad[0]}")
    if not embedders:
        raise ValueError("there is no model to probe")
    dataset = next(iter(embedders.values())).dataset
    parts = ("train", "val", split)
    found = {part: {name: one.ecg(part) for name, one in embedders.items()} for part in parts}
    rows: dict[str, npt.NDArray[np.int64]] = {}
    errors: dict[str, str] = {}
    for part in parts:
        rows[part], unreadable = shared_rows(found[part])
        errors |= unreadable
    labels = {part: dataset.split(part).labels[rows[part]] for part in parts}
    groups = dataset.split("train").groups[rows["train"]]
    # A dataset without a single label to fit is an error, a share without one a finding.
    if len(unfit_labels(dataset.label_names, labels["train"])) == len(dataset.label_names):
        raise ValueError("no label has both positive and negative training records")
    results = []
    total = len(shares) * len(embedders) * _GRID_SIZE
    with tqdm(total=total, desc="probe", unit="fit", disable=None, leave=False) as bar:
        for share in shares:
            taken = share_of_patients(groups, share, seed)
            where = "" if share == 1 else f" in {100 * share:g} % of the patients"
            not_scored = unfit_labels(dataset.label_names, labels["train"][taken], where)
            fits = {}
            for name in embedders if len(not_scored) < len(dataset.label_names) else ():
                train, val, target = (
                    found[part][name].values[np.searchsorted(found[part][name].rows, rows[part])]
                    for part in parts
                )
                fits[name] = fit_probe(
                    train[taken],
                    val,
                    target,
                    train_labels=labels["train"][taken],
                    val_labels=labels["val"],
                    progress=bar.update,
                )
            nothing = np.full(labels[split].shape, np.nan)
            results.append(
                label_result(
                    "probe" if share == 1 else f"probe-{100 * share:g}",
                    dataset,
                    split,
                    rows[split],
                    {name: fits[name].scores if fits else nothing for name in embedders},
                    probabilities=frozenset(n for n, fit in fits.items() if not fit.balanced),
                    not_scored=not_scored,
                    details={
                        "train_records": int(taken.sum()),
                        "train_patients": len(set(groups[taken].tolist())),
                        "val_records": len(rows["val"]),
                        "seed": seed,
                        "fits": {name: _details(fit) for name, fit in fits.items()},
                        THRESHOLDS: {
                            name: val_thresholds(dataset.label_names, fit.val_scores, labels["val"])
                            for name, fit in fits.items()
                        },
                    },
                    errors=errors,
                )
            )
    return results


def share_of_patients(groups: npt.NDArray[np.str_], share: float, seed: int) -> BoolArray:
    """Which records (n,) belong to a share of the patients; a larger share holds a smaller one."""
    patients = np.random.default_rng(seed).permutation(np.unique(groups))
    return np.isin(groups, patients[: max(1, round(share * len(patients)))])


def fit_probe(
    train: npt.NDArray[np.float32],
    val: npt.NDArray[np.float32],
    target: npt.NDArray[np.float32],
    *,
    train_labels: BoolArray,
    val_labels: BoolArray,
    progress: Callable[[], object] = lambda: None,
) -> ProbeFit:
    """Fit one-vs-rest logistic regressions on embeddings, chosen by validation log-loss.

    One choice serves all labels: a validation split holds a handful of a rare label's positives,
    too few to choose by. The log-loss weighs every record alike, also of fits with class weights:
    those are chosen only where they help the probabilities.

    Args:
        train: (n, D) embeddings to fit on.
        val: (m, D) embeddings to choose on.
        target: (t, D) embeddings to score.
        train_labels: (n, K) booleans; a label without positives or negatives is not fitted.
        val_labels: (m, K) booleans.
        progress: called after each of the grid's fits.

    Raises:
        ValueError: no label has both a positive and a negative training record.
    """
    positives = train_labels.sum(axis=0)
    fitted = np.flatnonzero((positives > 0) & (positives < len(train_labels)))
    if not len(fitted):
        raise ValueError("no label has both positive and negative training records")
    val_log_loss: dict[str, float] = {}
    not_converged = 0
    candidates: list[tuple[float, float, bool, bool, LogisticFit]] = []
    for scale in _SCALINGS:
        features = Features.of(train, scale=scale)
        for balanced in _WEIGHTS:
            fits = features.fit(
                train_labels[:, fitted], C_GRID, balanced=balanced, progress=progress
            )
            for c, fit in fits.items():
                loss = _log_loss(fit.decision(val), val_labels[:, fitted])
                val_log_loss[_point(c, scale, balanced)] = loss
                not_converged += int((~fit.converged).sum())
                candidates.append((loss, c, scale, balanced, fit))
    _, c, scale, balanced, fit = min(candidates, key=lambda candidate: candidate[0])
    scores, val_scores = (np.full((len(x), train_labels.shape[1]), np.nan) for x in (target, val))
    scores[:, fitted] = _sigmoid(fit.decision(target))
    val_scores[:, fitted] = _sigmoid(fit.decision(val))
    return ProbeFit(scores, val_scores, c, scale, balanced, val_log_loss, not_converged)


def _point(c: float, scale: bool, balanced: bool) -> str:
    return f"C {c:g}{', scaled' if scale else ''}{', balanced' if balanced else ''}"


def _log_loss(logits: FloatArray, labels: BoolArray) -> float:
    """Mean negative log-likelihood in nats, from logits: no probability is rounded to 0 or 1."""
    return float(np.logaddexp(0.0, np.where(labels, -logits, logits)).mean())


def _sigmoid(logits: FloatArray) -> FloatArray:
    probabilities: FloatArray = np.exp(-np.logaddexp(0.0, -logits))
    return probabilities


def _details(fit: ProbeFit) -> dict[str, Any]:
    return {
        "c": fit.c,
        "scaled": fit.scale,
        "class_weight": "balanced" if fit.balanced else None,
        "val_log_loss": fit.val_log_loss,
        "fits_not_converged": fit.not_converged,
    }
