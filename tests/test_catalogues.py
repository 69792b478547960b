"""Catalogues: who, when and which statements, for the three layouts, and what is wrong with one."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from wfdb_files import samples, write_record

from esi_fast.signal.catalogues import open_catalogue
from esi_fast.signal.measurements import intervals_from_machine
from esi_fast.signal.record_batch import read_records

MACHINE = ["rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end"]
MACHINE += ["p_axis", "qrs_axis", "t_axis"]
REPORTS = [f"report_{i}" for i in range(18)]


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([list(header), *map(list, rows)])


@pytest.fixture
def mimic(tmp_path: Path) -> Path:
    """Three studies of two patients; the machine's rows are in another order and lack one."""
    write_csv(
        tmp_path / "record_list.csv",
        ["subject_id", "study_id", "file_name", "ecg_time", "path"],
        [
            [10, 401, 401, "2180-07-23 08:44:00", "files/p10/s401/401"],
            [10, 402, 402, "2183-01-02 00:00:00", "files/p10/s402/402"],
            [11, 403, 403, "", "files/p11/s403/403"],
        ],
    )
    blank = [""] * 14
    write_csv(
        tmp_path / "machine_measurements.csv",
        ["subject_id", "study_id", "cart_id", "ecg_time", *REPORTS, "bandwidth", *MACHINE],
        [
            [10, 402, 7, "", " Atrial fibrillation ", " ", "", 'ST, "depression"', *blank, "x",
             600, 29999, 29999, 170, 258, 518, 29999, 77, ""],
            [10, 401, 7, "", "Sinus rhythm", "", "", "Normal ECG", *blank, "x",
             659, 40, 128, 170, 258, 518, 81, 77, 79],
        ],
    )  # fmt: skip
    write_csv(
        tmp_path / "patients.csv",
        ["subject_id", "gender", "anchor_age", "anchor_year", "anchor_year_group", "dod"],
        [[10, "F", 52, 2180, "2014 - 2016", ""], [12, "M", 30, 2150, "", ""]],
    )
    return tmp_path


def test_mimic(mimic: Path) -> None:
    catalogue = open_catalogue(mimic)
    assert (catalogue.source, catalogue.root, len(catalogue)) == ("mimic-iv-ecg", mimic, 3)
    first, second, third = catalogue
    assert (first.key, first.study_id, first.subject_id) == ("401", "401", "10")
    assert first.path == str(mimic / "files/p10/s401/401")
    assert (first.age, first.sex, first.ecg_time) == (52.0, "female", "2180-07-23 08:44:00")
    assert first.statements == ("Sinus rhythm", "Normal ECG")
    machine = dict(zip(MACHINE, [659, 40, 128, 170, 258, 518, 81, 77, 79], strict=True))
    assert first.measurements == intervals_from_machine(machine)
    assert first.measurements["pr"] == 130.0
    assert (second.age, second.statements) == (55.0, ("Atrial fibrillation", 'ST, "depression"'))
    assert second.measurements["qrs"] == 88.0
    assert not {"pr", "p_duration", "p_axis", "t_axis"} & set(second.measurements)
    assert (third.age, third.sex, third.ecg_time) == (None, None, None)
    assert (third.statements, third.measurements) == ((), {})
    assert list(catalogue) == [first, second, third]


def test_mimic_without_patients(mimic: Path) -> None:
    (mimic / "patients.csv").unlink()
    assert {(entry.age, entry.sex) for entry in open_catalogue(mimic)} == {(None, None)}


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("10,402,402", "10,4o2,402", "study_id is '4o2', not a number"),
        ("10,402,402", "10,,402", "study_id is '', not a number"),
        ("10,402,402", ",402,402", "subject_id is '', not a number"),
        ("10,402,402", "402", "3 fields, not 5"),
        ("10,402,402", "10,402,402,x", "6 fields, not 5"),
        ("files/p10/s402/402", "", "path is empty"),
    ],
)
def test_a_damaged_row_of_the_record_list_stops_nothing(
    mimic: Path, old: str, new: str, problem: str
) -> None:
    sound = list(open_catalogue(mimic))
    replace_in(mimic / "record_list.csv", old, new)
    catalogue = open_catalogue(mimic)
    first, second, third = catalogue
    assert len(catalogue) == 3
    assert [first, third] == [sound[0], sound[2]]
    assert second.error == f"record_list.csv, line 3: {problem}"
    assert second.key == "record_list-line-3"


