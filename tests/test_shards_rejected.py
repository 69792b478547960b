"""What a build of shards cannot write: listed with its reason, or an error of its own."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shard_tree import (
    NUM_SAMPLES,
    SETTINGS,
    Tree,
    build,
    contents,
    make_tree,
    rows_of,
    samples_in,
    write_record,
)

from esi_fast.cqa.caption import CaptionDictionary
from esi_fast.data import samples
from esi_fast.data.settings import BuildSettings
from esi_fast.data.shards import write_shards
from esi_fast.data.verify import verify_shards


def test_bad_records_are_listed_and_stop_nothing(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", 12)
    stems = [entry.path for entry in tree.entries]
    with stems[0].with_suffix(".dat").open("r+b") as file:
        file.truncate(1000)
    stems[1].with_suffix(".dat").unlink()
    stems[2].with_suffix(".hea").unlink()
    stems[3].with_suffix(".hea").write_text("not a header\n")
    with stems[4].with_suffix(".dat").open("r+b") as file:
        file.write(b"\x01\x02")
    write_record(stems[5], np.full((12, NUM_SAMPLES), -32768, np.int16))
    tree.entries[6] = replace(tree.entries[6], key="a.b/c")
    tree.entries[7] = replace(tree.entries[7], key=tree.entries[8].key, subject_id="p4")
    tree.entries[9] = replace(tree.entries[9], sex="unknown")
    captions = CaptionDictionary([])
    summary = build(tree, tmp_path / "out", captions=captions, **SETTINGS)
    kinds = {row["key"]: row["kind"] for row in rows_of(tmp_path / "out" / "rejected.csv")}
    assert kinds == {
        "k000": "truncated",
        "k001": "missing",
        "k002": "missing",
        "k003": "format",
        "k004": "checksum",
        "k005": "empty",
        "a.b/c": "key",
        "k008": "duplicate",
        "k009": "description",
    }
    assert sum(summary.records.values()) == 3
    assert summary.rejected["missing"] == 2
    assert sorted(samples_in(tmp_path / "out")) == ["k008", "k010", "k011"]
    assert verify_shards(tmp_path / "out") == []


def test_damaged_rows_are_listed_and_stop_nothing(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", 6)
    first, second = tree.entries[:2]
    # A damaged row whose id can be read, before the sound row of the same record.
    tree.entries.insert(0, replace(first, error="records.csv, line 2: 1 fields, not 5"))
    tree.entries.append(replace(second, key="records-line-9", error="records.csv, line 9: bad"))
    build(tree, tmp_path / "out", **SETTINGS)
    rows = rows_of(tmp_path / "out" / "rejected.csv")
    assert sorted((row["key"], row["kind"], row["reason"]) for row in rows) == [
        ("k000", "row", "records.csv, line 2: 1 fields, not 5"),
        ("records-line-9", "row", "records.csv, line 9: bad"),
    ]
    assert sorted(samples_in(tmp_path / "out")) == [f"k{number:03d}" for number in range(6)]


def test_nothing_to_write_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no records in"):
        build(Tree(tmp_path, []), tmp_path / "empty", **SETTINGS)
    tree = make_tree(tmp_path / "tree", 4)
    for entry in tree.entries:
        entry.path.with_suffix(".dat").write_bytes(b"")
    with pytest.raises(ValueError, match=r"all 4 records of .*rejected\.csv"):
        build(tree, tmp_path / "out", **SETTINGS)
    assert sorted(contents(tmp_path / "out")) == ["rejected.csv"]
    assert len(rows_of(tmp_path / "out" / "rejected.csv")) == 4


def test_a_vanished_source_is_an_error(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", 2)
    tree.root.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="vanished"):
        build(tree, tmp_path / "out", **SETTINGS)
    tree.root.mkdir()
    with pytest.raises(FileNotFoundError, match=r"and 2 are missing, such as .*rec\d\.hea"):
        build(tree, tmp_path / "empty", **SETTINGS)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_source_that_vanishes_during_the_build_loses_nothing(
    tmp_path: Path, workers: int
) -> None:
    tree, untouched = make_tree(tmp_path / "tree"), tmp_path / "untouched"
    build(tree, untouched, **SETTINGS)
    done = 0

    def lose(num_records: int) -> None:
        nonlocal done
        done += num_records
        if done >= 5 and not (tmp_path / "moved").exists():
            tree.root.rename(tmp_path / "moved")
            tree.root.mkdir()  # an empty folder stays, as a mount point does

    def write(**options: Any) -> None:
        settings = BuildSettings(**SETTINGS)
        write_shards(tree, tmp_path / "out", settings, workers=workers, **options)

    with pytest.raises(FileNotFoundError, match="the recordings have vanished"):
        write(progress=lose)
    with pytest.raises(FileNotFoundError, match="the recordings have vanished"):
        write(resume=True)
    tree.root.rmdir()
    (tmp_path / "moved").rename(tree.root)
    write(resume=True)
    assert contents(tmp_path / "out") == contents(untouched)


def test_records_that_were_never_there_are_rejected(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", 12)
    for entry in tree.entries[:6]:  # part of an archive, as many people have it
        shutil.rmtree(Path(entry.path).parent)
    summary = build(tree, tmp_path / "out", **SETTINGS)
    assert summary.rejected == {"missing": 6}
    tree.lists_files = True
    with pytest.raises(FileNotFoundError, match=r"rec\d\.hea has vanished since it was listed"):
        build(tree, tmp_path / "listed", **SETTINGS)


def test_trouble_of_the_machine_rejects_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_tree(tmp_path / "tree", 12)
    read = samples.read_records

    def troubled(*arguments: Any, **options: Any) -> Any:
        batch = read(*arguments, **options)
        errors = ("rec.dat: Too many open files", *batch.errors[1:])
        return dataclasses.replace(batch, status=("io", *batch.status[1:]), errors=errors)

    monkeypatch.setattr(samples, "read_records", troubled)
    with pytest.raises(OSError, match=r"could not be read: rec\.dat: Too many open files"):
        build(tree, tmp_path / "out", **SETTINGS)
    monkeypatch.setattr(samples, "read_records", read)
    assert not build(tree, tmp_path / "out", resume=True, **SETTINGS).rejected
