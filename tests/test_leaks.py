"""Patients that the model has seen: a planted leak is caught."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shard_tree import SETTINGS, build, make_tree

from esi_fast.evaluation.datasets import EvaluationDataset, EvaluationSplit
from esi_fast.evaluation.leaks import find_leaks, without_leaks


def dataset_of(patients: list[str], keys: list[str], **options: object) -> EvaluationDataset:
    split = EvaluationSplit(
        "test",
        tuple(keys),
        np.array(patients),
        np.eye(len(keys), 2, dtype=bool),
        lambda rows: (np.zeros((len(rows), 12, 5), np.float32), ("",) * len(rows)),
    )
    made = EvaluationDataset("csv", ("a", "b"), ("a", "b"), (("A.",), ("B.",)), {"test": split})
    return replace(made, **{"source": "mimic-iv-ecg", **options})


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leaks")
    tree = make_tree(folder / "tree", 24)
    tree.source = "mimic-iv-ecg"
    build(tree, folder / "shards", **SETTINGS)
    return folder / "shards"


def rows_of(shards: Path) -> list[list[str]]:
    return [line.split(",") for line in (shards / "records.csv").read_text().splitlines()[1:]]


def test_a_planted_leak_is_caught_and_taken_out(shards: Path) -> None:
    seen = next(row for row in rows_of(shards) if row[2] == "train")
    unseen = next(row for row in rows_of(shards) if row[2] == "test")
    dataset = dataset_of([seen[1], unseen[1], "new"], ["x", "y", "z"])
    leaks = find_leaks(dataset, "test", [shards])
    assert leaks.rows.tolist() == [0]
    assert leaks.by == "patient"
    assert leaks.describe() == (
        f"1 records of 1 patients of split test were in the pretraining shards ({seen[1]})"
    )
    clean = without_leaks(dataset, leaks)
    assert clean.split("test").keys == ("y", "z")
    assert "were left out" in clean.notes[-1]
    assert not find_leaks(clean, "test", [shards]).rows.size


def test_where_patients_are_not_known_records_are_compared(shards: Path) -> None:
    seen = next(row for row in rows_of(shards) if row[2] == "val" or row[2] == "train")
    dataset = dataset_of(["p", "q"], [seen[0], "other"], patients_known=False)
    leaks = find_leaks(dataset, "test", [shards])
    assert (leaks.by, leaks.names) == ("record", (seen[0],))


def test_ids_of_another_source_prove_nothing_and_that_is_said(shards: Path) -> None:
    seen = next(row for row in rows_of(shards) if row[2] == "train")
    leaks = find_leaks(dataset_of([seen[1]], ["x"], source="ptb-xl"), "test", [shards])
    assert not leaks.rows.size
    assert leaks.by == ""
    assert "cannot be compared" in leaks.notes[0]


def test_a_split_that_was_seen_whole_is_refused(shards: Path) -> None:
    seen = next(row for row in rows_of(shards) if row[2] == "train")
    dataset = dataset_of([seen[1]], ["x"])
    with pytest.raises(ValueError, match="none is left to evaluate"):
        without_leaks(dataset, find_leaks(dataset, "test", [shards]))
