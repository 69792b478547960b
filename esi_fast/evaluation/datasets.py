"""Evaluation datasets: records with labels by name, split by patient, read in a model's own format.

A dataset is opened for one signal format (rate and length, which travel with the model's
checkpoint), so that every task sees signals as the model was trained to.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

SPLITS = ("train", "val", "test")
DATASETS = ("shards", "ptbxl")
LABEL_SETS = ("concepts", "super")
DEFAULT_FOLDS: Mapping[str, tuple[int, ...]] = {
    "train": tuple(range(1, 9)),
    "val": (9,),
    "test": (10,),
}

# Words for PTB-XL's five diagnostic superclasses, which are groups and no concepts of their own.
_SUPERCLASS_PROMPTS = {
    "NORM": ("Normal ECG.",),
    "MI": ("Myocardial infarction.", "The ECG shows myocardial infarction."),
    "STTC": ("ST segment and T wave changes.", "T wave abnormality.", "ST depression."),
    "CD": ("Conduction disturbance.", "Bundle branch block.", "AV block."),
    "HYP": ("Ventricular hypertrophy.", "Atrial enlargement."),
}

Signals = npt.NDArray[np.float32]
ReadRows = Callable[[Sequence[int]], tuple[Signals, tuple[str, ...]]]


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
    """

    name: str
    keys: tuple[str, ...]
    groups: npt.NDArray[np.str_]
    labels: npt.NDArray[np.bool_]
    read: ReadRows


@dataclass(frozen=True, slots=True)
class EvaluationDataset:
    """A dataset opened for one model's signal format.

    Attributes:
        name: as given to :func:`open_dataset`.
        label_names: (K) sorted names; a column of ``labels`` each.
        titles: (K) the names in human words.
        prompts: (K) the zero-shot prompts of each label.
        splits: by name; a split without records is absent.
    """

    name: str
    label_names: tuple[str, ...]
    titles: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    splits: Mapping[str, EvaluationSplit]

    def split(self, name: str) -> EvaluationSplit:
        """The split of that name.

        Raises:
            ValueError: it has no records.
        """
        if name not in self.splits:
            raise ValueError(
                f"dataset {self.name} has no records in split {name!r} "
                f"(it has {', '.join(self.splits) or 'none'})"
            )
        return self.splits[name]


