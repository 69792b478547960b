"""The linear probe on planted embeddings, with scikit-learn's pipeline as the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_fakes import NoiseModel, PlantedModel, planted_dataset, planted_split
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from esi_fast.evaluation.embed import Embedder
from esi_fast.evaluation.metrics import Resampling
from esi_fast.evaluation.probe import C_GRID, fit_probe, linear_probe

NAMES = {"first": ["x"], "second": ["y"], "rare": ["z"]}


def case(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two labels that embeddings hold in offset, unequally scaled coordinates, and an empty one."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((n, 3), bool)
    labels[:, :2] = rng.random((n, 2)) < 0.4
    embeddings = rng.normal(size=(n, 12))
    embeddings[:, 3] += 3 * labels[:, 0]
    embeddings[:, 4] -= 3 * labels[:, 1]
    return (embeddings * np.logspace(-2, 2, 12) + 5).astype(np.float32), labels


def planted(rare_in_test: bool = True):
    sizes = {"train": (200, 0), "val": (60, 1), "test": (120, 2)}
    splits = []
    for name, (n, seed) in sizes.items():
        embeddings, labels = case(n, seed)
        if name == "test" and rare_in_test:
            labels[:3, 2] = True
        splits.append(planted_split(name, embeddings, labels))
    return planted_dataset(splits, NAMES)


def test_the_probe_beats_the_untrained_baseline_beside_it():
    dataset = planted()
    result = linear_probe(
        Embedder(PlantedModel(), dataset),
        Embedder(NoiseModel(), dataset),
        resampling=Resampling(200),
    )
    trained, untrained = result.comparison.trained, result.comparison.untrained
    assert trained.macro_auroc.value > 0.95
    assert untrained.macro_auroc.value == pytest.approx(0.5, abs=0.1)
    assert result.comparison.difference.low > 0.3
    assert result.comparison.difference.value == pytest.approx(
        trained.macro_auroc.value - untrained.macro_auroc.value
    )
    assert result.details["trained"]["c"] in C_GRID
    assert result.details["untrained"]["c"] in C_GRID
    assert result.details["trained"]["fits_not_converged"] == 0


def test_a_label_without_training_positives_is_listed_and_left_out():
    dataset = planted()
    embedder = Embedder(PlantedModel(), dataset)
    result = linear_probe(embedder, embedder, resampling=Resampling(20))
    rare = result.comparison.trained.per_label[2]
    assert (rare.label, rare.positives) == ("rare", 3)
    assert rare.left_out == "no positive training record"
    assert np.isnan(rare.auroc.value)
    assert np.isnan(result.trained[:, 2]).all()
    fitted = [row.auroc.value for row in result.comparison.trained.per_label[:2]]
    assert result.comparison.trained.macro_auroc.value == pytest.approx(np.mean(fitted))


def test_scores_and_choice_of_c_equal_scikit_learns_pipeline():
    (train, train_y), (val, val_y), (test, _) = case(200, 0), case(60, 1), case(120, 2)
    fit = fit_probe(train, val, test, train_labels=train_y, val_labels=val_y)
    losses = {}
    scores = {}
    for c in C_GRID:
        columns = []
        per_label = []
        for k in range(2):
            oracle = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
            oracle.fit(train.astype(float), train_y[:, k])
            probability = oracle.predict_proba(val.astype(float))[:, 1]
            per_label.append(log_loss(val_y[:, k], probability))
            columns.append(oracle.decision_function(test.astype(float)))
        losses[c] = np.mean(per_label)
        scores[c] = np.stack(columns, axis=1)
    assert fit.val_log_loss == pytest.approx(losses, rel=1e-6)
    assert fit.c == min(losses, key=losses.__getitem__)
    assert fit.scores[:, :2] == pytest.approx(scores[fit.c], abs=1e-8)


def test_test_labels_are_never_seen():
    first, second = planted(), planted()
    target = second.splits["test"]
    target.labels[:] = ~target.labels
    results = []
    for dataset in (first, second):
        embedder = Embedder(PlantedModel(), dataset)
        results.append(linear_probe(embedder, embedder, resampling=Resampling(5)))
    assert np.array_equal(results[0].trained, results[1].trained, equal_nan=True)


def test_a_fit_that_stops_early_is_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("esi_fast.evaluation.probe._MAX_ITERATIONS", 1)
    (train, train_y), (val, val_y) = case(50, 0), case(20, 1)
    fit = fit_probe(train, val, val, train_labels=train_y, val_labels=val_y)
    assert fit.not_converged == 2 * len(C_GRID)


def test_unusable_splits_are_refused():
    dataset = planted()
    embedder = Embedder(PlantedModel(), dataset)
    with pytest.raises(ValueError, match="cannot be scored on val"):
        linear_probe(embedder, embedder, split="val")
    (train, train_y), (val, val_y) = case(50, 0), case(20, 1)
    with pytest.raises(ValueError, match="no label has both"):
        fit_probe(train, val, val, train_labels=train_y[:, 2:], val_labels=val_y[:, 2:])
    only_test = planted_dataset([dataset.splits["test"]], NAMES)
    with pytest.raises(ValueError, match="no records in split 'train'"):
        linear_probe(Embedder(PlantedModel(), only_test), embedder)
