"""Baselines on simulated and planted records: measurements, and what stands beside a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evaluation_fakes import planted_dataset
from sklearn.metrics import roc_auc_score

from esi_fast.evaluation import run
from esi_fast.evaluation.baselines import (
    boost_measurements,
    feature_names,
    measured_features,
    read_demographics,
)
from esi_fast.evaluation.contenders import beside
from esi_fast.evaluation.label_summary import THRESHOLDS, check_labels
from esi_fast.evaluation.request import Request
from esi_fast.evaluation.splits import EvaluationDataset, EvaluationSplit
from esi_fast.evaluation.xresnet import Bottleneck1d, xresnet1d101
from esi_fast.leads import STANDARD_LEADS
from esi_fast.signal.catalogues import open_catalogue
from esi_fast.signal.measure import measure
from esi_fast.signal.records import read_record
from esi_fast.signal.simulate_tree import write_tree

FS, SECONDS = 250, 5
PROMPTS = {"fast": ["fast"], "absent": ["absent"]}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("records") / "tree"
    write_tree(root, 72, seed=5, fs=FS, duration=SECONDS)
    return root


@pytest.fixture(scope="module")
def dataset(tree: Path) -> EvaluationDataset:
    """Records of a simulator; "fast" is a rate above 80 bpm, "absent" no record has."""
    entries = list(open_catalogue(tree))
    signals = np.stack([read_record(entry.path).signal for entry in entries])
    rates = np.array([measure(signal, FS).heart_rate for signal in signals])
    labels = np.column_stack([rates > np.nanmedian(rates), np.zeros(len(rates), bool)])

    def split(name: str, taken: slice) -> EvaluationSplit:
        part, keys = signals[taken], tuple(entry.key for entry in entries[taken])

        def read(rows):
            reasons = tuple("cut off" if name == "test" and row == 2 else "" for row in rows)
            return part[list(rows)], reasons

        return EvaluationSplit(name, keys, np.array(keys), labels[taken], read)

    parts = {"train": slice(0, 40), "val": slice(40, 52), "test": slice(52, 72)}
    return planted_dataset([split(name, taken) for name, taken in parts.items()], PROMPTS)


def test_features_are_what_is_measured_and_what_is_known_of_the_patient(
    dataset: EvaluationDataset,
):
    target = dataset.split("test")
    demographics = {target.keys[0]: (71.0, 1.0), target.keys[1]: (np.nan, 0.0)}
    rows, features, errors = measured_features(dataset, "test", FS, demographics)
    assert rows.tolist() == [row for row in range(20) if row != 2]
    assert errors == {target.keys[2]: "cut off"}
    names = feature_names()
    assert features.shape == (19, len(names))
    assert len(set(names)) == len(names)
    for row, values in zip(rows[:3], features[:3], strict=True):
        one = measure(target.read([row])[0][0], FS)
        found = dict(zip(names, values.tolist(), strict=True))
        assert found["qrs"] == pytest.approx(one.qrs, nan_ok=True)
        assert found["V1 s"] == pytest.approx(one.amplitudes["V1"]["s"], nan_ok=True)
    assert features[0, -2:].tolist() == [71.0, 1.0]
    assert np.isnan(features[1, -2])
    assert features[1, -1] == 0.0
    assert np.isnan(features[2:, -2:]).all()


def test_age_and_sex_are_read_where_the_dataset_gives_them(tmp_path: Path):
    lines = {"a": ["# Age: 56", "# Sex: Female"], "b": ["# Age: NaN", "# Sex: Male"], "c": []}
    for name, comments in lines.items():
        signals = [f"{name}.mat 16 1000/mV 16 0 0 0 0 {lead}" for lead in STANDARD_LEADS]
        text = [f"{name} 12 500 5000", *signals, *comments]
        (tmp_path / f"{name}.hea").write_text("\n".join(text) + "\n")
    found = read_demographics("cinc", tmp_path)
    assert found["a"] == (56.0, 0.0)
    assert np.isnan(found["b"][0])
    assert found["b"][1] == 1.0
    assert np.isnan(found["c"]).all()
    assert read_demographics("csv", tmp_path) == {}


def test_boosting_finds_in_the_measurements_what_defines_the_label(dataset: EvaluationDataset):
    result = boost_measurements(dataset, fs=FS)
    check_labels(result)
    scores = result.scores["measurements"]
    assert roc_auc_score(result.labels[:, 0], scores[:, 0]) > 0.9
    assert result.not_scored == {"absent": "no positive training record"}
    assert np.isnan(scores[:, 1]).all()
    assert result.details["trees"]["fast"] >= 1
    assert set(result.details[THRESHOLDS]["measurements"]) == {"fast"}
    with pytest.raises(ValueError, match="split train is learned from"):
        boost_measurements(dataset, fs=FS, split="train")


def test_contenders_stand_beside_each_other_on_the_records_that_both_have(
    dataset: EvaluationDataset,
):
    first = boost_measurements(dataset, fs=FS)
    backwards = np.arange(len(first.keys))[::-1][:-4]
    second = replace(
        first,
        keys=first.keys[backwards],
        groups=first.groups[backwards],
        labels=first.labels[backwards],
        scores={"other": first.scores["measurements"][backwards] / 2},
        probabilities=frozenset(),
        not_scored={},
        details={"how": "half", THRESHOLDS: {"other": {"fast": 0.1}}},
        errors={"x": "gone"},
    )
    both = beside("finetune", [first, second])
    check_labels(both)
    assert both.keys.tolist() == first.keys[4:].tolist()
    assert np.array_equal(both.labels, first.labels[4:])
    assert both.scores["other"][:, 0] == pytest.approx(both.scores["measurements"][:, 0] / 2)
    assert both.probabilities == {"measurements"}
    assert not both.not_scored
    assert both.details["other"] == {"how": "half"}
    assert set(both.details[THRESHOLDS]) == {"measurements", "other"}
    assert both.errors == {**first.errors, "x": "gone"}
    with pytest.raises(ValueError, match="contender measurements is in two results"):
        beside("finetune", [first, first])
    with pytest.raises(ValueError, match="differ in labels or split"):
        beside("finetune", [first, replace(second, split="val")])
    with pytest.raises(ValueError, match="no record was scored by all"):
        beside("finetune", [first, replace(second, keys=np.array(["?"] * len(backwards)))])
    with pytest.raises(ValueError, match="no result"):
        beside("finetune", [])


def test_a_bottleneck_starts_as_its_shortcut_and_rounds_time_up():
    block = Bottleneck1d(256, 64, 2).eval()
    x_BCT = torch.randn(2, 256, 25)
    odd = torch.nn.functional.avg_pool1d(x_BCT, 2, ceil_mode=True)
    assert torch.equal(block(x_BCT), odd.relu())
    same = Bottleneck1d(256, 64, 1).eval()
    assert torch.equal(same(x_BCT), x_BCT.relu())


def test_xresnet_sees_every_lead_and_the_whole_record():
    torch.manual_seed(0)
    network = xresnet1d101(2).eval()
    x_BLT = torch.randn(1, 12, 400, requires_grad=True)
    network(x_BLT).sum().backward()
    assert (x_BLT.grad.abs().sum(dim=2) > 0).all()
    assert x_BLT.grad[0, :, :50].abs().sum() > 0
    assert x_BLT.grad[0, :, -50:].abs().sum() > 0


def test_measurements_are_taken_at_an_electrocardiographs_rate_and_in_millivolts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    opened = []

    def open_unseen(request: Request, fs: float, num_samples: int) -> str:
        opened.append((request.protocol, fs, num_samples))
        return "another"

    monkeypatch.setattr(run, "open_unseen", open_unseen)
    config = SimpleNamespace(fs=100.0, num_samples=1000)
    embedder = SimpleNamespace(model=SimpleNamespace(config=config), dataset="its own")
    common = {"model": tmp_path, "root": tmp_path, "tasks": ("finetune",), "out": tmp_path}
    for name, protocol, wanted in (
        ("shards", "fixed", (100.0, "its own")),
        ("ptbxl", "fixed", (500.0, "another")),
        ("shards", "merl", (100.0, "another")),
    ):
        request = Request(dataset=name, protocol=protocol, **common)
        assert run._measurable(request, embedder) == wanted
    assert opened == [("fixed", 500.0, 5000), ("fixed", 100.0, 1000)]
