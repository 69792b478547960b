"""What a task works on: records with labels, patients and signals, split by patient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from esi_fast.evaluation.signals import ReadRows

SPLITS = ("train", "val", "test")

ReadTexts = Callable[[Sequence[int]], Sequence[str]]


@dataclass(frozen=True, slots=True)
class EvaluationSplit:
    """The records of one split.

    Attributes:
        name: "train", "val" or "test".
        keys: (n) record keys.
        groups: (n,) patient of each record.
        labels: (n, K) booleans, columns as the dataset's ``label_names``.
        read: rows to signals (len(rows), 12, T) float32 mV with NaN for missing samples, in the
            format the dataset was opened for, and per record "" or why it could not be read.
        concept_keys: (n,) int64: records with equal ones say the same.
        texts: rows to what is said of each: the caption baked into shards, or one that CQA composes
            of the record's statements.
        times: (n,) when each was recorded, "YYYY-MM-DD hh:mm:ss"; None unless all are known.
    """

    name: str
    keys: tuple[str, ...]
    groups: npt.NDArray[np.str_]
    labels: npt.NDArray[np.bool_]
    read: ReadRows
    concept_keys: npt.NDArray[np.int64] | None = None
    texts: ReadTexts | None = None
    times: npt.NDArray[np.str_] | None = None

    @property
    def captions(self) -> tuple[str, ...] | None:
        """What is said of each record; None where nothing is."""
        return None if self.texts is None else tuple(self.texts(range(len(self.keys))))

    def without(self, rows: npt.NDArray[np.int64]) -> EvaluationSplit:
        """The split less some rows."""
        kept = np.setdiff1d(np.arange(len(self.keys)), rows)
        read, texts = self.read, self.texts
        return EvaluationSplit(
            self.name,
            tuple(self.keys[row] for row in kept),
            self.groups[kept],
            self.labels[kept],
            lambda some: read([int(kept[row]) for row in some]),
            None if self.concept_keys is None else self.concept_keys[kept],
            None if texts is None else lambda some: texts([int(kept[row]) for row in some]),
            None if self.times is None else self.times[kept],
        )


@dataclass(frozen=True, slots=True)
class EvaluationDataset:
    """A dataset opened for one model's signal format.

    Attributes:
        name: as given to :func:`open_dataset`.
        label_names: (K) sorted names; a column of ``labels`` each.
        titles: (K) the names in human words.
        prompts: (K) the zero-shot prompts of each label.
        splits: by name; a split without records is absent.
        source: where its patients' ids come from: "ptb-xl", "mimic-iv-ecg", "wfdb", ...
        patients_known: whether groups are patients; if not, each record counts as its own.
        notes: what a reader of its scores should know, a sentence each.
    """

    name: str
    label_names: tuple[str, ...]
    titles: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    splits: Mapping[str, EvaluationSplit]
    source: str = ""
    patients_known: bool = True
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> EvaluationSplit:
        """The split of that name.

        Raises:
            ValueError: it has no records.
        """
        if name not in self.splits:
            fix = ": give --folds that are there" if self.name == "ptbxl" else ""
            raise ValueError(
                f"dataset {self.name} has no records in split {name!r} "
                f"(it has {', '.join(self.splits) or 'none'}){fix}"
            )
        return self.splits[name]
