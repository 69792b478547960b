"""Leads, lengths, exclusions and what is kept of that which is rejected by default."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shard_tree import (
    FILE_ORDER,
    FS,
    NUM_SAMPLES,
    SETTINGS,
    Tree,
    build,
    entry_of,
    make_tree,
    rows_of,
    samples_in,
    signal_of,
    write_record,
)

from esi_fast.data.shard_set import ShardSet
from esi_fast.leads import STANDARD_LEADS
from esi_fast.signal.simulate import simulate

ONE_SPLIT = SETTINGS | {"val_fraction": 0.0, "test_fraction": 0.0}


def ecg_in(sample: dict[str, bytes]) -> np.ndarray:
    return np.load(io.BytesIO(sample["ecg.npy"]))


def write_two_leads(stem: Path, number: int, leads: tuple[str, str] = ("V2", "I")) -> None:
    rows = signal_of(number)[[STANDARD_LEADS.index(lead) for lead in leads]]
    stem.with_suffix(".dat").write_bytes(np.ascontiguousarray(rows.T).astype("<i2").tobytes())
    lines = [f"{stem.name} 2 {FS:g} {NUM_SAMPLES}"]
    lines += [f"{stem.name}.dat 16 200(0)/mV 16 0 {row[0]} 0 0 {lead}" for lead, row in
              zip(leads, rows, strict=True)]  # fmt: skip
    text = "\n".join(lines)
    for row in rows:  # the checksums, in turn
        checksum = np.int64(row.astype(np.int64).sum()).astype(np.int16)
        text = text.replace(f" {row[0]} 0 0 ", f" {row[0]} {checksum} 0 ", 1)
    stem.with_suffix(".hea").write_text(text + "\n")


# ------------------------------------------------------------------------------------------ leads


def test_some_leads_in_any_order(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", 6)
    write_two_leads(tree.entries[2].path, 2)
    leads = ("V2", "I")
    build(tree, tmp_path / "out", **(ONE_SPLIT | {"leads": leads}))
    samples = samples_in(tmp_path / "out")
    assert len(samples) == 6
    rows = [STANDARD_LEADS.index(lead) for lead in leads]
    for number, entry in enumerate(tree.entries):
        np.testing.assert_array_equal(ecg_in(samples[entry.key]), signal_of(number)[rows] * 5)
        meta = json.loads(samples[entry.key]["json"])
        assert meta["source_leads"] == list(leads if number == 2 else FILE_ORDER)
        assert not {"missing", "flat", "kept"} & set(meta["quality"])  # of the stored leads
    assert json.loads(samples["k002"]["json"])["status"] == (
        "lacks leads: II, III, aVR, aVL, aVF, V1, V3, V4, V5, V6"
    )
    shards = ShardSet(tmp_path / "out")
    assert shards.leads == leads
    assert shards.read_ecg([2]).shape == (1, 2, NUM_SAMPLES)


def test_a_record_without_a_wanted_lead_is_rejected_or_kept(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", 3)
    write_two_leads(tree.entries[1].path, 1)
    build(tree, tmp_path / "out", **ONE_SPLIT)
    (row,) = rows_of(tmp_path / "out" / "rejected.csv")
    assert (row["key"], row["kind"]) == ("k001", "leads")
    assert row["reason"].startswith("rec1.hea: lacks lead(s) II, III,")
    keep = ONE_SPLIT | {"keep_rejected": ("leads",)}
    summary = build(tree, tmp_path / "kept", **keep)
    assert (summary.rejected, summary.quality["kept"]) == ({}, 1)
    sample = samples_in(tmp_path / "kept")["k001"]
    ecg, quality = ecg_in(sample), json.loads(sample["json"])["quality"]
    assert quality["kept"].startswith("lacks leads: II, III, aVR")
    assert quality["missing"]["II"] == 1.0
    np.testing.assert_array_equal(ecg[[0, 7]], signal_of(1)[[0, 7]] * 5)
    assert (np.delete(ecg, [0, 7], axis=0) == -32768).all()
    # None of what is wanted is there: nothing to keep.
    summary = build(tree, tmp_path / "none", **(keep | {"leads": ("V5", "V6")}))
    assert summary.rejected == {"empty": 1}


# ---------------------------------------------------------------------------------------- lengths


@pytest.fixture(scope="module")
def lengths(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Records of 2, 1.5 and 3 s; and one of 2.001 s at 1,000 Hz, which is a sample more."""
    root = tmp_path_factory.mktemp("lengths")
    entries = []
    for number, length in enumerate((1000, 750, 1500)):
        signal = np.resize(signal_of(number), (12, 1500))[:, :length]
        stem = root / f"rec{number}"
        write_record(stem, signal)
        entries.append(entry_of(stem, number))
    return Tree(root, entries)


