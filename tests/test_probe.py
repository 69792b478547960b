"""The linear probe on planted embeddings, with scikit-learn's pipeline as the oracle."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from evaluation_fakes import NoiseModel, PlantedModel, planted_dataset, planted_split
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from esi_fast.evaluation.embed import Embedder
from esi_fast.evaluation.label_summary import THRESHOLDS, check_labels
from esi_fast.evaluation.probe import C_GRID, fit_probe, probe, share_of_patients

NAMES = {"first": ["x"], "second": ["y"], "rare": ["z"]}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Products here are tiny: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def case(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two labels that embeddings hold in offset, unequally scaled coordinates, and an empty one."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((n, 3), bool)
    labels[:, :2] = rng.random((n, 2)) < 0.4
    embeddings = rng.normal(size=(n, 12))
    embeddings[:, 3] += 3 * labels[:, 0]
    embeddings[:, 4] -= 3 * labels[:, 1]
    return (embeddings * np.logspace(-1, 1, 12) + 5).astype(np.float32), labels


def planted(unreadable: dict[str, dict[int, str]] | None = None):
    splits = []
    for seed, (name, n) in enumerate({"train": 200, "val": 60, "test": 120}.items()):
        embeddings, labels = case(n, seed)
        if name == "test":
            labels[:3, 2] = True
        groups = [f"{name}-p{row // 2}" for row in range(n)]
        bad = (unreadable or {}).get(name)
        splits.append(planted_split(name, embeddings, labels, groups, bad))
    return planted_dataset(splits, NAMES)


def contenders(dataset):
    return {"model": Embedder(PlantedModel(), dataset), "noise": Embedder(NoiseModel(), dataset)}


def auroc(result, name: str) -> float:
    return float(
        np.mean([roc_auc_score(result.labels[:, k], result.scores[name][:, k]) for k in (0, 1)])
    )


def test_every_contender_is_probed_from_few_and_from_all_patients():
    results = probe(contenders(planted()), shares=(0.1, 1.0))
    assert [result.task for result in results] == ["probe-10", "probe"]
    few, full = results
    assert list(full.scores) == ["model", "noise"]
    assert auroc(full, "model") > 0.95
    assert auroc(full, "noise") == pytest.approx(0.5, abs=0.1)
    assert auroc(few, "model") > auroc(few, "noise") + 0.2
    assert (few.details["train_patients"], few.details["train_records"]) == (10, 20)
    assert (full.details["train_patients"], full.details["train_records"]) == (100, 200)
    assert full.details["fits"]["model"]["c"] in C_GRID
    assert len(full.details["fits"]["model"]["val_log_loss"]) == 16
    assert full.details["fits"]["model"]["fits_not_converged"] == 0
    for result in results:
        check_labels(result)


def test_scores_are_probabilities_unless_class_weights_were_chosen():
    (full,) = probe(contenders(planted()), shares=(1.0,))
    for name, fit in full.details["fits"].items():
        assert (fit["class_weight"] is None) == (name in full.probabilities)
        scores = full.scores[name][:, :2]
        assert ((scores > 0) & (scores < 1)).all()
    assert full.scores["model"][:, :2].mean(axis=0) == pytest.approx(
        full.labels[:, :2].mean(axis=0), abs=0.1
    )


def test_labels_that_a_share_does_not_hold_are_named():
    dataset = planted()
    train = dataset.split("train")
    one = train.groups[~share_of_patients(train.groups, 0.1, 0)][0]
    train.labels[:, 1] = train.groups == one
    few, full = probe(contenders(dataset), shares=(0.1, 1.0))
    assert few.not_scored == {
        "second": "no positive training record in 10 % of the patients",
        "rare": "no positive training record in 10 % of the patients",
    }
    assert full.not_scored == {"rare": "no positive training record"}
    assert np.isnan(few.scores["model"][:, 1:]).all()
    assert np.isfinite(few.scores["model"][:, 0]).all()
    assert np.isfinite(full.scores["model"][:, :2]).all()


def test_a_share_in_which_nothing_can_be_learned_scores_nothing():
    dataset = planted()
    train = dataset.split("train")
    train.labels[share_of_patients(train.groups, 0.01, 0)] = False
    few, full = probe(contenders(dataset), shares=(0.01, 1.0))
    assert set(few.not_scored) == set(NAMES)
    assert np.isnan(few.scores["model"]).all()
    assert not few.probabilities
    assert np.isfinite(full.scores["model"][:, :2]).all()


def test_shares_are_of_patients_and_nested():
    groups = np.array([f"p{row // 3}" for row in range(300)])
    small, large = (share_of_patients(groups, share, 5) for share in (0.01, 0.1))
    assert (small.sum(), large.sum()) == (3, 30)
    assert large[small].all()
    assert len(set(groups[large])) == 10
    assert share_of_patients(groups, 1.0, 5).all()
    assert share_of_patients(groups, 0.001, 5).sum() == 3  # one patient at least
    assert (share_of_patients(groups, 0.1, 6) != large).any()


def test_scores_and_choices_equal_scikit_learns_pipeline():
    (train, train_y), (val, val_y), (test, _) = case(200, 0), case(60, 1), case(120, 2)
    fit = fit_probe(train, val, test, train_labels=train_y, val_labels=val_y)
    losses, scores = {}, {}
    for c in C_GRID:
        for scale in (True, False):
            for weight in (None, "balanced"):
                name = f"C {c:g}{', scaled' if scale else ''}{', balanced' if weight else ''}"
                steps = [StandardScaler()] if scale else []
                of_label = []
                for k in range(2):
                    solver = LogisticRegression(C=c, class_weight=weight, max_iter=5000, tol=1e-8)
                    one = make_pipeline(*steps, solver).fit(train.astype(float), train_y[:, k])
                    of_label.append([one.predict_proba(x.astype(float))[:, 1] for x in (val, test)])
                losses[name] = np.mean(
                    [log_loss(val_y[:, k], one[0]) for k, one in enumerate(of_label)]
                )
                scores[name] = np.column_stack([one[1] for one in of_label])
    assert fit.val_log_loss == pytest.approx(losses, rel=1e-3)
    best = min(losses, key=losses.__getitem__)
    chosen = f"C {fit.c:g}{', scaled' if fit.scale else ''}{', balanced' if fit.balanced else ''}"
    assert chosen == best
    assert fit.scores[:, :2] == pytest.approx(scores[best], abs=1e-3)


def test_thresholds_come_from_the_validation_records():
    (full,) = probe(contenders(planted()), shares=(1.0,))
    thresholds = full.details[THRESHOLDS]["model"]
    assert set(thresholds) == {"first", "second"}
    called = full.scores["model"][:, 0] >= thresholds["first"]
    assert (called == full.labels[:, 0]).mean() > 0.75


def test_test_labels_are_never_seen():
    first, second = planted(), planted()
    target = second.split("test")
    target.labels[:] = ~target.labels
    results = [probe(contenders(one), shares=(1.0,))[0] for one in (first, second)]
    for name in ("model", "noise"):
        assert np.array_equal(results[0].scores[name], results[1].scores[name], equal_nan=True)


def test_records_that_cannot_be_read_are_left_out_and_named():
    dataset = planted({"train": {3: "cut off"}, "test": {0: "no header"}})
    (full,) = probe(contenders(dataset), shares=(1.0,))
    assert full.errors == {"train-0003": "cut off", "test-0000": "no header"}
    assert full.details["train_records"] == 199
    assert full.keys[0] == "test-0001"
    assert np.array_equal(full.labels, dataset.split("test").labels[1:])


def test_what_cannot_be_probed_is_refused():
    dataset = planted()
    with pytest.raises(ValueError, match="split val is learned from"):
        probe(contenders(dataset), split="val")
    with pytest.raises(ValueError, match=r"in \(0, 1\], not 10"):
        probe(contenders(dataset), shares=(10,))
    with pytest.raises(ValueError, match="no model to probe"):
        probe({})
    only_test = planted_dataset([dataset.split("test")], NAMES)
    with pytest.raises(ValueError, match="no records in split 'train'"):
        probe(contenders(only_test))
    dataset.split("train").labels[:] = False
    with pytest.raises(ValueError, match="no label has both"):
        probe(contenders(dataset))
    (train, train_y), (val, val_y) = case(50, 0), case(20, 1)
    with pytest.raises(ValueError, match="no label has both"):
        fit_probe(train, val, val, train_labels=train_y[:, 2:], val_labels=val_y[:, 2:])
