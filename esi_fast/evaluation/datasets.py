"""Evaluation datasets: records with labels by name, split by patient, read in a model's own format.

A dataset is opened for one signal format (rate and length, which travel with the model's
checkpoint), so that every task sees signals as the model was trained to. Signals come in the
standard order of leads in mV; what a model does to them further it does itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from esi_fast.evaluation.csv_labels import CsvLabels, ptbxl_name
from esi_fast.evaluation.label_sets import LabelSet, label_set
from esi_fast.evaluation.protocols import PROTOCOLS
from esi_fast.evaluation.signals import ReadRows, record_reader, shard_reader
from esi_fast.evaluation.splits import SPLITS, EvaluationDataset, EvaluationSplit, ReadTexts
from esi_fast.leads import STANDARD_LEADS

if TYPE_CHECKING:
    from esi_fast.data.shard_set import ShardSet

DATASETS = ("shards", "ptbxl", "cinc", "cpsc", "ludb", "csv")
DEFAULT_FOLDS: Mapping[str, tuple[int, ...]] = {
    "train": tuple(range(1, 9)),
    "val": (9,),
    "test": (10,),
}
# Shares of the patients where a dataset has no splits of its own.
VAL_FRACTION, TEST_FRACTION = 0.1, 0.2


def open_dataset(
    name: str,
    root: Path,
    *,
    fs: float,
    num_samples: int,
    labels: str = "",
    folds: Mapping[str, Sequence[int]] | None = None,
    protocol: str = "fixed",
) -> EvaluationDataset:
    """Open an evaluation dataset for a model's signal format.

    Args:
        name: "shards" (a folder written by ``tools/shard``), "ptbxl", "cinc" (any set of the
            PhysioNet/CinC Challenge 2021: CPSC 2018, Georgia, Chapman-Shaoxing, Ningbo), "cpsc"
            (CPSC 2018 with its nine classes), "ludb", or "csv" (WFDB records that a table labels).
        root: its folder.
        fs: sampling rate of the model in Hz.
        num_samples: samples per lead of the model.
        labels: the label set, see `esi_fast.evaluation.label_sets.SETS_OF`; "" is the concepts. Of
            "csv": the table, a path from ``root``.
        folds: PTB-XL only: folds of each split; :data:`DEFAULT_FOLDS` if not given.
        protocol: "fixed", or "merl": see `esi_fast.evaluation.protocols`.

    Shards have splits of their own and tables may; elsewhere a hash of the patient's id decides,
    10 % of the patients for val and 20 % for test. Of PTB-XL its 500 Hz files are read, whatever
    the model's rate, if they are there: shards are made of them, too.

    Raises:
        ValueError: the name, label set or protocol is not available, folds overlap or are given
            for others, a patient is in two splits, or nothing is labelled.
        FileNotFoundError: ``root`` or a file in it is missing.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset {name!r} is not available (available: {', '.join(DATASETS)})")
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol {protocol!r} is none of {', '.join(PROTOCOLS)}")
    if folds is not None and name != "ptbxl":
        raise ValueError("folds are PTB-XL's; shards have their own splits")
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"dataset folder {root} does not exist")
    if name == "csv":
        return _open_table(root, labels, fs, num_samples, protocol)
    chosen = label_set(name, labels or "concepts", root)
    if name == "shards":
        return _open_shards(root, fs, num_samples, chosen, protocol)
    return _open_catalogue(name, root, fs, num_samples, chosen, folds or DEFAULT_FOLDS, protocol)


def parse_folds(text: str) -> dict[str, tuple[int, ...]]:
    """Read ``"train=1-8,val=9,test=10"``: a fold or a range of folds for each split.

    Raises:
        ValueError: not of that form, a split is missing or unknown, or a fold is in two splits.
    """
    folds: dict[str, tuple[int, ...]] = {}
    for part in text.split(","):
        split, _, span = part.strip().partition("=")
        first, _, last = span.partition("-")
        if split not in SPLITS or split in folds or not first.isdigit():
            raise ValueError(f"folds {text!r} are not of the form train=1-8,val=9,test=10")
        if last and not last.isdigit():
            raise ValueError(f"fold range {span!r} is not of the form 1-8")
        folds[split] = tuple(range(int(first), int(last or first) + 1))
        if not folds[split]:
            raise ValueError(f"fold range {span!r} runs backwards")
    if set(folds) != set(SPLITS):
        raise ValueError(f"folds {text!r} must name train, val and test")
    every = [fold for span in folds.values() for fold in span]
    if len(every) != len(set(every)):
        raise ValueError(f"folds {text!r} put one fold into two splits")
    return folds