def test_a_damaged_row_of_the_machine_stops_nothing(mimic: Path) -> None:
    # A row of a study that can be told takes that record away, which has lost its statements...
    machine = mimic / "machine_measurements.csv"
    sound, text = list(open_catalogue(mimic)), machine.read_text()
    machine.write_text(text[: text.rindex("659")])
    first, *others = open_catalogue(mimic)
    assert others == sound[1:]
    assert (first.key, first.statements) == ("401", ())
    assert first.error == "machine_measurements.csv, line 3: 24 fields, not 32"
    # ...and any other is listed by itself: here also a study_id that may have been cut short.
    for old, new, problem in (
        ("10,401,", "10,,", "study_id is '', not a number"),
        (text[text.index("10,401,") :], "10,40", "2 fields, not 32"),
    ):
        machine.write_text(text)
        replace_in(machine, old, new)
        catalogue = open_catalogue(mimic)
        row, first, second, third = catalogue
        assert len(catalogue) == 3
        assert row.key == "machine_measurements-line-3"
        assert row.error == f"machine_measurements.csv, line 3: {problem}"
        assert (first.key, first.statements, first.error) == ("401", (), "")
        assert [second, third] == sound[1:]


def test_a_damaged_row_of_the_patients_stops_nothing(mimic: Path) -> None:
    sound = list(open_catalogue(mimic))
    replace_in(mimic / "patients.csv", "12,M,30,2150,,", "12,M")
    row, *others = open_catalogue(mimic)
    assert (row.key, row.error) == ("patients-line-3", "patients.csv, line 3: 2 fields, not 6")
    assert others == sound
    replace_in(mimic / "patients.csv", "10,F,52", ",F,inf")
    first_row, _, first, second, _ = open_catalogue(mimic)
    assert first_row.error == "patients.csv, line 2: subject_id is '', not a number"
    assert {(entry.age, entry.sex) for entry in (first, second)} == {(None, None)}


def test_the_study_may_be_the_last_column(mimic: Path) -> None:
    sound, machine = list(open_catalogue(mimic)), mimic / "machine_measurements.csv"
    with machine.open(newline="") as file:
        rows = [[*row[:1], *row[2:], row[1]] for row in csv.reader(file)]
    write_csv(machine, rows[0], rows[1:])
    assert list(open_catalogue(mimic)) == sound


def test_whether_patients_are_known(mimic: Path, tmp_path: Path) -> None:
    assert open_catalogue(mimic).patients_known
    folder = tmp_path / "folder"
    folder.mkdir()
    write_record(folder / "a", samples(20))
    assert not open_catalogue(folder).patients_known


def test_ptb_xl(tmp_path: Path) -> None:
    header = ["ecg_id", "patient_id", "age", "sex", "recording_date", "report", "scp_codes"]
    header += ["strat_fold", "filename_lr", "filename_hr"]
    names = ["records100/00000/00001_lr", "records500/00000/00001_hr"]
    rows = [
        [1, "15709.0", "56.0", 1, "1984-11-09 09:17:34", "two\nlines", "{'NORM': 100.0, 'SR': 0.0}",
         3, *names],
        [21837, "8.0", "300.0", 0, "", "", "{}", 10, *names],
        [7, 9, "", "", "", "", "{'AFIB': 0}", "", *names],
    ]  # fmt: skip
    write_csv(tmp_path / "ptbxl_database.csv", header, rows)
    (tmp_path / "records100").mkdir()
    assert next(iter(open_catalogue(tmp_path))).path == str(tmp_path / names[0])
    (tmp_path / "records500").mkdir()
    catalogue = open_catalogue(tmp_path)
    assert (catalogue.source, len(catalogue)) == ("ptb-xl", 3)
    first, second, third = catalogue
    assert (first.key, first.subject_id) == ("00001", "15709")
    assert first.path == str(tmp_path / names[1])
    assert (first.age, first.sex, first.fold) == (56.0, "female", 3)
    assert (first.statements, first.ecg_time) == (("NORM", "SR"), "1984-11-09 09:17:34")
    assert (second.key, second.age, second.sex, second.fold) == ("21837", 90.0, "male", 10)
    assert (second.statements, second.ecg_time) == ((), None)
    assert (third.age, third.sex, third.fold, third.statements) == (None, None, None, ("AFIB",))


