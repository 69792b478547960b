"""AUROC and AUPRC of many labels against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from esi_fast.evaluation.metrics import auprc, auroc


def random_case(seed: int, n: int, num_labels: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, num_labels))
    labels = rng.random((n, num_labels)) < 0.3
    labels[0], labels[1] = True, False
    return (np.round(scores) if ties else scores), labels


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [2, 3, 17, 500])
def test_areas_equal_scikit_learn(n: int, ties: bool):
    scores, labels = random_case(n, n, 5, ties)
    for ours, oracle in ((auroc, roc_auc_score), (auprc, average_precision_score)):
        expected = [oracle(labels[:, k], scores[:, k]) for k in range(5)]
        assert ours(scores, labels) == pytest.approx(expected, abs=1e-12)


def test_a_label_without_positives_or_negatives_has_no_area():
    scores = np.arange(8.0).reshape(4, 2)
    labels = np.array([[False, True]] * 4)
    assert np.isnan(auroc(scores, labels)).all()
    assert np.isnan(auprc(scores, labels)).all()


def test_mismatched_arguments_and_nan_are_refused():
    scores, labels = random_case(2, 30, 2, ties=False)
    with pytest.raises(ValueError, match="must both be"):
        auroc(scores[:, 0], labels[:, 0])
    with pytest.raises(ValueError, match="must both be"):
        auroc(scores[:0], labels[:0])
    scores[4, 1] = np.nan
    with pytest.raises(ValueError, match="hold 1 NaN"):
        auprc(scores, labels)
