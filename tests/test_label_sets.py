"""Label sets against the tables that they come from, restated here by hand."""

from __future__ import annotations

import ast
import csv
import tomllib
from pathlib import Path

import numpy as np
import pytest

import esi_fast.evaluation.label_sets as module
from esi_fast.cqa.caption import findings_of
from esi_fast.evaluation.datasets import open_dataset, parse_folds
from esi_fast.evaluation.label_sets import PTBXL_SETS, SETS_OF, label_set
from esi_fast.evaluation.splits import EvaluationDataset

# The challenge's own table of scored diagnoses (PhysioNet/CinC Challenge 2021, dx_mapping_scored):
# code, abbreviation. Four pairs were scored as one diagnosis.
SCORED = """
164889003 AF 164890007 AFL 6374002 BBB 426627000 Brady 733534002 CLBBB 713427006 CRBBB
270492004 IAVB 713426002 IRBBB 39732003 LAD 445118002 LAnFB 164909002 LBBB 251146004 LQRSV
698252002 NSIVCB 426783006 NSR 284470004 PAC 10370003 PR 365413008 PRWP 427172004 PVC
111975006 LQT 164947007 LPR 164917005 QAb 47665007 RAD 59118001 RBBB 427393009 SA 426177001 SB
427084000 STach 63593006 SVPB 164934002 TAb 59931005 TInv 17338001 VPB
"""
PAIRS = {"CLBBB": "LBBB", "CRBBB": "RBBB", "SVPB": "PAC", "VPB": "PVC"}

STATEMENTS = """,description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass
NORM,normal ECG,1.0,,,NORM,NORM
IMI,inferior MI,1.0,,,MI,IMI
AMI,anterior MI,1.0,,,MI,AMI
NDT,non-diagnostic T,1.0,1.0,,STTC,STTC
ABQRS,abnormal QRS,,1.0,,,
AFIB,atrial fibrillation,,,1.0,,
"""


def found(dataset: EvaluationDataset) -> dict[str, set[str]]:
    """Key to labels."""
    return {
        key: {dataset.label_names[k] for k in np.flatnonzero(row)}
        for split in dataset.splits.values()
        for key, row in zip(split.keys, split.labels, strict=True)
    }


