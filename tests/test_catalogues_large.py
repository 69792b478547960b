"""Catalogues of large archives: memory, rows in another order, what is sent to other processes."""

from __future__ import annotations

import pickle
import random
import tracemalloc
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest
from test_catalogues import MACHINE, REPORTS, write_csv

from esi_fast.signal import machine_reports, wfdb_folder
from esi_fast.signal.catalogues import open_catalogue

STATEMENTS = ("Sinus rhythm", "Left axis deviation", "T wave changes, diffuse", "Abnormal ECG")


def write_archive(root: Path, num_records: int, arrange: Callable[[list[object]], object]) -> Path:
    """The csv files of an archive: a patient a record; ``arrange`` orders the machine's rows."""
    root.mkdir()
    numbers = range(num_records)
    write_csv(
        root / "record_list.csv",
        ["subject_id", "study_id", "file_name", "ecg_time", "path"],
        [
            [10_000_000 + i, 40_000_000 + i, i, "2180-07-23 08:44:00", f"files/s{i}/{i}"]
            for i in numbers
        ],
    )
    rows: list[object] = []
    for i in numbers:
        said = [STATEMENTS[i % 4], "", STATEMENTS[i // 4 % 4], *[""] * 15]
        values = [600 + i % 500, 40, 128, 170, 258 + i % 30, 518, 81, 77, i % 100]
        rows.append([10_000_000 + i, 40_000_000 + i, 7, "", *said, "x", *values])
    arrange(rows)
    header = ["subject_id", "study_id", "cart_id", "ecg_time", *REPORTS, "bandwidth", *MACHINE]
    write_csv(root / "machine_measurements.csv", header, rows)  # type: ignore[arg-type]
    write_csv(
        root / "patients.csv",
        ["subject_id", "gender", "anchor_age", "anchor_year"],
        [[10_000_000 + i, "FM"[i % 2], 20 + i % 60, 2150 + i % 30] for i in numbers],
    )
    return root


def peak_bytes(run: Callable[[], object]) -> int:
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def in_order(rows: list[object]) -> None:
    """Leave them."""


@pytest.mark.parametrize(
    ("arrange", "bytes_a_row"),
    [
        (in_order, 40),
        (list.reverse, 80),
        (lambda rows: rows.pop(3), 80),  # one record without a row
    ],
)
def test_memory_hardly_grows_with_the_rows(
    tmp_path: Path, arrange: Callable[[list[object]], object], bytes_a_row: int
) -> None:
    # A patient a row: 13 bytes and as many while they are sorted; an index is 17 bytes a row.
    few, many = (write_archive(tmp_path / str(count), count, arrange) for count in (4_000, 10_000))
    deque(open_catalogue(few), maxlen=0)  # fills the caches
    peaks = [peak_bytes(lambda root=root: deque(open_catalogue(root), 0)) for root in (few, many)]
    assert (peaks[1] - peaks[0]) / 6_000 < bytes_a_row


@pytest.mark.parametrize("hash_bits", [0xFFFFFFFF, 0xF])
def test_the_order_of_the_machines_rows_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hash_bits: int
) -> None:
    monkeypatch.setattr(machine_reports, "_HASH_BITS", hash_bits)  # few bits: many equal hashes
    sound = list(open_catalogue(write_archive(tmp_path / "sound", 300, in_order)))
    assert sound[7].statements == (STATEMENTS[3], STATEMENTS[1])
    for name, arrange in (("back", list.reverse), ("mixed", random.Random(2).shuffle)):
        other = list(open_catalogue(write_archive(tmp_path / name, 300, arrange)))
        for entry, twin in zip(other, sound, strict=True):
            entry.path = twin.path
            assert entry == twin


def test_rows_of_a_study_that_is_listed_twice(tmp_path: Path) -> None:
    root = write_archive(tmp_path / "a", 6, in_order)
    records, machine = root / "record_list.csv", root / "machine_measurements.csv"
    header, *rows = records.read_text().splitlines()
    records.write_text("\n".join([header, rows[3], rows[0], rows[3], rows[0], rows[5], rows[3]]))
    header, *rows = machine.read_text().splitlines()
    again = rows[3].replace(STATEMENTS[3], "again")
    machine.write_text("\n".join([header, *rows[:4], "10,4", again, "", *rows[4:], rows[3]]))
    entries = list(open_catalogue(root))
    # The walk comes by the damaged row when it looks for the second row of the study.
    assert [(entry.study_id[-1:], entry.statements[:1]) for entry in entries] == [
        ("3", ("Abnormal ECG",)),
        ("0", ("Sinus rhythm",)),
        ("", ()),
        ("3", ("again",)),
        ("0", ()),
        ("5", ("Left axis deviation",)),
        ("3", ("Abnormal ECG",)),
    ]
    assert entries[2].error == "machine_measurements.csv, line 6: 2 fields, not 32"


def test_ids_and_years_of_any_size(tmp_path: Path) -> None:
    root, long = write_archive(tmp_path / "a", 7, in_order), "9" * 30
    subjects = ["7", "07", long, "8", "9", "10", "11"]
    records = root / "record_list.csv"
    text = records.read_text()
    for number, subject in enumerate(subjects):
        text = text.replace(str(10_000_000 + number), subject)
    records.write_text(text)
    write_csv(
        root / "patients.csv",
        ["subject_id", "gender", "anchor_age", "anchor_year"],
        [
            ["07", "F", 1, 2150],
            ["9", "M", 1, "-1e12"],
            [long, "M", 2, 2150],
            ["8", "F", 3, 2150],
            ["7", "M", 4, 2150],
            ["8", "M", 5, 2150],
            ["9", "F", 6, 2150],
            ["10", "F", "", 2150],
            ["11", "F", 0, "-1e12"],
        ],
    )
    assert [(entry.age, entry.sex) for entry in open_catalogue(root)] == [
        (34.0, "male"),
        (31.0, "female"),
        (32.0, "male"),
        (35.0, "male"),  # the later of two rows counts
        (36.0, "female"),
        (None, "female"),
        (1e12 + 2180, "female"),
    ]


def test_lines_end_in_any_of_three_ways(tmp_path: Path) -> None:
    root = write_archive(tmp_path / "a", 50, list.reverse)
    sound = list(open_catalogue(root))
    for end in (b"\n", b"\r", b"\r\n"):
        for path in root.glob("*.csv"):
            path.write_bytes(end.join([*path.read_bytes().splitlines(), b""]))
        catalogue = open_catalogue(root)
        assert (list(catalogue), len(catalogue)) == (sound, 50)


def test_entries_are_sent_as_they_are(tmp_path: Path) -> None:
    entries = list(open_catalogue(write_archive(tmp_path / "a", 1000, in_order)))
    sent = pickle.dumps(entries)
    assert pickle.loads(sent) == entries
    assert len(sent) < 300 * len(entries)


def test_a_folder_is_walked_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["b", "a/x", "a-b/x", "a", "a b", "a/y/z", "a/y-z", "a.b", "c/a", "c.hea/a", "é", "B"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.hea").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "a.dat").touch()
    expected = sorted(tmp_path / name for name in names)
    for run in (4096, 2, 1):  # names held in several runs are merged
        monkeypatch.setattr(wfdb_folder, "_RUN", run)
        catalogue = open_catalogue(tmp_path)
        assert [Path(entry.path) for entry in catalogue] == expected
        assert len(catalogue) == len(names)


def test_memory_hardly_grows_with_the_headers(tmp_path: Path) -> None:
    peaks = []
    for count in (5_000, 12_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            (folder / f"JS{number:06d}.hea").touch()
        peaks.append(peak_bytes(lambda folder=folder: len(open_catalogue(folder))))
    assert (peaks[1] - peaks[0]) / 7_000 < 40