@pytest.mark.parametrize(
    ("column", "text", "problem"),
    [
        ("patient_id", "", "patient_id is '', not a number"),
        ("patient_id", "8.5", "patient_id is '8.5', not a whole number"),
        ("patient_id", "inf", "patient_id is 'inf', not a number"),
        ("ecg_id", "x", "ecg_id is 'x', not a number"),
        ("age", "nan", "age is 'nan', not a number"),
        ("scp_codes", "{'NORM': ", "scp_codes is \"{'NORM': \", not a dictionary"),
        ("scp_codes", "['NORM']", "scp_codes is \"['NORM']\", not a dictionary"),
        ("scp_codes", "{1: 100.0}", "scp_codes is '{1: 100.0}', not a dictionary"),
        ("scp_codes", "{[]: 1}", "scp_codes is '{[]: 1}', not a dictionary"),
        ("strat_fold", "ten", "strat_fold is 'ten', not a number"),
        ("filename_hr", "", "filename_hr is empty"),
    ],
)
def test_a_damaged_row_of_ptb_xl_stops_nothing(
    tmp_path: Path, column: str, text: str, problem: str
) -> None:
    header = ["ecg_id", "patient_id", "age", "sex", "recording_date", "scp_codes", "strat_fold"]
    header += ["filename_lr", "filename_hr"]
    rows = [
        [number, 8, 56, 0, "", "{'NORM': 100.0}", 3, f"lr{number}", f"hr{number}"]
        for number in range(1, 6)
    ]
    rows[1][header.index(column)] = text
    rows[3] = rows[3][:4]
    write_csv(tmp_path / "ptbxl_database.csv", header, rows)
    (tmp_path / "records500").mkdir()
    catalogue = open_catalogue(tmp_path)
    entries = list(catalogue)
    assert len(entries) == len(catalogue) == 5
    assert entries[1].error == f"ptbxl_database.csv, line 3: {problem}"
    assert entries[1].key == ("ptbxl_database-line-3" if column == "ecg_id" else "00002")
    assert entries[3].error == "ptbxl_database.csv, line 5: 4 fields, not 9"
    assert entries[3].key == "ptbxl_database-line-5"
    assert [entry.fold for entry in entries] == [3, None, 3, None, 3]
    sound = [entry for entry in entries if not entry.error]
    assert [entry.key for entry in sound] == ["00001", "00003", "00005"]


def test_an_open_quote_says_how_much_it_has_swallowed(tmp_path: Path) -> None:
    header = ["ecg_id", "patient_id", "age", "sex", "recording_date", "scp_codes", "strat_fold"]
    lines = [f"{number},8,56,0,,{{}},3,hr{number}" for number in range(1, 9)]
    (tmp_path / "records500").mkdir()
    table = tmp_path / "ptbxl_database.csv"
    lines[2] = lines[2].replace(",56", ',"56')
    table.write_text("\n".join([",".join([*header, "filename_hr"]), *lines]) + "\n")
    first, second, third = open_catalogue(tmp_path)
    assert (first.error, second.error) == ("", "")
    assert third.error == "ptbxl_database.csv, line 4: 3 fields, not 8 (up to line 9)"
    # What no field may hold ends the row; the rows after it are read again.
    lines[2] = lines[2].replace('"56', "5" * 140_000)
    table.write_text("\n".join([",".join([*header, "filename_hr"]), *lines]) + "\n")
    entries = list(open_catalogue(tmp_path))
    assert [bool(entry.error) for entry in entries] == [number == 2 for number in range(8)]
    assert "line 4: field larger than field limit" in entries[2].error


def test_folder(tmp_path: Path) -> None:
    for name, comments in [
        ("b/E-01.x", "# Age: 78\n# Sex: Male\n# Dx: 67741000119109, 426177001\n"),
        ("a", "#<age>: 51\n#<sex>: F\n"),
        ("c", f"# Age: {'9' * 400}\n# Sex: Unknown\n# Dx: Unknown\n"),
    ]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        stem = write_record(tmp_path / name, samples(20))
        header = stem.with_name(f"{stem.name}.hea")
        header.write_text(header.read_text().replace(f"{stem.name} ", "n ", 1) + comments)
    (tmp_path / "d.hea").write_text("broken")
    catalogue = open_catalogue(tmp_path)
    assert (catalogue.source, len(catalogue)) == ("wfdb", 4)
    a, b, c, d = catalogue
    assert re.fullmatch("b--E-01_x-[0-9a-f]{8}", b.key)
    assert b.subject_id == "E-01.x"
    assert b.path == str(tmp_path / "b/E-01.x")
    assert (b.age, b.sex, b.statements) == (78.0, "male", ("67741000119109", "426177001"))
    assert (a.age, a.sex, a.statements) == (51.0, "female", ())
    for entry in (c, d):
        assert (entry.age, entry.sex, entry.statements) == (None, None, ())
    assert d.key == "d"


@pytest.mark.parametrize(
    ("folder", "source"),
    [("mimic-like", "mimic-iv-ecg"), ("ptb-xl", "ptb-xl"), ("cinc2021", "wfdb"), ("ludb", "ludb")],
)
def test_real_folders(shared_data: Path, folder: str, source: str) -> None:
    catalogue = open_catalogue(shared_data / folder)
    assert catalogue.source == source
    entries = list(catalogue)
    assert len(entries) == len(catalogue)
    assert len({entry.key for entry in entries}) == len(entries)
    assert all(re.fullmatch("[A-Za-z0-9_-]+", entry.key) for entry in entries)
    assert all(Path(f"{entry.path}.hea").is_file() for entry in entries)
    assert sum(entry.sex is not None for entry in entries) >= 0.9 * len(entries)
    assert all(entry.age is None or 0 <= entry.age <= 120 for entry in entries)


