"""Patients that the model has seen: a planted leak is caught."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shard_tree import SETTINGS, build, make_tree

from esi_fast.evaluation.datasets import open_dataset
from esi_fast.evaluation.leaks import find_leaks, without_leaks
from esi_fast.evaluation.splits import EvaluationDataset, EvaluationSplit
from esi_fast.signal.catalogues import open_catalogue


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


def test_records_of_a_tree_are_found_from_whatever_folder_it_is_entered(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", 24)
    build(open_catalogue(tmp_path / "tree"), tmp_path / "shards", **SETTINGS)
    split_of = {row[1]: row[2] for row in rows_of(tmp_path / "shards")}
    assert set(split_of.values()) == {"train", "val", "test"}
    names = [f"rec{number}" for number in range(24)]
    table = "".join(f"{name.replace('rec', 'r0')}/{name},1,test\n" for name in names[10:])
    (tmp_path / "tree" / "labels.csv").write_text(f"record,x,split\n{table}")
    by_table = open_dataset("csv", tmp_path / "tree", labels="labels.csv", fs=500, num_samples=1000)
    leaks = find_leaks(by_table, "test", [tmp_path / "shards"])
    seen = [name for name in names[10:] if split_of[name] != "test"]
    assert [leaks.by, len(leaks.rows)] == ["record", len(seen)]
    assert {Path(name).name for name in leaks.names} == set(seen)

    folder = tmp_path / "tree" / seen[0].replace("rec", "r0")
    with (folder / f"{seen[0]}.hea").open("a") as header:
        header.write("# Dx: 426783006\n")
    inner = open_dataset("cinc", folder, fs=500, num_samples=1000)
    (split,) = inner.splits
    assert inner.split(split).keys == (seen[0],)
    assert find_leaks(inner, split, [tmp_path / "shards"]).names == (seen[0],)


def test_a_table_in_a_known_database_has_its_ids(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", 24)
    for number, entry in enumerate(tree.entries):
        entry.key, entry.subject_id = f"{number:05d}", f"{900 + number // 2}"
    tree.source = "ptb-xl"
    build(tree, tmp_path / "shards", **SETTINGS)
    key, patient = next(row[:2] for row in rows_of(tmp_path / "shards") if row[2] == "train")
    for name, split, by in (("ptb-xl", "test", "record"), ("mimic-iv-ecg", "test", "")):
        keys = [f"records500/00000/{key}_hr", "records500/00000/99999_hr"]
        leaks = find_leaks(
            dataset_of(["a", "b"], keys, source=name, patients_known=False),
            split,
            [tmp_path / "shards"],
        )
        assert (leaks.by, leaks.rows.tolist()) == (by, [0] if by else [])
    leaks = find_leaks(
        dataset_of([patient, "b"], ["x_hr", "y_hr"], source="ptb-xl"), "test", [tmp_path / "shards"]
    )
    assert leaks.names == (patient,)


def test_a_list_that_is_not_the_shards_own_is_refused(shards: Path, tmp_path: Path) -> None:
    copied = tmp_path / "shards"
    shutil.copytree(shards, copied)
    lines = (copied / "records.csv").read_text().splitlines(keepends=True)
    (copied / "records.csv").write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match="is not the file that was written"):
        find_leaks(dataset_of(["p"], ["x"]), "test", [copied])
    (copied / "records.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"records\.csv is missing"):
        find_leaks(dataset_of(["p"], ["x"]), "test", [copied])
