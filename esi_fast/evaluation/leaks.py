"""Patients of an evaluated split whose recordings the model was pretrained on.

A model carries no list of patients (they are not its to give away), so that the shards it was made
from must be named. Within one database patients are compared by their ids and records by their
names. Between two of them nothing can be compared: a copy of a recording under other ids, at
another gain or rate, is not found, since its samples are not the same either.
"""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from esi_fast.evaluation.csv_labels import ptbxl_name
from esi_fast.evaluation.splits import EvaluationDataset, EvaluationSplit

LEAK = "LEAK: "  # begins a note that stands above the scores
# Validation records choose the checkpoint, so that they count as seen.
_SEEN = ("train", "val")
_NUM_SHOWN = 3


@dataclass(frozen=True)
class Leaks:
    """What of a split was seen in pretraining.

    Attributes:
        split: that was looked at.
        rows: (m,) its records that were seen, or whose patients were.
        names: their patients (records, where patients are not known), sorted.
        by: "patient", "record", or "" where nothing could be compared.
        notes: what was compared with what, a sentence a shard folder.
    """

    split: str
    rows: npt.NDArray[np.int64]
    names: tuple[str, ...]
    by: str
    notes: tuple[str, ...]

    def describe(self) -> str:
        """How many there are, with the first few."""
        shown = ", ".join(self.names[:_NUM_SHOWN]) + (
            ", ..." if len(self.names) > _NUM_SHOWN else ""
        )
        of = f" of {len(self.names)} patients" if self.by == "patient" else ""
        return (
            f"{len(self.rows)} records{of} of split {self.split} were in the pretraining shards "
            f"({shown})"
        )


def find_leaks(dataset: EvaluationDataset, split: str, shards: Sequence[Path]) -> Leaks:
    """Look for a split's patients and records in the ``records.csv`` of pretraining shards.

    Args:
        dataset: that is evaluated.
        split: of it.
        shards: the folders that the model was pretrained on, as ``tools/shard`` writes them.

    Raises:
        FileNotFoundError: a folder is no finished shard folder, or has no ``records.csv``.
        ValueError: a folder is damaged, its ``records.csv`` is not the one that was written with
            it, or the split has no records.
    """
    from esi_fast.data.shard_index import read_shard_folder

    target = dataset.split(split)
    patients: set[str] = set()
    names: set[str] = set()
    notes, by = [], ""
    for folder in shards:
        index = read_shard_folder(folder)
        source = str(index["settings"]["source"])
        if source != dataset.source:
            notes.append(
                f"{folder} is of {source} and this dataset of {dataset.source}: their ids cannot "
                "be compared, and whether they share recordings is not known."
            )
            continue
        rows = _read_records(folder, index)
        seen = [row for row in rows if row["split"] in _SEEN]
        names |= {row["subject_id"] if source == "wfdb" else row["key"] for row in seen}
        compared = "record"
        if dataset.patients_known and index["patients_known"]:
            patients |= {row["subject_id"] for row in seen}
            compared = by = "patient"
        by = by or compared
        strange = compared == "patient" and not (
            {row["subject_id"] for row in rows}
            & {one for part in dataset.splits.values() for one in part.groups.tolist()}
        )
        notes.append(
            f"Split {split} was compared with the {len(seen)} records of {folder} that the model "
            f"was trained or chosen on, by {compared}."
            + " Not one id is in both, so that ids in another spelling would not be found."
            * strange
        )
    own = _record_names(dataset, target)
    leaked = np.array(
        [
            row
            for row, (name, patient) in enumerate(zip(own, target.groups.tolist(), strict=True))
            if name in names or patient in patients
        ],
        dtype=np.int64,
    )
    found = target.groups if by == "patient" else np.array(own, dtype=np.str_)
    return Leaks(split, leaked, tuple(sorted(set(found[leaked].tolist()))), by, tuple(notes))


def _read_records(folder: Path, index: dict[str, Any]) -> list[dict[str, str]]:
    """The rows of ``records.csv``; of a damaged one a patient might slip through."""
    from esi_fast.data.shard_index import sha256_of

    path = folder / "records.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: whom the model was trained on is not known")
    if sha256_of(path) != index["files"]["records.csv"]:
        raise ValueError(f"{path} is not the file that was written with these shards")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _record_names(dataset: EvaluationDataset, split: EvaluationSplit) -> list[str]:
    """What each record is called, whatever folder it is reached from.

    A tree of headers has the path in the key, which depends on where the tree was entered, and the
    record's name as its patient; a table has paths, and PTB-XL's end in the rate.
    """
    if dataset.name == "csv":
        name = ptbxl_name if dataset.source == "ptb-xl" else posixpath.basename
        return [name(key) for key in split.keys]
    return split.groups.tolist() if dataset.source == "wfdb" else list(split.keys)


def without_leaks(dataset: EvaluationDataset, leaks: Leaks) -> EvaluationDataset:
    """The dataset less the records that were seen.

    Raises:
        ValueError: nothing would be left of the split.
    """
    split = dataset.split(leaks.split)
    if len(leaks.rows) == len(split.keys):
        raise ValueError(f"{leaks.describe()}: none is left to evaluate")
    splits = {**dataset.splits, leaks.split: split.without(leaks.rows)}
    note = f"{leaks.describe()} and were left out."
    return replace(dataset, splits=splits, notes=(*dataset.notes, note))