def test_mimic_like_and_ptb_xl_tell_the_same_story(shared_data: Path) -> None:
    # The first was made from the second: same patients in other words, signals within one step of
    # the coarser ADC (5 uV).
    mimic = list(open_catalogue(shared_data / "mimic-like"))
    ptb_xl = {int(entry.key): entry for entry in open_catalogue(shared_data / "ptb-xl")}
    twins = [ptb_xl[int(entry.key) - 40_000_000] for entry in mimic]
    assert [entry.sex for entry in mimic] == [twin.sex for twin in twins]
    for entry, twin in zip(mimic, twins, strict=True):
        assert entry.subject_id.endswith(twin.subject_id)
        # MIMIC-IV knows whole years only: the age of a second study may be off by one.
        assert (entry.age is None) == (twin.age is None)
        assert entry.age is None or twin.age is None or abs(entry.age - twin.age) <= 1
    ours = read_records([entry.path for entry in mimic[:20]]).signal
    theirs = read_records([twin.path for twin in twins[:20]]).signal
    assert np.abs(ours - theirs).max() <= 0.0026


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        open_catalogue(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no record_list\.csv, ptbxl_database\.csv or"):
        open_catalogue(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file: not a folder"):
        open_catalogue(tmp_path / "file")
    with pytest.raises(ValueError, match="source 'edf' is not one of"):
        open_catalogue(tmp_path, "edf")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"record_list\.csv: no such file"):
        open_catalogue(tmp_path, "mimic-iv-ecg")
    with pytest.raises(FileNotFoundError, match="no folder records500 or records100"):
        open_catalogue(tmp_path, "ptb-xl")


def test_broken_tables(mimic: Path) -> None:
    machine = mimic / "machine_measurements.csv"
    text = machine.read_text()
    machine.write_text(text.replace("qrs_onset", "q").replace("t_axis", "t"))
    with pytest.raises(ValueError, match=r"machine_measurements\.csv: lacks .* qrs_onset, t_axis"):
        open_catalogue(mimic)
    machine.unlink()
    with pytest.raises(FileNotFoundError, match=r"machine_measurements\.csv: no such file"):
        open_catalogue(mimic)
    (mimic / "record_list.csv").write_text("subject_id,study_id,file_name,ecg_time,path\n")
    machine.write_text(text)
    with pytest.raises(ValueError, match=r"record_list\.csv: lists no records"):
        open_catalogue(mimic)
    (mimic / "record_list.csv").write_text("")
    with pytest.raises(ValueError, match=r"record_list\.csv: lacks the column\(s\) subject_id"):
        open_catalogue(mimic)


def test_ludb_is_read_with_one_gain_for_all_leads(shared_data: Path) -> None:
    catalogue = open_catalogue(shared_data / "ludb")
    entries = list(catalogue)
    assert len(entries) == len(catalogue) == 120
    first = entries[0]
    assert (first.key, first.subject_id, first.age, first.sex) == ("1", "1", 51.0, "female")
    assert first.statements == (
        "Sinus bradycardia",
        "Electric axis of the heart: left axis deviation",
        "Left ventricular overload",
        "Left ventricular hypertrophy",
        "Non-specific repolarization abnormalities: posterior wall",
    )
    assert catalogue.adc_units_per_mv == 1000.0
    paths = [entry.path for entry in entries]
    batch = read_records(paths, dtype="int16", adc_units_per_mv=catalogue.adc_units_per_mv)
    i, ii, iii, avr, avl, avf = batch.signal.astype(np.int64).transpose(1, 0, 2)[:6]
    # Exact but for the rounding of the halves; by the headers' gains, far from it.
    assert np.abs(i + iii - ii).max() <= 1
    assert max(np.abs(two).max() for two in (2 * avr + i + ii, 2 * avl - i + iii)) <= 2
    assert np.abs(2 * avf - ii - iii).max() <= 2
    by_header = read_records(paths[:20]).signal
    assert np.abs(by_header[:, 0] + by_header[:, 2] - by_header[:, 1]).max() > 0.1


def test_damaged_ludb_rows_are_named(tmp_path: Path, shared_data: Path) -> None:
    (tmp_path / "data").mkdir()
    text = (shared_data / "ludb" / "ludb.csv").read_text()
    (tmp_path / "ludb.csv").write_text(
        text.replace('\n2,"M', '\ntwo,"M').replace('51\n"', '>89\n"')
    )
    entries = list(open_catalogue(tmp_path))
    assert entries[0].age == 90.0
    assert "ID 'two' is not a number" in entries[1].error
    (tmp_path / "data").rmdir()
    with pytest.raises(FileNotFoundError, match="no folder data"):
        open_catalogue(tmp_path)


# ------------------------------------------------------------------------------- folders of headers