def test_lengths_are_cropped_and_padded(lengths: Tree, tmp_path: Path) -> None:
    whole = [np.resize(signal_of(number), (12, 1500)) * 5 for number in range(3)]
    for longer, start in (("start", 0), ("center", 250)):
        out = tmp_path / longer
        build(lengths, out, **(ONE_SPLIT | {"longer": longer}))
        samples = samples_in(out)
        np.testing.assert_array_equal(ecg_in(samples["k000"]), whole[0][:, :1000])
        np.testing.assert_array_equal(ecg_in(samples["k001"])[:, :750], whole[1][:, :750])
        assert (ecg_in(samples["k001"])[:, 750:] == -32768).all()
        np.testing.assert_array_equal(ecg_in(samples["k002"]), whole[2][:, start : start + 1000])
        durations = [json.loads(samples[f"k00{n}"]["json"])["source_duration"] for n in range(3)]
        assert durations == [2.0, 1.5, 3.0]


def test_every_recorded_sample_of_a_padded_record_counts(tmp_path: Path) -> None:
    """4,004 / 500 Hz times 500 Hz is less than 4,004 in floating point."""
    ecg = np.resize(signal_of(0), (12, 4004))
    write_record(tmp_path / "rec", ecg)
    tree = Tree(tmp_path, [entry_of(tmp_path / "rec", 0)])
    build(tree, tmp_path / "out", **(ONE_SPLIT | {"duration": 10.0}))
    (sample,) = samples_in(tmp_path / "out").values()
    missing = json.loads(sample["json"])["quality"]["missing"]
    assert missing == dict.fromkeys(STANDARD_LEADS, round(1 - 4004 / 5000, 6))


def test_padding_is_neither_measured_nor_judged(tmp_path: Path) -> None:
    """A record of 5 s in samples of 20 s has the values and flags that it has in samples of 5 s."""
    ecg = next(simulate(1, seed=4)).signal[:, :2500].copy()
    ecg += 2 * np.sin(2 * np.pi * 0.3 * np.arange(2500) / 500, dtype=np.float32)  # wander
    ecg[3] = 0  # and aVR is flat, against the equations of the limb leads
    write_record(tmp_path / "rec", np.rint(200 * ecg).astype(np.int16))
    tree = Tree(tmp_path, [entry_of(tmp_path / "rec", 0)])
    metas = []
    for duration in (5.0, 20.0):
        out = tmp_path / f"{duration:g}"
        build(tree, out, **(ONE_SPLIT | {"duration": duration, "measure": True}))
        (sample,) = samples_in(out).values()
        metas.append(json.loads(sample["json"]))
    alone, padded = metas
    assert {"qrs", "heart_rate", "num_beats"} <= set(alone["measurements"])
    assert padded["measurements"] == alone["measurements"]
    assert padded["quality"].pop("missing") == dict.fromkeys(STANDARD_LEADS, 0.75)
    assert {"wander", "limb_leads", "flat"} <= set(alone["quality"])
    assert padded["quality"] == alone["quality"]


