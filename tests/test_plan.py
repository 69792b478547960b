"""Which record goes into which shard."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from esi_fast.data.plan import plan_shards, read_patients, split_of
from esi_fast.data.settings import BuildSettings
from esi_fast.signal.catalogue import CatalogueEntry


def entries(keys: list[str] | range, error: str = "") -> Iterator[CatalogueEntry]:
    for number, key in enumerate(keys):
        yield CatalogueEntry(
            key=str(key), path=f"files/{key}", subject_id=f"p{number // 3}", study_id=str(key),
            error=error,
        )  # fmt: skip


class Stream:
    """A catalogue that is walked once."""

    def __init__(self, *parts: Iterator[CatalogueEntry]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[CatalogueEntry]:
        for part in self._parts:
            yield from part


def test_shards_fill_up_in_order_and_hold_every_record_once() -> None:
    settings = BuildSettings(samples_per_shard=100, val_fraction=0.2, test_fraction=0.1)
    shards = [*plan_shards(Stream(entries(range(5000))), settings)]  # type: ignore[arg-type]
    assert [shard.sequence for shard in shards] == [*range(len(shards))]
    for split in ("train", "val", "test"):
        own = [shard for shard in shards if shard.split == split]
        assert [shard.name for shard in own] == [f"{split}-{n:06d}" for n in range(len(own))]
        assert {len(shard.records) for shard in own[:-1]} == {100}
        keys = [int(one.entry.key) for shard in own for one in shard.records]
        assert keys == sorted(keys)
        for shard in own:
            for one in shard.records:
                assert split_of(one.entry.subject_id, 0.2, 0.1) == split
    assert sorted(int(one.entry.key) for shard in shards for one in shard.records) == [*range(5000)]


def test_repeated_keys_are_found_however_far_apart() -> None:
    keys = [*range(9000), 5, 8999, 9000, 5]
    stream = Stream(entries(["4", "7"], error="damaged"), entries(keys))  # type: ignore[arg-type]
    settings = BuildSettings(val_fraction=0, test_fraction=0)
    planned = [one for shard in plan_shards(stream, settings) for one in shard.records]  # type: ignore[arg-type]
    problems = [(one.entry.key, one.problem.kind) for one in planned if one.problem]
    assert problems == [
        ("4", "row"), ("7", "row"), ("5", "duplicate"), ("8999", "duplicate"), ("5", "duplicate")
    ]  # fmt: skip


def test_memory_hardly_grows_with_the_records() -> None:
    settings = BuildSettings(samples_per_shard=64)

    def peak(num_records: int) -> int:
        tracemalloc.start()
        for _ in plan_shards(Stream(entries(range(num_records))), settings):  # type: ignore[arg-type]
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    small, large = peak(20_000), peak(120_000)
    # 8 bytes a record for what was seen, and once more while they are moved.
    assert large - small < 20 * 100_000


@pytest.mark.parametrize(
    ("text", "patients"),
    [
        ("10\n20\n\n# not 30\n", {"10", "20"}),
        ("subject_id\n10\n20.0\n", {"10", "20"}),
        ("ecg_id,patient_id\n1,15709.0\n2,7\n3,\n", {"15709", "7"}),
        ("\ufeffkey,subject_id,split\na,p1,test\nb,p2,test\n", {"p1", "p2"}),
        ("10 # a note\n20\n", {"10", "20"}),
        ("10\u00a0\n20\n", {"10", "20"}),
        ("subject_id\tage\n10\t50\n20\t60\n", {"10", "20"}),
        ("age;patient_id\n50;10\n60;20\n", {"10", "20"}),
        ('subject_id,note\n10,"two\nlines"\n20,x\n', {"10", "20"}),
    ],
)
def test_patients_are_read_from_lists_and_csv_files(
    tmp_path: Path, text: str, patients: set[str]
) -> None:
    path = tmp_path / "patients"
    path.write_text(text, encoding="utf-8")
    assert read_patients(path) == patients


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "names no patients"),
        ("a,b\n1,2\n", "column"),
        ("10\n20 30\n", "line 2 names no patient: '20 30'"),
        ("10\n\n20;30\n", "line 3 names no patient"),
        ("10\n'20'\n", "line 2 names no patient"),
        ("10\n20.00\n", "line 2 names no patient"),
        ("10\n1.0e4\n", "line 2 names no patient"),
        ("10\n2\u200b0\n", "line 2 names no patient"),
        ("subject_id|age\n10|50\n", "line 1 names no patient"),
        ('subject_id,note\n10,"open\n20,x\n', "cannot be read at line 3"),
    ],
)
def test_files_without_patients_are_refused(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "patients").write_text(text)
    with pytest.raises(ValueError, match=what):
        read_patients(tmp_path / "patients")


def test_splits_are_uniform_and_do_not_move() -> None:
    patients = [f"p{number}" for number in range(20_000)]
    splits = [split_of(patient, 0.1, 0.2) for patient in patients]
    shares = {name: splits.count(name) / len(splits) for name in ("train", "val", "test")}
    np.testing.assert_allclose([*shares.values()], [0.7, 0.1, 0.2], atol=0.01)
    for patient, split in zip(patients, splits, strict=True):
        if split_of(patient, 0.3, 0.2) == "train":
            assert split == "train"
        assert (split_of(patient, 0.3, 0.2) == "test") == (split == "test")