def open_dataset(
    name: str,
    root: Path,
    *,
    fs: float,
    num_samples: int,
    labels: str = "concepts",
    folds: Mapping[str, Sequence[int]] | None = None,
) -> EvaluationDataset:
    """Open an evaluation dataset for a model's signal format.

    Args:
        name: "shards" (a folder written by ``tools/shard``; labels are the findings in it, splits
            its own) or "ptbxl" (PTB-XL in its own layout; splits by fold).
        root: the folder.
        fs: sampling rate of the model in Hz.
        num_samples: samples per lead of the model.
        labels: "concepts" (the normalised findings) or, PTB-XL only, "super" (its five diagnostic
            superclasses from ``scp_statements.csv``).
        folds: PTB-XL only: folds of each split; :data:`DEFAULT_FOLDS` if not given.

    Raises:
        ValueError: the name or label set is not available, folds overlap or are given for shards,
            a patient is in two splits, or nothing is labelled.
        FileNotFoundError: ``root`` or a file in it is missing.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset {name!r} is not available (available: {', '.join(DATASETS)})")
    if labels not in LABEL_SETS or (labels == "super" and name != "ptbxl"):
        available = LABEL_SETS if name == "ptbxl" else LABEL_SETS[:1]
        raise ValueError(
            f"labels {labels!r} are not available for {name} (available: {', '.join(available)})"
        )
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"dataset folder {root} does not exist")
    if name == "ptbxl":
        return _open_ptbxl(root, fs, num_samples, labels, folds or DEFAULT_FOLDS)
    if folds is not None:
        raise ValueError("folds are PTB-XL's; shards have their own splits")
    return _open_shards(root, fs, num_samples)


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
class _Labelled:
    """One record before the label columns are known."""

    key: str
    patient: str
    names: frozenset[str]


def _open_shards(root: Path, fs: float, num_samples: int) -> EvaluationDataset:
    from esi_fast.data.shard_index import read_shard_folder
    from esi_fast.data.shard_set import ShardSet

    counts = read_shard_folder(root)["counts"]
    records: dict[str, list[_Labelled]] = {}
    readers: dict[str, ReadRows] = {}
    for split in SPLITS:
        if not counts[split]:
            continue
        shard_set = ShardSet([root], split)
        metas = (shard_set.read_meta(row) for row in range(len(shard_set)))
        records[split] = [
            _Labelled(key, str(meta["subject_id"]), frozenset(meta["findings"]))
            for key, meta in zip(shard_set.keys, metas, strict=True)
        ]

        def read(
            rows: Sequence[int], shard_set: ShardSet = shard_set
        ) -> tuple[Signals, tuple[str, ...]]:
            signals = shard_set.read_ecg(rows)
            return fit_signals(signals, shard_set.fs, fs, num_samples), ("",) * len(rows)

        readers[split] = read
    return _assemble("shards", records, readers, None)


def _open_ptbxl(
    root: Path, fs: float, num_samples: int, labels: str, folds: Mapping[str, Sequence[int]]
) -> EvaluationDataset:
    from esi_fast.cqa.caption import findings_of
    from esi_fast.signal.catalogues import open_catalogue
    from esi_fast.signal.record_batch import read_records

    name_labels: Callable[[Sequence[str]], Iterable[str]] = findings_of
    if labels == "super":
        name_labels = partial(_superclasses_of, _read_superclasses(root))
    split_of_fold = {fold: split for split, span in folds.items() for fold in span}
    records: dict[str, list[_Labelled]] = {}
    paths: dict[str, list[str | Path]] = {}
    for entry in open_catalogue(root, source="ptb-xl"):
        if entry.error:
            raise ValueError(entry.error)
        split = split_of_fold.get(-1 if entry.fold is None else entry.fold)
        if split is not None:
            names = frozenset(name_labels(entry.statements))
            records.setdefault(split, []).append(_Labelled(entry.key, entry.subject_id, names))
            paths.setdefault(split, []).append(entry.path)
    readers: dict[str, ReadRows] = {}
    for split, split_paths in paths.items():

        def read(
            rows: Sequence[int], split_paths: list[str | Path] = split_paths
        ) -> tuple[Signals, tuple[str, ...]]:
            batch = read_records(
                [split_paths[row] for row in rows], fs=fs, duration=num_samples / fs
            )
            signals = np.asarray(batch.signal, dtype=np.float32)
            return fit_signals(signals, fs, fs, num_samples), batch.errors

        readers[split] = read
    prompts = _SUPERCLASS_PROMPTS if labels == "super" else None
    return _assemble("ptbxl", records, readers, prompts)


def _read_superclasses(root: Path) -> dict[str, str]:
    """SCP code to diagnostic superclass, diagnostic codes only."""
    path = root / "scp_statements.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; it names the diagnostic superclasses")
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        code_column = (rows.fieldnames or [""])[0]
        return {
            row[code_column]: row["diagnostic_class"] for row in rows if row["diagnostic_class"]
        }


def _superclasses_of(superclass: Mapping[str, str], codes: Sequence[str]) -> set[str]:
    return {superclass[code] for code in codes if code in superclass}


def fit_signals(signals: Signals, fs: float, model_fs: float, num_samples: int) -> Signals:
    """Signals (n, 12, T) at ``fs`` in a model's format: resampled, then cut or padded with NaN."""
    if fs != model_fs:
        from esi_fast.signal.resample import resample

        signals = resample(signals, fs, model_fs)
    missing = num_samples - signals.shape[-1]
    if missing > 0:
        return np.pad(signals, ((0, 0), (0, 0), (0, missing)), constant_values=np.nan)
    return signals[..., :num_samples]


def _assemble(
    name: str,
    records: Mapping[str, Sequence[_Labelled]],
    readers: Mapping[str, ReadRows],
    class_prompts: Mapping[str, tuple[str, ...]] | None,
) -> EvaluationDataset:
    from esi_fast.cqa.caption import display_name, prompts_for

    label_names = tuple(
        sorted({label for split in records.values() for record in split for label in record.names})
    )
    if not label_names:
        raise ValueError(f"no record of dataset {name} has a label")
    _check_patients({s: {r.patient for r in split} for s, split in records.items()})
    column = {label: k for k, label in enumerate(label_names)}
    splits = {}
    for split, rows in records.items():
        labels = np.zeros((len(rows), len(label_names)), dtype=np.bool_)
        for row, record in enumerate(rows):
            labels[row, [column[label] for label in record.names]] = True
        splits[split] = EvaluationSplit(
            split,
            tuple(record.key for record in rows),
            np.array([record.patient for record in rows], dtype=np.str_),
            labels,
            readers[split],
        )
    if class_prompts is None:
        titles = tuple(display_name(label) for label in label_names)
        prompts = tuple(tuple(prompts_for(label)) for label in label_names)
    else:
        titles = label_names
        prompts = tuple(class_prompts[label] for label in label_names)
    return EvaluationDataset(name, label_names, titles, prompts, splits)


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