@dataclass(frozen=True, slots=True)
class _Record:
    """One record before the label columns are known."""

    key: str
    patient: str
    names: frozenset[str]
    concept_key: int | None = None
    time: str | None = None


@dataclass(frozen=True)
class _Part:
    """The records of a split, and how to read them."""

    records: Sequence[_Record]
    read: ReadRows
    texts: ReadTexts | None = None


def _open_shards(
    root: Path, fs: float, num_samples: int, labels: LabelSet, protocol: str
) -> EvaluationDataset:
    from esi_fast.data.shard_index import read_shard_folder
    from esi_fast.data.shard_set import ShardSet

    folder = read_shard_folder(root)
    parts: dict[str, _Part] = {}
    for split in SPLITS:
        if not folder["counts"][split]:
            continue
        shard_set = ShardSet([root], split)
        metas = (shard_set.read_meta(row) for row in range(len(shard_set)))
        records = [
            _Record(
                key,
                str(meta["subject_id"]),
                frozenset(meta["findings"]),
                int(same),
                meta.get("ecg_time"),
            )
            for key, meta, same in zip(shard_set.keys, metas, shard_set.concept_keys, strict=True)
        ]

        def texts(rows: Sequence[int], shard_set: ShardSet = shard_set) -> list[str]:
            return [_text_of(shard_set, row) for row in rows]

        parts[split] = _Part(records, shard_reader(shard_set, fs, num_samples, protocol), texts)
    source = str(folder["settings"]["source"])
    known = bool(folder["patients_known"])
    absent = [lead for lead in STANDARD_LEADS if lead not in folder["leads"]]
    notes = []
    if absent:
        notes.append(
            f"Leads {', '.join(absent)} are absent from these shards; limb leads among them are "
            "computed where two others are there."
        )
    if folder["settings"]["captions"] is None:
        notes.append("Texts are composed from the statements: these shards hold no captions.")
    return _assemble("shards", source, parts, labels, patients_known=known, notes=notes)


def _text_of(shard_set: ShardSet, row: int) -> str:
    """The caption of one row, or what CQA composes where none was baked in."""
    caption = shard_set.read_caption(row)
    if caption is not None:
        return caption
    from esi_fast.cqa.caption import compose

    meta = shard_set.read_meta(row)
    return compose(
        meta["statements"], measurements=meta["measurements"], age=meta["age"], sex=meta["sex"]
    ).text


def _open_catalogue(
    name: str,
    root: Path,
    fs: float,
    num_samples: int,
    labels: LabelSet,
    folds: Mapping[str, Sequence[int]],
    protocol: str,
) -> EvaluationDataset:
    from esi_fast.cqa.caption import compose, concept_key_of_report
    from esi_fast.data.plan import split_of
    from esi_fast.data.shard_index import concept_key_number
    from esi_fast.signal.catalogue import CatalogueEntry
    from esi_fast.signal.catalogues import Source, open_catalogue
    from esi_fast.signal.wfdb_folder import SEGMENT

    sources: dict[str, Source] = {"ptbxl": "ptb-xl", "ludb": "ludb"}
    catalogue = open_catalogue(root, source=sources.get(name, "wfdb"))
    split_of_fold = {fold: split for split, span in folds.items() for fold in span}
    kept: dict[str, list[CatalogueEntry]] = {}
    records: dict[str, list[_Record]] = {}
    left_out = silent = 0
    for entry in catalogue:
        if entry.error.startswith(SEGMENT):  # it is read as part of its record
            continue
        if entry.error:
            raise ValueError(entry.error)
        if name == "ptbxl":
            split = split_of_fold.get(-1 if entry.fold is None else entry.fold)
        else:
            split = split_of(entry.subject_id, VAL_FRACTION, TEST_FRACTION)
        names = frozenset(labels.names_of(entry.statements))
        if split is None:
            continue
        if not entry.statements:  # what says nothing denies nothing
            silent += 1
            continue
        if labels.only_labelled and not names:
            left_out += 1
            continue
        same = concept_key_number(concept_key_of_report(entry.statements))
        kept.setdefault(split, []).append(entry)
        record = _Record(entry.key, entry.subject_id, names, same, entry.ecg_time)
        records.setdefault(split, []).append(record)
    parts = {}
    for split, entries in kept.items():

        def texts(rows: Sequence[int], entries: list[CatalogueEntry] = entries) -> list[str]:
            some = (entries[row] for row in rows)
            return [compose(one.statements, age=one.age, sex=one.sex).text for one in some]

        paths, gain = [entry.path for entry in entries], catalogue.adc_units_per_mv
        read = record_reader(name, paths, fs, num_samples, protocol, gain)
        parts[split] = _Part(records[split], read, texts)
    notes = []
    if left_out:
        notes.append(f"Left out for having no label of this set: {left_out} records.")
    if silent:
        notes.append(f"Left out for stating nothing at all: {silent} records.")
    source, known = catalogue.source, catalogue.patients_known
    return _assemble(name, source, parts, labels, patients_known=known, notes=notes)


