"""Evaluation datasets: labels by name, splits by patient, signals in a model's format."""

from __future__ import annotations

import ast
import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb
from shard_tree import ADC_PER_MV, SETTINGS, build, make_tree, signal_of

from esi_fast.cqa.caption import findings_of
from esi_fast.data.settings import BuildSettings
from esi_fast.data.shards import write_shards
from esi_fast.evaluation.captioning import findings_in
from esi_fast.evaluation.datasets import open_dataset
from esi_fast.evaluation.label_sets import PTBXL_SETS, label_set
from esi_fast.evaluation.prompts import label_prompts
from esi_fast.evaluation.protocols import merl_signals
from esi_fast.evaluation.splits import EvaluationDataset
from esi_fast.leads import STANDARD_LEADS
from esi_fast.search.sources import RecordSource, ShardSource
from esi_fast.signal.catalogues import open_catalogue
from esi_fast.signal.inputs import read_ecg
from esi_fast.signal.resample import resample

FOLDS = {"train": range(1, 7), "val": (7,), "test": (8,)}


def opened(name: str, root: Path, **options: Any) -> EvaluationDataset:
    return open_dataset(name, root, fs=100, num_samples=1000, **options)


def write_record(path: Path, dx: str, scale: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(2500) / 250
    signal = scale * np.sin(2 * np.pi * time)[:, None] * np.arange(1, 13)
    wfdb.wrsamp(
        path.name, fs=250, units=["mV"] * 12, sig_name=list(STANDARD_LEADS), p_signal=signal,
        fmt=["16"] * 12, write_dir=str(path.parent), comments=["Age: 50", "Sex: Male", f"Dx: {dx}"],
    )  # fmt: skip


@pytest.mark.parametrize(("name", "count"), PTBXL_SETS.items())
def test_ptbxl_sets_have_their_published_labels(shared_data: Path, name: str, count: int) -> None:
    labels = label_set("ptbxl", name, shared_data / "ptb-xl")
    assert labels.names is not None
    assert len(labels.names) == count
    prompts = label_prompts(opened("ptbxl", shared_data / "ptb-xl", labels=name, folds=FOLDS))
    assert set(prompts) == set(labels.names)
    for label, texts in prompts.items():
        assert texts
        assert f"{label}." not in texts  # no code goes to the text encoder


def test_ptbxl_counts_are_those_of_its_table(shared_data: Path) -> None:
    root = shared_data / "ptb-xl"
    with (root / "ptbxl_database.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["strat_fold"] == "8"]
    with (root / "scp_statements.csv").open(newline="") as file:
        rhythms = {row[""] for row in csv.DictReader(file) if row["rhythm"]}
    stated = [rhythms & set(ast.literal_eval(row["scp_codes"])) for row in rows]
    dataset = opened("ptbxl", root, labels="rhythm", folds=FOLDS)
    test = dataset.split("test")
    assert len(test.keys) == sum(map(bool, stated))
    for k, code in enumerate(dataset.label_names):
        assert test.labels[:, k].sum() == sum(code in codes for codes in stated)
    with (root / "ptbxl_database.csv").open(newline="") as file:
        every = [set(ast.literal_eval(row["scp_codes"])) for row in csv.DictReader(file)]
    without = sum(not rhythms & codes for codes in every)
    assert dataset.notes == (f"Left out for having no label of this set: {without} records.",)
    assert test.captions is not None
    assert all(test.captions)
    assert test.concept_keys is not None


def test_cinc_classes_follow_the_codes_and_pairs_are_one(tmp_path: Path) -> None:
    for number, dx in enumerate(["59118001,426783006", "713427006", "284470004", "1,63593006"]):
        write_record(tmp_path / "g1" / f"E{number:05d}", dx)
    dataset = opened("cinc", tmp_path, labels="scored")
    assert len(dataset.label_names) == 26
    found = {
        key: {dataset.label_names[k] for k in np.flatnonzero(row)}
        for split in dataset.splits.values()
        for key, row in zip(split.keys, split.labels, strict=True)
    }
    assert list(dict(sorted(found.items())).values()) == [
        {"RBBB", "NSR"},
        {"RBBB"},
        {"PAC"},
        {"PAC"},
    ]
    assert dataset.notes == ("Patients are not told apart here: each record counts as a patient.",)


def test_a_record_that_states_nothing_denies_nothing(tmp_path: Path) -> None:
    for number, dx in enumerate(["426783006", "164889003", "426783006"]):
        write_record(tmp_path / f"E{number:05d}", dx)
    header = tmp_path / "E00001.hea"
    kept = [line for line in header.read_text().splitlines() if not line.startswith("# Dx")]
    header.write_text("\n".join(kept) + "\n")
    dataset = opened("cinc", tmp_path, labels="scored")
    assert "E00001" not in {key for split in dataset.splits.values() for key in split.keys}
    assert dataset.notes[0] == "Left out for stating nothing at all: 1 records."


def test_ids_and_splits_of_a_table_are_compared_without_blanks_and_zeros(tmp_path: Path) -> None:
    for name in "abcd":
        write_record(tmp_path / name, "426783006")
    lines = ["record, patient ,split,AF ", "a,15709.0,train,1", "b,15709 ,test ,0", "c,3,val,1"]
    write_table(tmp_path, "\n".join([*lines, "d,4,test,1", ""]))
    with pytest.raises(ValueError, match="1 patients are in both train and test, such as 15709"):
        opened("csv", tmp_path, labels="labels.csv")
    write_table(tmp_path, "record,AF\na,1\nx/../a,0\n")
    with pytest.raises(ValueError, match="names record a twice"):
        opened("csv", tmp_path, labels="labels.csv")


def test_a_recording_of_ptbxl_is_named_once_in_a_table(tmp_path: Path, shared_data: Path) -> None:
    root = tmp_path / "ptb"
    (root / "records500").mkdir(parents=True)
    for name in ("ptbxl_database.csv", "scp_statements.csv"):
        (root / name).write_bytes((shared_data / "ptb-xl" / name).read_bytes())
    write_table(root, "record,AF\nrecords500/00001_hr,1\nrecords100/00001_lr,0\n")
    with pytest.raises(ValueError, match="names one recording as records500/00001_hr and as rec"):
        opened("csv", root, labels="labels.csv")


def test_real_folders_open(shared_data: Path) -> None:
    ludb = opened("ludb", shared_data / "ludb", labels="rhythm")
    assert sum(len(split.keys) for split in ludb.splits.values()) == 120
    assert {"sinus_rhythm", "sinus_bradycardia", "atrial_fibrillation"} <= set(ludb.label_names)
    assert "left_ventricular_hypertrophy" not in ludb.label_names
    cinc = opened("cinc", shared_data / "cinc2021", labels="scored")
    assert sum(len(split.keys) for split in cinc.splits.values()) == 30
    signals, errors = cinc.split("train").read([0, 1])
    assert signals.shape == (2, 12, 1000)
    assert errors == ("", "")


def test_the_merl_protocol_scales_each_record_and_cuts_cpsc(tmp_path: Path) -> None:
    for number in range(20):
        write_record(tmp_path / f"A{number:04d}", "164889003" if number % 2 else "426783006")
    plain = opened("cpsc", tmp_path, labels="scored").split("train").read([0])[0]
    merl = opened("cpsc", tmp_path, labels="scored", protocol="merl").split("train").read([0])[0]
    assert plain.max() == pytest.approx(12, rel=0.02)
    assert (merl[..., :500].min(), merl[..., :500].max()) == (0, 1)
    assert not merl[..., 500:].any()
    kept = plain[..., :500]
    span = kept.max() - kept.min()
    np.testing.assert_allclose(merl[..., :500], (kept - kept.min()) / span, atol=1e-6)
    flat = np.full((1, 2, 5), 3, np.float32)
    flat[0, 0, 1] = np.nan
    assert not merl_signals(flat).any()


def write_table(root: Path, text: str) -> None:
    (root / "labels.csv").write_text(text)


def test_a_table_is_read_by_name(tmp_path: Path) -> None:
    for name in "abcd":
        write_record(tmp_path / name, "426783006")
    write_table(
        tmp_path,
        "split,zed,record,patient,ayl\ntrain,1,a,p1,0\ntrain,0,b,p1,1\nval,1,c,p2,1\ntest,0,d,p3,1\n",
    )
    dataset = opened("csv", tmp_path, labels="labels.csv")
    assert dataset.label_names == ("ayl", "zed")
    assert dataset.split("train").labels.tolist() == [[False, True], [True, False]]
    assert dataset.split("test").groups.tolist() == ["p3"]
    assert dataset.split("test").read([0])[0].shape == (1, 12, 1000)
    assert dataset.split("test").captions is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,x\na,1\n", "has no column record, only name, x"),
        ("record\na\n", "has no label column"),
        ("record,x\n", "has no record"),
        ("record,x\na,2\n", "has x '2' in row 2: labels are 0 or 1"),
        ("record,x\na,\n", "has x '' in row 2: labels are 0 or 1"),
        ("record,x\na,1\na,0\n", "names record a twice"),
        ("record,x,y\na,1,0\n", "has no record with a 1 for y"),
        ("record,x,x\na,1,0\n", "has two columns x"),
        ("record,x\na,1\n./a,0\n", "names record a twice"),
        ("record,x\na,1\na.hea,0\n", "names record a twice"),
        ("record,x,split\na,1,tset\n", "has split 'tset' in row 2"),
        ("record,x,split\na,1,test\nb,1,\n", "names no split in row 3"),
        ("record,x,patient\na,1, \n", "names no patient in row 2"),
        ("record,x\na,1,1\n", "too many or too few fields in row 2"),
        ("record,x\n,1\n", "names no record in row 2"),
        ("record,x,split,patient\na,1,train,p\nb,1,test,p\n", "1 patients are in both"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    write_table(tmp_path, text)
    with pytest.raises(ValueError, match=message):
        opened("csv", tmp_path, labels="labels.csv")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.csv does not exist"):
        opened("csv", tmp_path, labels="none.csv")
    (tmp_path / "labels.csv").write_bytes(b"record,x\nb\xe9,1\n")
    with pytest.raises(ValueError, match=r"labels\.csv is no csv file in UTF-8"):
        opened("csv", tmp_path, labels="labels.csv")
    with pytest.raises(ValueError, match="needs labels: the table"):
        opened("csv", tmp_path)
    with pytest.raises(ValueError, match="protocol 'x' is none of fixed, merl"):
        opened("csv", tmp_path, labels="labels.csv", protocol="x")
    with pytest.raises(ValueError, match="labels 'super' are not available for ludb"):
        opened("ludb", tmp_path, labels="super")


def test_rows_can_be_taken_out(tmp_path: Path) -> None:
    for name, scale in zip("abc", (1, 2, 3), strict=True):
        write_record(tmp_path / name, "426783006", scale)
    write_table(tmp_path, "record,x,split\na,1,test\nb,0,test\nc,1,test\n")
    test = opened("csv", tmp_path, labels="labels.csv").split("test")
    less = test.without(np.array([1]))
    assert less.keys == ("a", "c")
    assert less.labels[:, 0].tolist() == [True, True]
    np.testing.assert_array_equal(less.read([1])[0], test.read([2])[0])


def shards_of(root: Path, leads: tuple[str, ...]) -> Path:
    tree = make_tree(root / "tree", 24)
    tree.source = "mimic-iv-ecg"
    build(tree, root / "shards", **SETTINGS, leads=leads)
    return root / "shards"


def test_leads_of_shards_are_put_in_the_standard_order_by_name(tmp_path: Path) -> None:
    folder = shards_of(tmp_path, ("V1", "I"))
    dataset = open_dataset("shards", folder, fs=SETTINGS["fs"], num_samples=200)
    split = dataset.split("train")
    signals, errors = split.read([2, 0])
    assert errors == ("", "")
    for signal, key in zip(signals, (split.keys[2], split.keys[0]), strict=True):
        digital = signal_of(int(key.removeprefix("k")))
        for lead in ("I", "V1"):
            row = STANDARD_LEADS.index(lead)
            wanted = digital[row, : signals.shape[-1]] / ADC_PER_MV
            np.testing.assert_allclose(signal[row, : len(wanted)], wanted, atol=1e-3)
    stored = [STANDARD_LEADS.index(lead) for lead in ("I", "V1")]
    assert np.isnan(np.delete(signals, stored, axis=1)).all()
    assert dataset.notes[0].startswith("Leads II, III, aVR, ")


def test_signals_scored_are_those_that_embedding_and_search_read(tmp_path: Path) -> None:
    folder = shards_of(tmp_path, ("I", "II", "V1"))
    fs, num_samples = SETTINGS["fs"] / 2, 300
    split = open_dataset("shards", folder, fs=fs, num_samples=num_samples).split("train")
    source = ShardSource([folder], fs, num_samples)
    rows = [row for row in source if row.split == "train"]
    assert [row.key for row in rows] == list(split.keys)
    signals, _ = split.read(range(len(rows)))
    np.testing.assert_array_equal(signals, source.read(rows)[0])
    np.testing.assert_allclose(signals[:, 2], signals[:, 1] - signals[:, 0], atol=1e-5)
    assert np.isnan(signals[:, 7:]).all()

    # Records that lack leads, and one without a sample.
    records = tmp_path / "records"
    write_record(records / "whole", "426783006")
    whole = wfdb.rdrecord(str(records / "whole"))
    blank = np.full((2500, 2), np.nan)
    for name, signal in (("some", whole.p_signal[:, [0, 1, 10]]), ("blank", blank)):
        leads = ["I", "II", "V5"][: signal.shape[1]]
        wfdb.wrsamp(
            name, fs=250, units=["mV"] * len(leads), sig_name=leads, p_signal=signal,
            fmt=["16"] * len(leads), adc_gain=[1000.0] * len(leads), baseline=[0] * len(leads),
            write_dir=str(records),
        )  # fmt: skip
    write_table(records, "record,x,split\nwhole,1,test\nsome,0,test\nblank,0,test\n")
    for protocol in ("fixed", "merl"):
        split = opened("csv", records, labels="labels.csv", protocol=protocol).split("test")
        signals, errors = split.read([0, 1, 2])
        assert errors == ("", "", "every sample is missing")
    signals, _ = opened("csv", records, labels="labels.csv").split("test").read([1, 0])
    of_key = RecordSource(records, 100, 1000)
    for signal, name in zip(signals, ("some", "whole"), strict=True):
        (row,) = (row for row in of_key if row.key == name)
        np.testing.assert_array_equal(signal, of_key.read([row])[0][0])
        wanted = resample(read_ecg(records / name).signal, 250, 100)
        np.testing.assert_allclose(signal, wanted, atol=1e-5)
    assert np.isfinite(signals[0, :6]).all()


def test_a_damaged_sample_is_an_error_of_its_own(tmp_path: Path) -> None:
    folder = shards_of(tmp_path, STANDARD_LEADS)
    split = open_dataset("shards", folder, fs=SETTINGS["fs"], num_samples=200).split("train")
    shard = min(folder.glob("train-*.tar"))
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1  # within the first sample's signal
    shard.write_bytes(content)
    signals, errors = split.read([0, 1])
    assert "train-000000.tar" in errors[0]
    assert np.isnan(signals[0]).all()
    assert errors[1] == ""
    assert np.isfinite(signals[1]).any()


def test_amplitudes_of_ludb_are_its_units_not_its_headers_gains(
    shared_data: Path, tmp_path: Path
) -> None:
    """Einthoven's law holds for what is read; by the headers' gains, a lead each, it does not."""
    root = shared_data / "ludb"
    dataset = open_dataset("ludb", root, fs=500, num_samples=5000, labels="rhythm")
    signals, errors = dataset.split("test").read(range(10))
    assert set(errors) == {""}
    first, second, third = signals[:, 0], signals[:, 1], signals[:, 2]
    np.testing.assert_allclose(first + third, second, atol=0.0011)
    by_header = wfdb.rdrecord(str(root / "data" / dataset.split("test").keys[0])).p_signal.T
    assert np.abs(by_header[0] + by_header[2] - by_header[1]).max() > 0.1
    write_table(tmp_path, f"record,x,split\ndata/{dataset.split('test').keys[0]},1,test\n")
    table = str(tmp_path / "labels.csv")
    by_table = open_dataset("csv", root, fs=500, num_samples=5000, labels=table)
    np.testing.assert_array_equal(by_table.split("test").read([0])[0][0], signals[0])


def test_the_normal_class_of_cpsc_is_asked_for_as_normal(tmp_path: Path) -> None:
    for number, code in enumerate(("426783006", "164889003", "270492004") * 5):
        write_record(tmp_path / f"A{number:04d}", code)
    prompts = label_prompts(opened("cpsc", tmp_path, labels="scored"))
    assert prompts["NORM"] == ("Normal ECG.",)
    assert "Atrial fibrillation." in prompts["AF"]


def test_shards_without_captions_have_texts_composed_from_their_statements(
    tmp_path: Path, shared_data: Path
) -> None:
    catalogue = open_catalogue(shared_data / "mimic-like")
    write_shards(catalogue, tmp_path / "shards", BuildSettings(fs=100))
    dataset = opened("shards", tmp_path / "shards")
    assert any("composed from the statements" in note for note in dataset.notes)
    entries = {entry.key: entry for entry in catalogue}
    for split in dataset.splits.values():
        assert split.times is not None
        assert split.captions is not None
        for key, time, caption in zip(split.keys, split.times, split.captions, strict=True):
            assert time == entries[key].ecg_time
            assert caption
            words = set(findings_in(caption))
            assert words <= set(findings_of(entries[key].statements))
