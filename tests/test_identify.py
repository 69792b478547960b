"""Identification and verification on planted patients, against loops over all pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from query_fakes import brute_force_rank, contender

from esi_fast.evaluation import identify as module
from esi_fast.evaluation import match_ranks as ranks_module
from esi_fast.evaluation.bootstrap import Resampling
from esi_fast.evaluation.identify import identify
from esi_fast.evaluation.query_summary import summarise_pairs, summarise_queries
from esi_fast.evaluation.splits import EvaluationSplit


def population(seed: int, noise: float, num_patients: int = 40, dim: int = 12):
    """Patients with 1 to 4 records around a direction of their own, in shuffled order."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, num_patients)
    patient = rng.permutation(np.repeat(np.arange(num_patients), sizes))
    centres = rng.normal(size=(num_patients, dim))
    values = centres[patient] + noise * rng.normal(size=(len(patient), dim))
    return values.astype(np.float32), [f"p{number}" for number in patient]


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.mark.parametrize("block", [50, 1 << 24])
def test_ranks_and_pairs_are_those_of_loops(block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ranks_module, "_MAX_COSINES", block)
    values, groups = population(0, noise=1.0)
    queries, pairs = identify({"model": contender(values, groups)})
    keys = [f"k{row:05d}" for row in range(len(values))]
    gallery: dict[str, int] = {}
    for row, group in enumerate(groups):
        gallery.setdefault(group, row)
    probes = {row for row in range(len(values)) if row not in gallery.values()}
    assert sorted(queries.keys) == [keys[row] for row in sorted(probes)]
    directions = unit(values)
    enrolled = list(gallery.values())
    for place, key in enumerate(queries.keys):
        row = keys.index(key)
        assert queries.groups[place] == groups[row]
        matches = np.array([groups[one] == groups[row] for one in enrolled])
        rank = brute_force_rank(directions[row], directions[enrolled], matches)
        assert queries.outcomes["model"]["rank-1"][place] == (rank == 1)
        assert queries.outcomes["model"]["rank-5"][place] == (rank <= 5)
    assert 0.2 < queries.outcomes["model"]["rank-1"].mean() < 1
    singles = sum(groups.count(group) == 1 for group in set(groups))
    assert queries.details["distractors"] == singles > 0
    assert queries.details["gallery"] == 40

    expected = sorted(
        (groups[i] == groups[j], round(float(directions[i] @ directions[j]), 5))
        for i, j in combinations(range(len(values)), 2)
    )
    found = zip(pairs.same.tolist(), pairs.scores["model"].round(5).tolist(), strict=True)
    assert np.array(sorted(found)) == pytest.approx(np.array(expected), abs=2e-5)
    assert ((pairs.groups[:, 0] == pairs.groups[:, 1]) == pairs.same).all()


def test_a_perfect_a_chance_and_a_constant_identifier():
    perfect, groups = population(1, noise=1e-3)
    rng = np.random.default_rng(2)
    contenders = {
        "perfect": contender(perfect, groups),
        "chance": contender(rng.normal(size=perfect.shape), groups),
        "constant": contender(np.tile(rng.normal(size=12), (len(perfect), 1)), groups),
    }
    queries, pairs = identify(contenders)
    settings = Resampling(50)
    found = summarise_queries(queries, settings)["contenders"]
    verified = summarise_pairs(pairs, settings)["contenders"]
    assert found["perfect"]["measures"]["rank-1"]["value"] == 1
    assert verified["perfect"]["measures"]["eer"]["value"] == 0
    assert verified["perfect"]["measures"]["tar"]["value"] == 1
    assert [queries.details[f"chance rank-{k}"] for k in (1, 5)] == [1 / 40, 5 / 40]
    num = len(queries.keys)
    spread = 4 * np.sqrt(queries.details["chance rank-1"] / num)
    assert found["chance"]["measures"]["rank-1"]["value"] < 1 / 40 + spread
    assert verified["chance"]["measures"]["eer"]["value"] == pytest.approx(0.5, abs=0.1)
    assert found["constant"]["measures"]["rank-5"]["value"] == 0
    assert verified["constant"]["measures"]["eer"]["value"] == pytest.approx(0.5, abs=1e-6)


def test_enrolled_is_the_first_by_key_and_never_asked():
    values = np.eye(4)[[0, 1, 0, 2]]
    one = contender(values, ["a", "b", "a", "c"], keys=["9", "5", "3", "4"])
    queries, _ = identify({"model": one})
    assert queries.keys.tolist() == ["9"]
    assert queries.outcomes["model"]["rank-1"].tolist() == [1.0]


def test_records_that_one_contender_lacks_count_for_none():
    values, groups = population(3, noise=0.1)
    lacking = contender(values, groups, unreadable={0: "torn", 5: "short"})
    queries, pairs = identify({"whole": contender(values, groups), "lacking": lacking})
    without = contender(
        np.delete(values, [0, 5], 0),
        np.delete(groups, [0, 5]),
        keys=[f"k{row:05d}" for row in range(len(values)) if row not in (0, 5)],
    )
    alone, alone_pairs = identify({"whole": without})
    assert queries.errors == {"k00000": "torn", "k00005": "short"}
    assert queries.keys.tolist() == alone.keys.tolist()
    for name in ("whole", "lacking"):
        assert (queries.outcomes[name]["rank-1"] == alone.outcomes["whole"]["rank-1"]).all()
        assert (pairs.scores[name] == alone_pairs.scores["whole"]).all()


