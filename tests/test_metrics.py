"""AUROC, AUPRC and their intervals, against scikit-learn and against known distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from esi_fast.evaluation import metrics
from esi_fast.evaluation.metrics import Resampling, auprc, auroc, compare, score_table


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


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_areas_equal_scikit_learn_with_sample_weights(ties: bool):
    scores, labels = random_case(3, 80, 1, ties)
    weights = np.random.default_rng(0).integers(0, 4, size=(6, 80)).astype(float)
    areas = metrics._SortedLabel(scores[:, 0], labels[:, 0]).areas(weights)
    for row, weight in enumerate(weights):
        args = (labels[:, 0], scores[:, 0])
        assert areas[0, row] == pytest.approx(roc_auc_score(*args, sample_weight=weight), abs=1e-12)
        expected = average_precision_score(*args, sample_weight=weight)
        assert areas[1, row] == pytest.approx(expected, abs=1e-12)


def test_known_areas():
    scores = np.array([[0.1], [0.4], [0.35], [0.8]])
    labels = np.array([[False], [False], [True], [True]])
    assert auroc(scores, labels)[0] == 0.75
    assert auprc(scores, labels)[0] == pytest.approx(0.5 * 1.0 + 0.5 * 2 / 3)
    assert auroc(np.zeros((4, 1)), labels)[0] == 0.5


def test_a_label_without_positives_or_negatives_has_no_area():
    scores = np.arange(8.0).reshape(4, 2)
    labels = np.array([[False, True]] * 4)
    assert np.isnan(auroc(scores, labels)).all()
    assert np.isnan(auprc(scores, labels)).all()


def test_every_resample_draws_as_many_patients_and_keeps_their_records_together():
    groups = np.array(["b", "a", "b", "c", "b", "a"])
    blocks = list(metrics._patient_weights(groups, 200, seed=1))
    weights = np.concatenate(blocks)
    assert weights.shape == (200, 6)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 0] == weights[:, 4]).all()
    assert (weights[:, 1] == weights[:, 5]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert weights[:, 3].mean() == pytest.approx(1.0, abs=0.2)


def test_blocks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch):
    groups = np.array([f"p{i // 2}" for i in range(30)])
    whole = np.concatenate(list(metrics._patient_weights(groups, 50, seed=4)))
    monkeypatch.setattr(metrics, "_MAX_WEIGHTS", 7 * 30)
    pieces = list(metrics._patient_weights(groups, 50, seed=4))
    assert len(pieces) == 8
    assert (np.concatenate(pieces) == whole).all()


def test_the_interval_equals_a_plain_loop_over_resamples():
    """The oracle expands each resample into records and asks scikit-learn, label by label."""
    rng = np.random.default_rng(5)
    groups = np.array([f"p{i % 20}" for i in range(60)])
    scores = rng.normal(size=(60, 3))
    labels = np.zeros((60, 3), bool)
    labels[:, 0] = rng.random(60) < 0.4
    labels[:, 1] = groups == "p7"  # undrawn in a third of the resamples
    settings = Resampling(resamples=60, seed=2, min_positives=1)
    table = score_table(scores, labels, groups, ["a", "b", "none"], settings)

    macros, firsts = [], []
    for weights in np.concatenate(list(metrics._patient_weights(groups, 60, seed=2))):
        rows = np.repeat(np.arange(60), weights.astype(int))
        areas = [
            roc_auc_score(labels[rows, k], scores[rows, k])
            for k in range(3)
            if 0 < labels[rows, k].sum() < len(rows)
        ]
        macros.append(np.mean(areas))
        firsts.append(areas[0])
    assert table.macro_auroc.value == pytest.approx(
        np.mean([roc_auc_score(labels[:, k], scores[:, k]) for k in (0, 1)])
    )
    for interval, oracle in ((table.macro_auroc, macros), (table.per_label[0].auroc, firsts)):
        assert [interval.low, interval.high] == pytest.approx(np.percentile(oracle, [2.5, 97.5]))
    undefined = table.per_label[2]
    assert undefined.left_out == "no positive record"
    assert all(math.isnan(x) for x in (undefined.auroc.value, undefined.auroc.low))


def test_the_interval_covers_the_known_area():
    """Binormal scores a distance d apart have AUROC Phi(d / sqrt 2)."""
    distance = 1.0
    truth = 0.5 * (1 + math.erf(distance / 2))
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        labels = np.arange(150) < 50
        scores = rng.normal(size=150) + distance * labels
        interval = (
            score_table(
                scores[:, None],
                labels[:, None],
                np.arange(150),
                ["x"],
                Resampling(resamples=200, seed=trial),
            )
            .per_label[0]
            .auroc
        )
        covered += interval.low <= truth <= interval.high
    # A binomial(200, 0.95) lies in this range with probability 0.999.
    assert 179 <= covered <= 199


def test_copies_of_a_patients_records_add_no_certainty():
    rng = np.random.default_rng(3)
    labels = rng.random((40, 2)) < 0.4
    scores = rng.normal(size=(40, 2)) + labels
    groups = np.array([f"p{i:02d}" for i in range(40)])
    settings = Resampling(resamples=100)
    once = score_table(scores, labels, groups, ["a", "b"], settings)
    copies = [np.repeat(array, 10, axis=0) for array in (scores, labels, groups)]
    tenfold = score_table(*copies, ["a", "b"], settings)
    assert tenfold.macro_auroc.low == pytest.approx(once.macro_auroc.low)
    assert tenfold.macro_auroc.high == pytest.approx(once.macro_auroc.high)
    # Taken for independent records they would seem to: the interval must not shrink so.
    wrong = score_table(copies[0], copies[1], np.arange(400), ["a", "b"], settings)
    width = once.macro_auroc.high - once.macro_auroc.low
    assert wrong.macro_auroc.high - wrong.macro_auroc.low < 0.6 * width


def test_min_positives_leaves_a_label_out_of_the_macro_but_keeps_its_row():
    scores, labels = random_case(1, 50, 2, ties=False)
    labels[:, 1] = False
    labels[:3, 1] = True
    kept = score_table(scores, labels, np.arange(50), ["a", "b"], Resampling(50, 0, 4))
    assert kept.per_label[1].left_out == "3 positive records, fewer than 4"
    assert not math.isnan(kept.per_label[1].auroc.value)
    assert kept.macro_auroc.value == kept.per_label[0].auroc.value
    every = score_table(scores, labels, np.arange(50), ["a", "b"], Resampling(50, 0, 3))
    assert every.per_label[1].left_out == ""


def test_all_labels_undefined_gives_no_macro():
    table = score_table(np.zeros((3, 1)), np.ones((3, 1)), np.arange(3), ["a"], Resampling(20))
    assert math.isnan(table.macro_auroc.value)
    assert math.isnan(table.macro_auroc.low)
    assert table.per_label[0].left_out == "no negative record"


def test_the_difference_is_paired():
    rng = np.random.default_rng(8)
    labels = rng.random((200, 3)) < 0.3
    scores = rng.normal(size=(200, 3)) + labels
    groups = np.arange(200)
    names = ["a", "b", "c"]
    same = compare(scores, scores, labels, groups, names, Resampling(100)).difference
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    nearly = scores + rng.normal(size=scores.shape) * 0.1
    result = compare(scores, nearly, labels, groups, names, Resampling(300))
    values = [result.trained.macro_auroc.value, result.untrained.macro_auroc.value]
    assert result.difference.value == pytest.approx(values[0] - values[1])
    # Two nearly equal models share their sampling error; unpaired, the widths would add up.
    paired = result.difference.high - result.difference.low
    single = result.trained.macro_auroc.high - result.trained.macro_auroc.low
    assert paired < 0.3 * single
    assert result.trained == score_table(scores, labels, groups, names, Resampling(300))


def test_nan_scores_are_an_error_unless_the_label_is_named_as_not_scored():
    scores, labels = random_case(2, 30, 2, ties=False)
    scores[4, 1] = np.nan
    with pytest.raises(ValueError, match="scores of label 'b' hold NaN"):
        score_table(scores, labels, np.arange(30), ["a", "b"], Resampling(10))
    settings = Resampling(10, not_scored={"b": "never trained"})
    table = score_table(scores, labels, np.arange(30), ["a", "b"], settings)
    assert table.per_label[1].left_out == "never trained"
    assert math.isnan(table.per_label[1].auroc.value)
    assert table.macro_auroc.value == table.per_label[0].auroc.value
    with pytest.raises(ValueError, match="hold 1 NaN"):
        auroc(scores, labels)


def test_mismatched_arguments_are_refused():
    scores, labels = random_case(2, 30, 2, ties=False)
    with pytest.raises(ValueError, match="must both be"):
        auroc(scores[:, 0], labels[:, 0])
    with pytest.raises(ValueError, match="must both be"):
        auroc(scores[:0], labels[:0])
    with pytest.raises(ValueError, match="29 groups"):
        score_table(scores, labels, np.arange(29), ["a", "b"])
    with pytest.raises(ValueError, match="unknown labels: z"):
        score_table(scores, labels, np.arange(30), ["a", "b"], Resampling(1, not_scored={"z": ""}))
    with pytest.raises(ValueError, match="at least 1"):
        Resampling(resamples=0)
