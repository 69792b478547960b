"""Intervals, tests and controls: against plain loops over resamples and known distributions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scored_labels import SETTINGS, label_result, two_contenders
from sklearn.metrics import roc_auc_score, roc_curve

from esi_fast.evaluation import bootstrap
from esi_fast.evaluation.bootstrap import Resampling, draw_patients, record_weights
from esi_fast.evaluation.label_summary import shuffle_labels, summarise_labels
from esi_fast.evaluation.query_summary import (
    pair_weights,
    summarise_pairs,
    summarise_queries,
    weighted_median,
)
from esi_fast.evaluation.results import PairResult, QueryResult


def bounds(interval: dict[str, float]) -> list[float]:
    return [interval["low"], interval["high"]]


def test_every_resample_draws_as_many_patients_and_keeps_their_records_together():
    groups = np.array(["b", "a", "b", "c", "b", "a"])
    weights = np.concatenate([*record_weights(groups, Resampling(200, 1))], axis=1).T
    assert weights.shape == (200, 6)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 0] == weights[:, 4]).all()
    assert (weights[:, 1] == weights[:, 5]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert weights[:, 3].mean() == pytest.approx(1.0, abs=0.2)


def test_blocks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch):
    whole = np.concatenate([*draw_patients(30, Resampling(50, 4), num_rows=30)], axis=1)
    monkeypatch.setattr(bootstrap, "_MAX_WEIGHTS", 7 * 30)
    pieces = list(draw_patients(30, Resampling(50, 4), num_rows=30))
    assert len(pieces) == 8
    assert (np.concatenate(pieces, axis=1) == whole).all()


def test_the_intervals_equal_a_plain_loop_over_resamples():
    """The oracle expands each resample into records and asks scikit-learn, label by label."""
    scores, labels = two_contenders(5)
    groups = np.array([f"p{i % 20}" for i in range(60)])
    labels[:, 1] = groups == "p7"  # undrawn in a third of the resamples
    labels[:, 2] = False
    summary = summarise_labels(label_result(scores, labels, groups), SETTINGS)

    macros = {"a": [], "b": []}
    firsts = []
    for weights in np.concatenate([*record_weights(groups, SETTINGS)], axis=1).T:
        rows = np.repeat(np.arange(60), weights.astype(int))
        defined = [k for k in range(3) if 0 < labels[rows, k].sum() < len(rows)]
        for name in macros:
            areas = [roc_auc_score(labels[rows, k], scores[name][rows, k]) for k in defined]
            macros[name].append(np.mean(areas))
        firsts.append(roc_auc_score(labels[rows, 0], scores["a"][rows, 0]))
    a = summary["contenders"]["a"]
    expected = np.mean([roc_auc_score(labels[:, k], scores["a"][:, k]) for k in (0, 1)])
    assert a["macro"]["auroc"]["value"] == pytest.approx(expected)
    difference = summary["comparisons"]["b"]["differences"]["auroc"]
    for interval, oracle in (
        (a["macro"]["auroc"], macros["a"]),
        (a["labels"]["label_0"]["auroc"], firsts),
        (difference, np.subtract(macros["a"], macros["b"])),
    ):
        assert bounds(interval) == pytest.approx(np.percentile(oracle, [2.5, 97.5]))
    assert a["labels"]["label_2"]["auroc"] == {"value": None, "low": None, "high": None}
    assert summary["labels"]["label_2"]["left_out"] == "no patient with it"


def test_of_one_patient_there_is_no_interval_and_patients_count_not_records():
    rng = np.random.default_rng(0)
    scores = {"a": rng.normal(size=(60, 2))}
    groups = np.array([f"p{i // 6}" for i in range(60)])
    labels = np.zeros((60, 2), dtype=bool)
    labels[:6, 0] = True  # six records of one patient
    labels[::6, 1] = True  # ten of ten
    summary = summarise_labels(label_result(scores, labels, groups), Resampling(50))
    assert summary["labels"]["label_0"]["left_out"] == "1 patient with it, fewer than 5"
    assert summary["labels"]["label_1"]["left_out"] == ""
    rows = summary["contenders"]["a"]["labels"]
    assert rows["label_0"]["auroc"]["value"] is not None
    assert rows["label_0"]["auroc"]["low"] is None
    assert rows["label_1"]["auroc"]["low"] is not None


def test_one_patient_gives_no_interval_and_no_control():
    rng = np.random.default_rng(0)
    scores = {"a": rng.random((20, 1)), "b": rng.random((20, 1))}
    labels = rng.random((20, 1)) < 0.5
    result = label_result(scores, labels, np.array(["p"] * 20), probabilities=frozenset("ab"))
    summary = summarise_labels(result, Resampling(50, min_positives=1))
    macro = summary["contenders"]["a"]["macro"]
    assert {name: row["low"] for name, row in macro.items()} == dict.fromkeys(macro)
    assert macro["auroc"]["value"] is not None
    differences = summary["comparisons"]["b"]["differences"]
    assert all(row["low"] is None for row in differences.values())
    assert summary["control"]["auroc"]["value"] is None


def test_the_interval_covers_the_known_area():
    """Binormal scores a distance d apart have AUROC Phi(d / sqrt 2)."""
    distance = 1.0
    truth = 0.5 * (1 + math.erf(distance / 2))
    rng = np.random.default_rng(0)
    labels = np.arange(150) < 50
    scores = rng.normal(size=(150, 200)) + distance * labels[:, None]
    result = label_result({"a": scores}, np.tile(labels[:, None], 200))
    rows = summarise_labels(result, Resampling(200))["contenders"]["a"]["labels"].values()
    covered = sum(row["auroc"]["low"] <= truth <= row["auroc"]["high"] for row in rows)
    # Columns share the resamples but not the scores: about a binomial(200, 0.95).
    assert 177 <= covered <= 199


def test_copies_of_a_patients_records_add_no_certainty():
    scores, labels = two_contenders(3, n=40)
    groups = np.array([f"p{i:02d}" for i in range(40)])

    def width(copies: int, groups: np.ndarray) -> float:
        repeated = {"a": np.repeat(scores["a"], copies, axis=0)}
        result = label_result(repeated, np.repeat(labels, copies, axis=0), groups)
        summary = summarise_labels(result, Resampling(100))
        low, high = bounds(summary["contenders"]["a"]["macro"]["auroc"])
        return high - low

    once = width(1, groups)
    assert width(10, np.repeat(groups, 10)) == pytest.approx(once)
    # Taken for independent records they would seem to: the interval must not shrink so.
    assert width(10, np.arange(400).astype(str)) < 0.6 * once


def test_too_few_positives_leave_a_label_out_of_the_macro_but_keep_its_row():
    scores, labels = two_contenders(1, n=50, num_labels=2)
    labels[:, 1] = False
    labels[:3, 1] = True
    result = label_result(scores, labels)
    few = summarise_labels(result, Resampling(50, 0, 4))
    a = few["contenders"]["a"]
    assert few["labels"]["label_1"]["left_out"] == "3 patients with it, fewer than 4"
    assert a["labels"]["label_1"]["auroc"]["value"] is not None
    assert a["macro"]["auroc"]["value"] == a["labels"]["label_0"]["auroc"]["value"]
    every = summarise_labels(result, Resampling(50, 0, 3))
    assert every["labels"]["label_1"]["left_out"] == ""
    assert every["contenders"]["a"]["macro"] != a["macro"]


def test_a_label_that_one_contender_could_not_score_counts_for_none():
    scores, labels = two_contenders(2)
    scores["b"][:, 1] = np.nan
    summary = summarise_labels(
        label_result(scores, labels, not_scored={"label_2": "never trained"}), SETTINGS
    )
    assert summary["labels"]["label_1"]["left_out"] == "not scored by b"
    assert summary["labels"]["label_2"]["left_out"] == "never trained"
    a = summary["contenders"]["a"]
    assert a["macro"]["auroc"]["value"] == a["labels"]["label_0"]["auroc"]["value"]
    assert a["labels"]["label_1"]["auroc"]["value"] is not None


def test_without_a_label_that_counts_there_is_no_macro_and_no_test():
    scores, labels = two_contenders(2)
    summary = summarise_labels(label_result(scores, np.ones_like(labels)), SETTINGS)
    assert summary["contenders"]["a"]["macro"]["auroc"]["value"] is None
    assert summary["comparisons"]["b"]["p"] is None
    assert summary["labels"]["label_0"]["left_out"] == "no patient without it"


def test_the_difference_is_paired():
    scores, labels = two_contenders(8, n=200)
    scores["b"] = scores["a"] + np.random.default_rng(1).normal(size=labels.shape) * 0.1
    summary = summarise_labels(label_result(scores, labels), Resampling(300))
    macros = [summary["contenders"][c]["macro"]["auroc"] for c in "ab"]
    difference = summary["comparisons"]["b"]["differences"]["auroc"]
    assert difference["value"] == pytest.approx(macros[0]["value"] - macros[1]["value"])
    # Two nearly equal models share their sampling error; unpaired, the widths would add up.
    paired, single = (high - low for low, high in map(bounds, (difference, macros[0])))
    assert paired < 0.3 * single
    scores["b"] = scores["a"]
    same = summarise_labels(label_result(scores, labels), SETTINGS)["comparisons"]["b"]
    assert same["differences"]["f_max"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert same["p"] == 1.0


def test_calibration_is_told_of_probabilities_only():
    scores, labels = two_contenders(4)
    scores["a"] = 1 / (1 + np.exp(-scores["a"]))
    summary = summarise_labels(
        label_result(scores, labels, probabilities=frozenset(["a"])), SETTINGS
    )
    assert set(summary["contenders"]["a"]["macro"]) - set(summary["contenders"]["b"]["macro"]) == {
        "brier",
        "calibration_error",
    }
    brier = summary["contenders"]["a"]["labels"]["label_0"]["brier"]
    assert brier["value"] == pytest.approx(np.mean((scores["a"][:, 0] - labels[:, 0]) ** 2))
    assert brier["low"] < brier["value"] < brier["high"]


def test_shuffled_labels_score_one_half_within_the_interval():
    """A control that could fail: the same scores on true labels are far from one half."""
    rng = np.random.default_rng(4)
    patients = rng.integers(60, size=200)
    labels = (rng.random((60, 3)) < 0.4)[patients]
    scores = {"a": rng.normal(size=(200, 3)) + 2 * labels}
    groups = np.char.add("p", patients.astype(str))
    contained = []
    for seed in range(20):
        result = label_result(scores, labels, groups)
        summary = summarise_labels(result, Resampling(100, seed))
        low, high = bounds(summary["control"]["auroc"])
        contained.append(low <= 0.5 <= high)
        assert summary["contenders"]["a"]["macro"]["auroc"]["low"] > 0.8
    assert sum(contained) >= 17


def test_shuffling_deals_whole_patients():
    groups = np.array(list("aaabbcd"))
    labels = np.array([[1], [1], [0], [0], [1], [0], [1]], bool)
    for seed in range(10):
        shuffled = shuffle_labels(labels, groups, seed)
        of_a = shuffled[:3, 0].tolist()
        assert of_a in ([1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 1, 1])
    assert any((shuffle_labels(labels, groups, s) != labels).any() for s in range(10))


def test_means_and_medians_of_queries_equal_a_plain_loop():
    rng = np.random.default_rng(5)
    groups = np.array([f"p{i % 15}" for i in range(40)])
    outcomes = {
        c: {"rank-1": (rng.random(40) < s).astype(float), "median rank": rng.integers(1, 9, 40) * s}
        for c, s in (("a", 0.8), ("b", 0.5))
    }
    outcomes["a"]["rank-1"][:5] = np.nan
    result = QueryResult(
        "identify", "test", np.arange(40).astype(str), groups, outcomes, frozenset(["median rank"])
    )
    summary = summarise_queries(result, SETTINGS)
    drawn = {(c, m): [] for c in "ab" for m in outcomes["a"]}
    paired = []
    for weights in np.concatenate([*record_weights(groups, SETTINGS)], axis=1).T:
        rows = np.repeat(np.arange(40), weights.astype(int))
        for (c, m), values in drawn.items():
            centre = np.nanmedian if m == "median rank" else np.nanmean
            values.append(centre(outcomes[c][m][rows]))
        paired.append(np.nanmean((outcomes["a"]["rank-1"] - outcomes["b"]["rank-1"])[rows]))
    for (c, m), values in drawn.items():
        interval = summary["contenders"][c]["measures"][m]
        centre = np.nanmedian if m == "median rank" else np.nanmean
        assert interval["value"] == pytest.approx(centre(outcomes[c][m]))
        assert bounds(interval) == pytest.approx(np.percentile(values, [2.5, 97.5]))
    comparison = summary["comparisons"]["b"]
    assert bounds(comparison["differences"]["rank-1"]) == pytest.approx(
        np.percentile(paired, [2.5, 97.5])
    )
    assert comparison["tested"] == "rank-1"
    assert 0 < comparison["p"] <= 1
    assert summary["contenders"]["a"]["queries"] == {"rank-1": 35, "median rank": 40}


def test_a_weighted_median_is_the_median_of_the_repeated_values():
    rng = np.random.default_rng(6)
    values = rng.integers(0, 6, 11).astype(float)
    weights = rng.integers(0, 3, size=(11, 40)).astype(np.float32)
    weights[:, 0] = 0
    expected = [np.nan] + [np.median(np.repeat(values, w.astype(int))) for w in weights.T[1:]]
    assert weighted_median(values, weights) == pytest.approx(expected, nan_ok=True)


def pair_result(seed: int, num_patients: int = 12) -> PairResult:
    rng = np.random.default_rng(seed)
    one, two = (x.ravel() for x in np.meshgrid(range(num_patients), range(num_patients)))
    same = one == two
    scores = {
        c: np.round(rng.normal(size=same.size) + d * same, 1) for c, d in (("a", 2), ("b", 1))
    }
    groups = np.stack([one, two], axis=1).astype(str)
    return PairResult("verify", "test", groups, same, scores)


def test_verification_equals_a_plain_loop_over_pairs():
    result = pair_result(0)
    summary = summarise_pairs(result, SETTINGS)
    names, patient = np.unique(result.groups, return_inverse=True)
    patient = patient.reshape(-1, 2)
    rates = {c: [] for c in "ab"}
    drawn = np.concatenate([*draw_patients(len(names), SETTINGS, num_rows=144)], axis=1).T
    for times in [np.ones(len(names)), *drawn]:
        weight = np.array([
            times[one] if one == two else times[one] * times[two] for one, two in patient
        ])  # fmt: skip
        for c, scores in result.scores.items():
            false, true, _ = roc_curve(
                result.same, scores, sample_weight=weight, drop_intermediate=False
            )
            rates[c].append(true[false <= 1e-3].max())
    for c, values in rates.items():
        interval = summary["contenders"][c]["measures"]["tar"]
        assert interval["value"] == pytest.approx(values[0])
        assert bounds(interval) == pytest.approx(np.percentile(values[1:], [2.5, 97.5]))
    difference = summary["comparisons"]["b"]["differences"]["tar"]
    assert difference["value"] == pytest.approx(rates["a"][0] - rates["b"][0])
    assert summary["comparisons"]["b"]["p"] is None
    eer = [summary["contenders"][c]["measures"]["eer"]["value"] for c in "ab"]
    assert 0 < eer[0] < eer[1] < 0.5
    assert (summary["same_pairs"], summary["other_pairs"], summary["patients"]) == (12, 132, 12)


def test_pairs_of_a_patient_drawn_twice_count_once_a_draw():
    groups = np.array([["a", "a"], ["a", "b"], ["b", "c"]])
    settings = Resampling(50)
    weights = np.concatenate([*pair_weights(groups, settings)], axis=1)
    a, b, c = np.concatenate([*draw_patients(3, settings, num_rows=3)], axis=1)
    assert (weights == np.stack([a, a * b, b * c])).all()


def test_what_cannot_be_scored_is_told_in_one_line():
    scores, labels = two_contenders(2)
    result = label_result(scores, labels)
    damaged = {"a": scores["a"].copy()}
    damaged["a"][4, 1] = np.nan
    cases = [
        (replace(result, scores=damaged), "score of a for label 'label_1', record r4, is nan"),
        (replace(result, scores={"a": scores["a"][:5]}), r"scores of a are \(5, 3\)"),
        (replace(result, scores={}), "no scores of any contender"),
        (replace(result, groups=result.groups[:5]), "5 patients do not match 60 records"),
        (replace(result, not_scored={"z": "x"}), "unknown labels: z"),
        (replace(result, probabilities=frozenset("a")), "is no probability"),
    ]
    for broken, message in cases:
        with pytest.raises(ValueError, match=message):
            summarise_labels(broken, SETTINGS)
    queries = QueryResult("identify", "test", result.keys, result.groups, {"a": {"r": np.zeros(3)}})
    with pytest.raises(ValueError, match="r of a must be 60 finite numbers"):
        summarise_queries(queries, SETTINGS)
    with pytest.raises(ValueError, match="no outcomes of any contender"):
        summarise_queries(replace(queries, outcomes={}), SETTINGS)
    with pytest.raises(ValueError, match="0 queries"):
        summarise_queries(replace(queries, keys=result.keys[:0], groups=result.keys[:0]), SETTINGS)
    pairs = pair_result(0)
    with pytest.raises(ValueError, match="both kinds are needed"):
        summarise_pairs(replace(pairs, same=np.ones(144, bool)), SETTINGS)
    nan = np.where(np.arange(144) == 3, np.nan, 0.0)
    with pytest.raises(ValueError, match="1 that are not finite"):
        summarise_pairs(replace(pairs, scores={"a": nan}), SETTINGS)
    with pytest.raises(ValueError, match="at least 1"):
        Resampling(resamples=0)
