"""Permutation tests and Holm's correction: by hand, under the null, over all tasks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import kstest, rankdata
from scored_labels import SETTINGS, label_result, two_contenders
from sklearn.metrics import roc_auc_score

from esi_fast.evaluation.bootstrap import Resampling
from esi_fast.evaluation.results import QueryResult
from esi_fast.evaluation.significance import (
    holm,
    macro_auroc_p_value,
    p_value,
    paired_p_value,
)
from esi_fast.evaluation.summary import summarise


def test_a_permutation_equals_swapping_the_ranks_by_hand():
    """Every swap of six patients; the p value of all of them is the exact one."""
    scores, labels = two_contenders(6, n=9, num_labels=2)
    labels[:, 1] = [1, 0, 1, 0, 0, 1, 0, 0, 1]
    scores["b"] = np.round(scores["b"])  # ties
    groups = np.array(list("aabbccdef"))
    ranks = {c: rankdata(scores[c], axis=0) for c in "ab"}
    differences = []
    for swap in itertools.product([False, True], repeat=6):
        swapped = np.array(swap)[np.unique(groups, return_inverse=True)[1]][:, None]
        one = np.where(swapped, ranks["b"], ranks["a"])
        other = np.where(swapped, ranks["a"], ranks["b"])
        differences.append(
            roc_auc_score(labels, one, average="macro")
            - roc_auc_score(labels, other, average="macro")
        )
    exact = np.mean(np.abs(differences) >= abs(differences[0]) - 1e-12)
    settings = Resampling(resamples=4000, seed=0)
    ours = macro_auroc_p_value(scores["a"], scores["b"], labels, groups, settings)
    assert ours == pytest.approx(exact, abs=0.03)


def test_the_scale_of_the_scores_does_not_matter():
    scores, labels = two_contenders(9)
    groups = np.arange(60).astype(str)
    plain = macro_auroc_p_value(scores["a"], scores["b"], labels, groups, SETTINGS)
    stretched = np.exp(3 * scores["b"]) + 100
    assert macro_auroc_p_value(scores["a"], stretched, labels, groups, SETTINGS) == plain


def test_p_values_are_uniform_where_nothing_differs_and_small_where_it_does():
    rng = np.random.default_rng(11)
    settings = Resampling(resamples=99)
    groups = np.repeat(np.arange(20), 2)
    null, real, outcomes = [], [], []
    for _ in range(120):
        labels = (rng.random((20, 1)) < 0.4).repeat(2, axis=0)
        labels[:2], labels[2:4] = True, False
        # What the two share, and what is each patient's own: records of a patient are alike.
        common = labels + rng.normal(size=(20, 1)).repeat(2, axis=0)
        noise = 0.5 * rng.normal(size=(2, 20, 1)).repeat(2, axis=1)
        one, other = common + noise[0], common + noise[1]
        null.append(macro_auroc_p_value(one, 7 * other, labels, groups, settings))
        real.append(macro_auroc_p_value(one + 2 * labels, other, labels, groups, settings))
        outcomes.append(paired_p_value(one[:, 0], other[:, 0], groups, settings))
    assert kstest(null, "uniform").pvalue > 0.01
    assert kstest(outcomes, "uniform").pvalue > 0.01
    assert np.median(real) < 0.05


def test_the_observed_difference_counts_with_the_permuted_ones():
    assert p_value(np.array([1.0, 0.5, -1.0, 0.2])) == 0.5
    assert p_value(np.array([2.0, 0.5, -1.0, 0.2])) == 0.25


def test_medians_are_permuted_as_medians():
    """Means are told apart by one great outlier, medians by where most values lie."""
    rng = np.random.default_rng(3)
    other = rng.normal(size=30)
    one = other + 0.5
    one[0] = -100.0
    groups = np.arange(30)
    settings = Resampling(200)
    assert paired_p_value(one, other, groups, settings, median=True) < 0.05
    assert paired_p_value(one, other, groups, settings) > 0.5


@pytest.mark.parametrize("seed", range(5))
def test_holm_equals_its_closed_form(seed: int):
    """Largest over all p not larger, of that p times the number of those not smaller."""
    p = np.random.default_rng(seed).random(6) ** 3
    p[1] = p[2]
    expected = [
        max(min(1.0, (p >= smaller).sum() * smaller) for smaller in p[p <= own]) for own in p
    ]
    assert holm(p.tolist()) == pytest.approx(expected)


def test_holm_of_a_known_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_one_correction_over_all_tasks():
    scores, labels = two_contenders(9)
    outcomes = {c: {"rank-1": (scores[c][:, 0] > 0).astype(float)} for c in "ab"}
    labelled = label_result(scores, labels)
    queries = QueryResult("identify", "test", labelled.keys, labelled.groups, outcomes)
    tasks = summarise([labelled, queries], SETTINGS)
    rows = [tasks[t]["comparisons"]["b"] for t in ("probe", "identify")]
    assert [row["p_holm"] for row in rows] == holm([row["p"] for row in rows])
    with pytest.raises(ValueError, match="two results are named 'probe'"):
        summarise([labelled, labelled], SETTINGS)