def _open_table(
    root: Path, name: str, fs: float, num_samples: int, protocol: str
) -> EvaluationDataset:
    from esi_fast.data.plan import split_of
    from esi_fast.signal.catalogues import layout_of
    from esi_fast.signal.ludb import Ludb

    if not name:
        raise ValueError("dataset csv needs labels: the table, a path from its folder")
    table, source = CsvLabels.read(root, name), layout_of(root)
    if source == "ptb-xl":  # which has every recording twice
        first: dict[str, str] = {}
        for key in table.keys:
            if key != first.setdefault(ptbxl_name(key), key):
                raise ValueError(
                    f"{root / name} names one recording as {first[ptbxl_name(key)]} "
                    f"and as {key}: keep one of them"
                )
    gain = Ludb.adc_units_per_mv if source == Ludb.source else None
    rows_of: dict[str, list[int]] = {}
    for row, (patient, split) in enumerate(zip(table.patients, table.splits, strict=True)):
        chosen = split or split_of(patient, VAL_FRACTION, TEST_FRACTION)
        rows_of.setdefault(chosen, []).append(row)
    parts = {}
    for split, rows in rows_of.items():
        records = [_Record(table.keys[row], table.patients[row], table.labels[row]) for row in rows]
        paths = [table.paths[row] for row in rows]
        parts[split] = _Part(records, record_reader("csv", paths, fs, num_samples, protocol, gain))
    labels = LabelSet(tuple, table.label_names)
    return _assemble("csv", source, parts, labels, patients_known=table.patients_known)


def _assemble(
    name: str,
    source: str,
    parts: Mapping[str, _Part],
    labels: LabelSet,
    *,
    patients_known: bool,
    notes: Iterable[str] = (),
) -> EvaluationDataset:
    from esi_fast.cqa.caption import display_name, prompts_for

    found = {label for part in parts.values() for record in part.records for label in record.names}
    if not found:
        raise ValueError(f"no record of dataset {name} has a label")
    label_names = tuple(sorted(found)) if labels.names is None else labels.names
    _check_patients({s: {r.patient for r in part.records} for s, part in parts.items()})
    column = {label: k for k, label in enumerate(label_names)}
    splits = {}
    for split, part in sorted(parts.items(), key=lambda item: SPLITS.index(item[0])):
        truth = np.zeros((len(part.records), len(label_names)), dtype=np.bool_)
        for row, record in enumerate(part.records):
            truth[row, [column[label] for label in record.names]] = True
        same = [record.concept_key for record in part.records]
        times = [record.time for record in part.records]
        splits[split] = EvaluationSplit(
            split,
            tuple(record.key for record in part.records),
            np.array([record.patient for record in part.records], dtype=np.str_),
            truth,
            part.read,
            None if None in same else np.array(same, dtype=np.int64),
            part.texts,
            np.array(times, dtype=np.str_) if all(times) else None,
        )
    if labels.names is None:
        titles = tuple(display_name(label) for label in label_names)
        prompts = tuple(tuple(prompts_for(label)) for label in label_names)
    else:
        titles = tuple(labels.titles.get(label, label) for label in label_names)
        prompts = tuple(labels.prompts.get(label, (f"{label}.",)) for label in label_names)
    notes = [*notes]
    if not patients_known:
        notes.append("Patients are not told apart here: each record counts as a patient.")
    return EvaluationDataset(
        name, label_names, titles, prompts, splits, source, patients_known, tuple(notes)
    )


def _check_patients(patients: Mapping[str, set[str]]) -> None:
    names = list(patients)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            shared = patients[first] & patients[second]
            if shared:
                raise ValueError(
                    f"{len(shared)} patients are in both {first} and {second}, such as "
                    f"{min(shared)}; splits must be by patient"
                )