def ptbxl(root: Path, codes: list[dict[str, float]]) -> Path:
    """A folder of PTB-XL's layout with a record for each dict of SCP codes."""
    (root / "records500").mkdir(parents=True)
    (root / "scp_statements.csv").write_text(STATEMENTS)
    columns = "ecg_id,patient_id,age,sex,recording_date,scp_codes,strat_fold,filename_hr"
    with (root / "ptbxl_database.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns.split(","))
        for number, stated in enumerate(codes, start=1):
            fold = 8 + number % 3
            table.writerow([number, f"{number}.0", 50, 0, "", stated, fold, f"records500/{number}"])
    return root


def test_a_code_counts_whatever_its_likelihood_and_unlabelled_records_are_left_out(
    tmp_path: Path,
) -> None:
    root = ptbxl(
        tmp_path / "p",
        [
            {"NORM": 100.0, "AFIB": 0.0},
            {"IMI": 0.0, "AMI": 15.0, "NDT": 50.0},
            {"ABQRS": 0.0},
        ],
    )
    wanted = {
        "all": [{"NORM", "AFIB"}, {"IMI", "AMI", "NDT"}, {"ABQRS"}],
        "diagnostic": [{"NORM"}, {"IMI", "AMI", "NDT"}, set()],
        "sub": [{"NORM"}, {"IMI", "AMI", "STTC"}, set()],
        "super": [{"NORM"}, {"MI", "STTC"}, set()],
        "form": [set(), {"NDT"}, {"ABQRS"}],
        "rhythm": [{"AFIB"}, set(), set()],
    }
    for name, labels in wanted.items():
        dataset = open_dataset("ptbxl", root, fs=500, num_samples=5000, labels=name)
        stated = {f"{number:05d}": one for number, one in enumerate(labels, start=1) if one}
        assert found(dataset) == stated
        left_out = len(labels) - len(stated)
        notes = (f"Left out for having no label of this set: {left_out} records.",)
        assert dataset.notes == (notes if left_out else ())


def test_columns_are_found_by_name_not_by_place(tmp_path: Path) -> None:
    straight = ptbxl(tmp_path / "a", [{"IMI": 100.0}, {"NDT": 0.0}])
    turned = ptbxl(tmp_path / "b", [{"IMI": 100.0}, {"NDT": 0.0}])
    rows = [line.split(",") for line in STATEMENTS.splitlines()]
    text = "".join(",".join([row[0], *reversed(row[1:])]) + "\n" for row in rows)
    (turned / "scp_statements.csv").write_text(text)
    for name in PTBXL_SETS:
        one, other = (label_set("ptbxl", name, root) for root in (straight, turned))
        assert (one.names, one.titles) == (other.names, other.titles)
        assert set(one.names_of(["IMI", "NDT"])) == set(other.names_of(["IMI", "NDT"]))


@pytest.mark.parametrize("name", PTBXL_SETS)
def test_real_ptbxl_labels_are_those_of_its_rows(shared_data: Path, name: str) -> None:
    root = shared_data / "ptb-xl"
    with (root / "scp_statements.csv").open(newline="") as file:
        table = {row[""]: row for row in csv.DictReader(file)}

    def labels(codes: set[str]) -> set[str]:
        if name in ("super", "sub"):
            column = {"super": "diagnostic_class", "sub": "diagnostic_subclass"}[name]
            return {table[code][column] for code in codes if table[code]["diagnostic"] == "1.0"}
        return {code for code in codes if name == "all" or table[code][name] == "1.0"}

    with (root / "ptbxl_database.csv").open(newline="") as file:
        stated = {
            f"{int(row['ecg_id']):05d}": labels(set(ast.literal_eval(row["scp_codes"])))
            for row in csv.DictReader(file)
        }
    dataset = open_dataset(
        "ptbxl", root, fs=100, num_samples=1000, labels=name,
        folds=parse_folds("train=1-6,val=7,test=8"),
    )  # fmt: skip
    assert found(dataset) == {key: one for key, one in stated.items() if one}


def test_the_challenges_thirty_diagnoses_are_twenty_six_classes() -> None:
    scored = label_set("cinc", "scored", Path())
    assert scored.names is not None
    words = SCORED.split()
    wanted = {
        code: PAIRS.get(short, short) for code, short in zip(words[::2], words[1::2], strict=True)
    }
    assert len(wanted) == 30
    assert len(set(wanted.values())) == len(scored.names) == 26
    assert {code: set(scored.names_of([code])) for code in wanted} == {
        code: {name} for code, name in wanted.items()
    }
    assert scored.names_of(["425623009"]) == set()  # lateral ischaemia, not scored


def test_a_code_is_of_one_class_and_every_class_has_a_concept() -> None:
    with (Path(module.__file__).parent / "label_sets.toml").open("rb") as file:
        sets = tomllib.load(file)
    assert {name: len(classes) for name, classes in sets.items()} == {"cinc": 26, "cpsc": 9}
    for classes in sets.values():
        codes = [code for _, *codes in classes.values() for code in codes]
        assert len(codes) == len(set(codes))
        assert all(findings_of([code]) for code in codes)


def test_ludb_rhythms_are_its_column_of_them(shared_data: Path) -> None:
    root = shared_data / "ludb"
    with (root / "ludb.csv").open(newline="") as file:
        stated = {row["ID"]: row["Rhythms"].splitlines() for row in csv.DictReader(file)}
    names = {
        "Sinus rhythm": {"sinus_rhythm"},
        "Sinus bradycardia": {"sinus_bradycardia"},
        "Sinus tachycardia": {"sinus_tachycardia"},
        "Sinus arrhythmia": {"sinus_arrhythmia"},
        "Irregular sinus rhythm": {"sinus_rhythm", "irregular_rhythm"},
        "Atrial fibrillation": {"atrial_fibrillation"},
        "Atrial flutter, typical": {"atrial_flutter"},
        "Wandering atrial pacemaker": {"wandering_atrial_pacemaker"},
    }
    dataset = open_dataset("ludb", root, fs=100, num_samples=1000, labels="rhythm")
    assert found(dataset) == {
        key: set().union(*(names[line.strip()] for line in lines if line.strip()))
        for key, lines in stated.items()
    }
    assert set(dataset.label_names) == set().union(*names.values())


def test_every_set_that_is_offered_opens_and_no_other(shared_data: Path) -> None:
    roots = {"ptbxl": "ptb-xl", "ludb": "ludb"}
    for dataset, names in SETS_OF.items():
        for name in names:
            assert label_set(dataset, name, shared_data / roots.get(dataset, ""))
        with pytest.raises(ValueError, match=f"not available for {dataset}"):
            label_set(dataset, "nothing", shared_data)


def test_a_table_that_is_absent_or_lacks_a_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"scp_statements\.csv is missing"):
        label_set("ptbxl", "super", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"ludb\.csv is missing"):
        label_set("ludb", "rhythm", tmp_path)
    text = STATEMENTS.replace("rhythm", "rythm")
    (tmp_path / "scp_statements.csv").write_text(text)
    with pytest.raises(ValueError, match="lacks the column rhythm"):
        label_set("ptbxl", "super", tmp_path)
