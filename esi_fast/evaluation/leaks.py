"""Patients of an evaluated split whose recordings the model was pretrained on.

A model carries no list of patients (they are not its to give away), so that the shards it was made
from must be named. Ids of one source can be compared with each other; those of two cannot.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from esi_fast.evaluation.datasets import EvaluationDataset

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
        return (
            f"{len(self.rows)} records of {len(self.names)} {self.by}s of split {self.split} were "
            f"in the pretraining shards ({shown})"
        )


def find_leaks(dataset: EvaluationDataset, split: str, shards: Sequence[Path]) -> Leaks:
    """Look for a split's patients in the ``records.csv`` of pretraining shards.

    Args:
        dataset: that is evaluated.
        split: of it.
        shards: the folders that the model was pretrained on, as ``tools/shard`` writes them.

    Raises:
        FileNotFoundError: a folder is no finished shard folder.
        ValueError: a folder is damaged, or the split has no records.
    """
    from esi_fast.data.shard_index import read_shard_folder

    target = dataset.split(split)
    by_patient = dataset.patients_known
    own = target.groups if by_patient else np.array(target.keys, dtype=np.str_)
    seen: set[str] = set()
    notes, compared = [], False
    for folder in shards:
        index = read_shard_folder(folder)
        source = str(index["settings"]["source"])
        if source != dataset.source:
            notes.append(
                f"{folder} is of {source} and this dataset of {dataset.source}: their ids cannot "
                "be compared, and whether they share recordings is not known."
            )
            continue
        compared = True
        column = "subject_id" if by_patient else "key"
        with (folder / "records.csv").open(newline="", encoding="utf-8") as file:
            seen |= {row[column] for row in csv.DictReader(file) if row["split"] in _SEEN}
        notes.append(f"No {'patient' if by_patient else 'record'} of {folder} may be evaluated.")
    rows = np.flatnonzero(np.isin(own, sorted(seen))) if seen else np.empty(0, np.int64)
    by = ("patient" if by_patient else "record") if compared else ""
    return Leaks(split, rows, tuple(sorted(set(own[rows].tolist()))), by, tuple(notes))


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
