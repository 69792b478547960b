"""Zero-shot scores on a model whose embeddings are known, and the datasets that feed it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_fakes import NoiseModel, PlantedModel, planted_dataset, planted_split
from sklearn.metrics import f1_score, roc_auc_score

from esi_fast.data.signals import fit_signals
from esi_fast.evaluation.bootstrap import Resampling
from esi_fast.evaluation.datasets import DEFAULT_FOLDS, _check_patients, open_dataset, parse_folds
from esi_fast.evaluation.embed import Embedder, embed_ecg, embed_prompts
from esi_fast.evaluation.label_summary import summarise_labels
from esi_fast.evaluation.zeroshot import zero_shot

AXES = np.eye(12)
PROMPTS = {"first": ["a first", "the first"], "second": ["a second"]}
TEXTS = {"a first": 5 * AXES[0], "the first": 0.1 * AXES[1], "a second": AXES[2]}


def noisy_case(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.random((n, 2)) < 0.3
    embeddings = rng.normal(size=(n, 12))
    embeddings[:, 0] += 2 * labels[:, 0]
    embeddings[:, 2] += 2 * labels[:, 1]
    return embeddings.astype(np.float32), labels


def test_scores_are_cosines_to_the_mean_prompt_and_give_the_known_auroc():
    embeddings, labels = noisy_case()
    dataset = planted_dataset([planted_split("test", embeddings, labels)], PROMPTS)
    model = PlantedModel(TEXTS)
    result = zero_shot(
        {
            "model": Embedder(model, dataset, batch_size=64),
            "random-0": Embedder(NoiseModel(TEXTS), dataset),
        }
    )
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    # The two prompts of "first" weigh the same, whatever the length of their embeddings.
    expected = np.stack([(unit[:, 0] + unit[:, 1]) / np.sqrt(2), unit[:, 2]], axis=1)
    assert result.scores["model"] == pytest.approx(expected, abs=1e-6)
    assert (result.labels == labels).all()
    summary = summarise_labels(result, Resampling(100))
    found, untrained = (summary["contenders"][name] for name in ("model", "random-0"))
    for k, name in enumerate(PROMPTS):
        auroc = found["labels"][name]["auroc"]
        assert auroc["value"] == pytest.approx(roc_auc_score(labels[:, k], expected[:, k]))
        assert auroc["low"] < auroc["value"] < auroc["high"]
    assert found["macro"]["auroc"]["value"] > 0.8
    assert untrained["macro"]["auroc"]["value"] == pytest.approx(0.5, abs=0.08)
    assert result.details["prompts"] == {name: list(texts) for name, texts in PROMPTS.items()}
    assert result.details["prompts_by"] == "name"
    assert result.not_scored == {}
    assert "thresholds" not in result.details
    assert set(model.normalize_seen) == {False}
    assert model.batches == [64, 64, 64, 64, 44]


def test_perfect_and_reversed_embeddings():
    labels = np.array([[1, 1], [1, 1], [0, 0], [0, 0]])
    embeddings = np.where(labels[:, :1], AXES[0] + AXES[1], -AXES[0] - AXES[1])
    embeddings[:, 2] = -labels[:, 1]
    dataset = planted_dataset([planted_split("test", embeddings, labels)], PROMPTS)
    scores = zero_shot({"model": Embedder(PlantedModel(TEXTS), dataset)}).scores["model"]
    assert [roc_auc_score(labels[:, k], scores[:, k]) for k in range(2)] == [1.0, 0.0]


def test_prompts_of_a_users_own_are_what_is_scored(tmp_path: Path):
    embeddings, labels = noisy_case(40)
    dataset = planted_dataset([planted_split("test", embeddings, labels)], PROMPTS)
    file = tmp_path / "mine.toml"
    file.write_text('[second]\nname = ["mine"]\n[first]\ndescription = ["looks like it"]\n')
    vectors = TEXTS | {"mine": AXES[7], "looks like it": AXES[8]}
    contenders = {"model": Embedder(PlantedModel(vectors), dataset)}
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    named = zero_shot(contenders, prompts=file)
    assert named.scores["model"][:, 1] == pytest.approx(unit[:, 7], abs=1e-6)
    assert named.details["prompts"]["second"] == ["mine"]
    described = zero_shot(contenders, prompts=file, kind="description")
    assert described.scores["model"][:, 0] == pytest.approx(unit[:, 8], abs=1e-6)
    # Nothing describes the second label, so that it is not scored rather than scored by name.
    assert np.isnan(described.scores["model"][:, 1]).all()
    assert described.not_scored == {
        "second": "no prompt by description: write one in a file of prompts"
    }
    both = zero_shot(contenders, prompts=file, kind="both")
    expected = (unit[:, 0] + unit[:, 1] + unit[:, 8]) / np.sqrt(3)
    assert both.scores["model"][:, 0] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="no label of dataset planted has a prompt by description"):
        zero_shot(contenders, kind="description")


def test_thresholds_are_chosen_on_validation_patients():
    embeddings, labels = noisy_case(60)
    labels[:, 1] = False
    val = planted_split("val", embeddings, labels)
    test = planted_split("test", *noisy_case(20))
    dataset = planted_dataset([val, test], PROMPTS)
    contenders = {"model": Embedder(PlantedModel(TEXTS), dataset)}
    thresholds = zero_shot(contenders).details["thresholds"]["model"]
    on_val = zero_shot(contenders, split="val")
    assert "thresholds" not in on_val.details
    scores = on_val.scores["model"][:, 0]
    assert set(thresholds) == {"first"}
    best = max(f1_score(labels[:, 0], scores >= one) for one in scores)
    assert f1_score(labels[:, 0], scores >= thresholds["first"]) == best


def test_a_split_is_embedded_once_for_all_tasks():
    embeddings, labels = noisy_case(20)
    dataset = planted_dataset([planted_split("test", embeddings, labels)], PROMPTS)
    model = PlantedModel(TEXTS)
    embedder = Embedder(model, dataset)
    embedder.ecg("test")
    embedder.ecg("test")
    assert model.batches == [20]


def test_unreadable_records_are_left_out_and_named():
    embeddings, labels = noisy_case(10)
    split = planted_split("test", embeddings, labels, unreadable={0: "no .dat file", 7: "torn"})
    dataset = planted_dataset([split], PROMPTS)
    embedder = Embedder(PlantedModel(TEXTS), dataset, batch_size=4)
    whole = planted_dataset([planted_split("test", embeddings, labels)], PROMPTS)
    result = zero_shot({"model": embedder, "other": Embedder(PlantedModel(TEXTS), whole)})
    assert result.errors == {"test-0000": "no .dat file", "test-0007": "torn"}
    kept = [1, 2, 3, 4, 5, 6, 8, 9]
    assert result.keys.tolist() == [f"test-{row:04d}" for row in kept]
    assert (result.labels == labels[kept]).all()
    assert (result.scores["other"] == result.scores["model"]).all()
    assert embedder.ecg("test").values == pytest.approx(embeddings[kept])


def test_unusable_splits_and_embeddings_are_refused():
    embeddings, labels = noisy_case(4)
    dataset = planted_dataset([planted_split("test", embeddings, labels)], PROMPTS)
    with pytest.raises(ValueError, match="no records in split 'val'"):
        Embedder(PlantedModel(), dataset).ecg("val")
    bad = planted_split("test", embeddings, labels, unreadable=dict.fromkeys(range(4), "torn"))
    with pytest.raises(ValueError, match=r"no record of split test .*test-0000: torn"):
        embed_ecg(PlantedModel(), bad)
    embeddings[2, 3] = np.inf
    with pytest.raises(ValueError, match="record test-0002 is not finite"):
        embed_ecg(PlantedModel(), planted_split("test", embeddings, labels))
    with pytest.raises(ValueError, match="number 1 has no prompt"):
        embed_prompts(PlantedModel(TEXTS), [["a first"], []])
    with pytest.raises(ValueError, match="no direction"):
        embed_prompts(PlantedModel({"x": np.zeros(12)}), [["x"]])


def test_many_prompts_are_embedded_a_batch_at_a_time(monkeypatch: pytest.MonkeyPatch):
    texts = {f"text {i}": AXES[i % 12] for i in range(600)}
    model, asked = PlantedModel(texts), []
    encode = model.encode_text

    def count(some: Sequence[str]) -> torch.Tensor:
        asked.append(len(some))
        return encode(some)

    monkeypatch.setattr(model, "encode_text", count)
    names = list(texts)
    found = embed_prompts(model, [*zip(names[::2], names[1::2], strict=True), ("text 0",)])
    assert asked == [256, 256, 88]
    wanted = [AXES[2 * i % 12] + AXES[(2 * i + 1) % 12] for i in range(300)]
    assert found[:300] == pytest.approx(np.stack(wanted) / np.sqrt(2), abs=1e-6)
    assert found[300] == pytest.approx(AXES[0])


def test_signals_are_brought_to_the_models_rate_and_length():
    signals = np.ones((2, 12, 5000), np.float32)
    assert fit_signals(signals, 500.0, 500.0, 2500).shape == (2, 12, 2500)
    padded = fit_signals(signals, 500.0, 500.0, 6000)
    assert np.isnan(padded[..., 5000:]).all()
    assert (padded[..., :5000] == 1).all()
    halved = fit_signals(signals, 500.0, 250.0, 2500)
    assert halved.shape == (2, 12, 2500)
    assert halved == pytest.approx(np.ones_like(halved), abs=1e-3)


def test_folds_are_parsed_strictly():
    assert parse_folds("train=1-8,val=9,test=10") == DEFAULT_FOLDS
    assert parse_folds("test=8, val=7 ,train=1-6")["train"] == (1, 2, 3, 4, 5, 6)
    for text in ("train=1-8", "train=a,val=9,test=10", "train=1-8,val=8,test=10", "dev=1",
                 "train=8-1,val=9,test=10", "train=1-x,val=9,test=10", ""):  # fmt: skip
        with pytest.raises(ValueError, match="fold"):
            parse_folds(text)


def test_a_patient_in_two_splits_is_refused():
    _check_patients({"train": {"1", "2"}, "test": {"3"}})
    with pytest.raises(ValueError, match="1 patients are in both train and test, such as 2"):
        _check_patients({"train": {"1", "2"}, "test": {"2", "3"}})


def test_what_is_not_available_is_said(tmp_path: Path):
    for name, labels, message in (
        ("icbeb", "concepts", "'icbeb' is not available .available: shards, ptbxl, cinc, cpsc"),
        ("shards", "super", "'super' are not available for shards"),
        ("ptbxl", "sup", "'sup' are not available for ptbxl .available: concepts, all, diagnostic"),
    ):
        with pytest.raises(ValueError, match=message):
            open_dataset(name, tmp_path, fs=100, num_samples=1000, labels=labels)
    with pytest.raises(FileNotFoundError, match="absent does not exist"):
        open_dataset("ptbxl", tmp_path / "absent", fs=100, num_samples=1000)
    with pytest.raises(ValueError, match="folds are PTB-XL's"):
        open_dataset("shards", tmp_path, fs=100, num_samples=1000, folds=DEFAULT_FOLDS)


def test_ptbxl_superclasses_are_read_by_name(shared_data: Path):
    """The oracle counts superclasses straight from the csv files."""
    import ast
    import csv

    root = shared_data / "ptb-xl"
    with (root / "scp_statements.csv").open() as file:
        superclass = {row[""]: row["diagnostic_class"] for row in csv.DictReader(file)}
    expected: dict[str, set[int]] = {}
    with (root / "ptbxl_database.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for code in ast.literal_eval(row["scp_codes"]):
            if row["strat_fold"] == "8" and superclass[code]:
                expected.setdefault(superclass[code], set()).add(int(row["ecg_id"]))

    folds = parse_folds("train=1-6,val=7,test=8")
    dataset = open_dataset("ptbxl", root, fs=100, num_samples=1000, labels="super", folds=folds)
    assert dataset.label_names == ("CD", "HYP", "MI", "NORM", "STTC")
    test = dataset.split("test")
    found = {
        name: {int(key) for key, positive in zip(test.keys, column, strict=True) if positive}
        for name, column in zip(dataset.label_names, test.labels.T, strict=True)
    }
    assert {name: ids for name, ids in found.items() if ids} == expected
    labelled = [
        row for row in rows if any(superclass[code] for code in ast.literal_eval(row["scp_codes"]))
    ]
    assert sum(len(split.keys) for split in dataset.splits.values()) == len(labelled)
    signals, errors = test.read([0, 5])
    assert signals.shape == (2, 12, 1000)
    assert errors == ("", "")
    assert np.isfinite(signals).mean() > 0.99


def test_ptbxl_concepts_have_prompts(shared_data: Path):
    dataset = open_dataset(
        "ptbxl",
        shared_data / "ptb-xl",
        fs=100,
        num_samples=1000,
        folds=parse_folds("train=1-6,val=7,test=8"),
    )
    assert {"atrial_fibrillation", "left_bundle_branch_block"} <= set(dataset.label_names)
    assert all(dataset.prompts)
    assert "atrial fibrillation" in dataset.titles