def test_lengths_are_rejected_if_asked_for(lengths: Tree, tmp_path: Path) -> None:
    for name, value, key, length in (
        ("longer", "reject", "k002", "3 s"),
        ("shorter", "reject", "k001", "1.5 s"),
    ):
        build(lengths, tmp_path / name, **(ONE_SPLIT | {name: value}))
        (row,) = rows_of(tmp_path / name / "rejected.csv")
        assert (row["key"], row["kind"]) == (key, "length")
        assert row["reason"] == f"the recording lasts {length}, not 2"


def test_resampling_alone_makes_no_record_longer_or_shorter(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", 2)
    strict = {"longer": "reject", "shorter": "reject"}
    for fs in (100.0, 250.0, 257.0, 360.0, 1000.0):
        summary = build(tree, tmp_path / f"{fs:g}", **(ONE_SPLIT | {"fs": fs} | strict))
        assert summary.rejected == {}


# --------------------------------------------------------------------------------------- checksums


def test_a_wrong_checksum_is_rejected_or_kept(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", 3)
    data = bytearray(tree.entries[1].path.with_suffix(".dat").read_bytes())
    data[100] ^= 1
    tree.entries[1].path.with_suffix(".dat").write_bytes(data)
    assert build(tree, tmp_path / "out", **ONE_SPLIT).rejected == {"checksum": 1}
    for longer in ("start", "center"):
        options = {"keep_rejected": ("checksum",), "longer": longer, "duration": 1.0}
        summary = build(tree, tmp_path / longer, **(ONE_SPLIT | options))
        assert (summary.rejected, summary.quality["kept"]) == ({}, 1)
        sample = samples_in(tmp_path / longer)["k001"]
        kept = json.loads(sample["json"])["quality"]["kept"]
        assert kept.startswith("rec1.dat: checksum of lead")
        start = 0 if longer == "start" else 250
        expected = signal_of(1)[:, start : start + 500] * 5
        assert (ecg_in(sample) != expected).sum() <= 1
        (row,) = [row for row in rows_of(tmp_path / longer / "records.csv") if row["key"] == "k001"]
        assert "kept" in row["quality"].split(";")


# ---------------------------------------------------------------------------------------- patients


def test_excluded_patients_are_listed_and_not_read(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", 8)
    tree.entries[2].path.with_suffix(".dat").unlink()  # of a patient who is excluded
    summary = build(tree, tmp_path / "out", excluded={"p1", "p3", "elsewhere"}, **ONE_SPLIT)
    assert summary.rejected == {"excluded": 4}
    rows = rows_of(tmp_path / "out" / "rejected.csv")
    assert [row["key"] for row in rows] == ["k002", "k003", "k006", "k007"]
    assert rows[0]["reason"] == "patient p1 is excluded"
    assert sorted(samples_in(tmp_path / "out")) == ["k000", "k001", "k004", "k005"]
    with pytest.raises(FileExistsError, match="excluded="):
        build(tree, tmp_path / "out", excluded={"p1"}, resume=True, **ONE_SPLIT)


# ---------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"leads": ("I", "I")}, "leads are I,I"),
        ({"leads": ("X",)}, "leads are X"),
        ({"leads": ()}, "leads are none"),
        ({"longer": "middle"}, "longer is 'middle'"),
        ({"shorter": "stretch"}, "shorter is 'stretch'"),
        ({"keep_rejected": ("truncated",)}, "keep_rejected is 'truncated'"),
        ({"duration": 0.0001}, "less than one sample"),
    ],
)
def test_senseless_settings_are_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(Tree(tmp_path, []), tmp_path / "out", **(ONE_SPLIT | settings))


def test_a_record_that_changes_its_patient_only_is_another_build(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", 4)
    changed = Tree(tree.root, [replace(tree.entries[0], subject_id="p9"), *tree.entries[1:]])
    for number, one in enumerate((tree, changed)):
        build(one, tmp_path / str(number), **ONE_SPLIT)
    assert ShardSet(tmp_path / "0").digest != ShardSet(tmp_path / "1").digest