def test_too_many_pairs_are_drawn_evenly_and_the_same_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_PAIRS", 60)
    values, groups = population(4, noise=0.5)
    _, pairs = identify({"model": contender(values, groups)}, seed=1)
    total = len(values) * (len(values) - 1) // 2
    assert pairs.details["genuine_pairs"] == pairs.details["impostor_pairs"] == 60
    in_all = pairs.details["genuine_pairs_in_all"] + pairs.details["impostor_pairs_in_all"]
    assert in_all == total
    distinct = zip(*pairs.groups.T, pairs.scores["model"], strict=True)
    assert len(set(distinct)) == 120
    _, again = identify({"model": contender(values, groups)}, seed=1)
    _, other = identify({"model": contender(values, groups)}, seed=2)
    assert (pairs.scores["model"] == again.scores["model"]).all()
    assert (pairs.scores["model"] != other.scores["model"]).any()
    # Over many draws each of the pairs comes about as often as any other.
    counts = np.zeros(300)
    ends = np.array([0, 100, 300])
    for seed in range(200):
        drawn, number = module._draw_pairs(np.zeros(3, np.int64), np.diff(ends, prepend=0), seed)
        assert number == 300
        np.add.at(counts, ends[drawn[:, 0] - 1] + drawn[:, 1], 1)
    assert counts.mean() == 40
    assert 15 < counts.min() <= counts.max() < 70


class Repeating:
    """Embeds the mean of what is recorded: two halves of one record are alike."""

    def __init__(self) -> None:
        self.seen = np.empty((0, 12))

    def encode_ecg(self, ecg_BLT: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        assert not torch.isnan(ecg_BLT[:, :, :4]).any()
        assert torch.isnan(ecg_BLT[:, :, 4:]).all()
        mean_BL = ecg_BLT[:, :, :4].mean(dim=2)
        self.seen = np.concatenate([self.seen, mean_BL.numpy()])
        return mean_BL


def test_halves_of_one_record_only_where_asked():
    rng = np.random.default_rng(5)
    beat = rng.normal(size=(20, 12, 1))
    # Nine samples: the one in the middle is in neither half.
    signals = np.concatenate([beat.repeat(4, axis=2), 1e3 + 0 * beat, 3 * beat.repeat(4, 2)], 2)
    split = EvaluationSplit(
        "test",
        tuple(f"r{i:02d}" for i in range(20)),
        np.array([f"p{i}" for i in range(20)]),
        np.zeros((20, 1), bool),
        lambda rows: (signals[list(rows)].astype(np.float32), ("",) * len(rows)),
    )
    model = Repeating()
    one = contender(signals[:, :, 0], split.groups, model=model)
    one.dataset.split = lambda name: split
    with pytest.raises(ValueError, match=r"none of 20 patients in split test .*--same-record"):
        identify({"model": one})
    queries, pairs = identify({"model": one}, same_record_crops=True)
    assert model.seen == pytest.approx(np.concatenate([beat, 3 * beat])[:, :, 0], rel=1e-5)
    assert queries.keys.tolist() == [f"r{i:02d} last half" for i in np.argsort(split.groups)]
    assert (queries.outcomes["model"]["rank-1"] == 1).all()
    assert pairs.same.sum() == 20
    for details in (queries.details, pairs.details):
        assert details["same_record_crops"] is True
        assert "crops of one recording" in details["records"]


def test_halves_are_of_what_was_recorded():
    rng = np.random.default_rng(6)
    beat = rng.normal(size=(20, 12, 1))
    signals = np.full((20, 12, 20), np.nan, np.float32)
    signals[:, :, 2:10] = np.concatenate([beat.repeat(4, axis=2), 3 * beat.repeat(4, 2)], 2)
    signals[7], signals[8, :, 3:] = np.nan, np.nan
    split = EvaluationSplit(
        "test",
        tuple(f"r {i:02d}" for i in range(20)),
        np.array([f"p{i}" for i in range(20)]),
        np.zeros((20, 1), bool),
        lambda rows: (signals[list(rows)], ("",) * len(rows)),
    )
    model = Repeating()
    one = contender(signals[:, :, 0], split.groups, model=model)
    one.dataset.split = lambda name: split
    queries, pairs = identify({"model": one}, same_record_crops=True)
    kept = np.delete(beat[:, :, 0], [7, 8], axis=0)
    assert model.seen == pytest.approx(np.concatenate([kept, 3 * kept]), rel=1e-5)
    assert pairs.same.sum() == 18
    assert queries.errors == dict.fromkeys(("r 07", "r 08"), "every sample is missing")


def test_one_patient_alone_is_refused():
    with pytest.raises(ValueError, match="all 3 records of split test are of one patient"):
        identify({"model": contender(np.eye(3), ["a"] * 3)})
    with pytest.raises(ValueError, match="no model to evaluate"):
        identify({})


def test_the_earliest_record_is_enrolled_where_times_are_known() -> None:
    values, groups = population(3, noise=0.5)
    rng = np.random.default_rng(3)
    years = rng.permutation(len(groups))
    times = np.array([f"{2000 + year}-01-01 12:00:00" for year in years])
    queries, _ = identify({"model": contender(values, groups, times=times)})
    keys = [f"k{row:05d}" for row in range(len(values))]
    earliest = {
        min(rows, key=lambda row: times[row])
        for rows in ([r for r, g in enumerate(groups) if g == group] for group in set(groups))
    }
    asked = {key for row, key in enumerate(keys) if row not in earliest}
    assert set(queries.keys) == asked
    assert "by time" in str(queries.details["enrolled"])
    assert asked != set(identify({"model": contender(values, groups)})[0].keys)
