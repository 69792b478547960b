"""What a pretrained model has to beat: random weights, supervision alone, and measuring.

Each baseline scores the records of a dataset as a contender; :func:`beside
<esi_fast.evaluation.contenders.beside>` puts them next to a fine-tuned model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from esi_fast.evaluation.contenders import (
    label_result,
    require_held_out,
    unfit_labels,
    val_thresholds,
)
from esi_fast.evaluation.finetune import Network, Training, learn, start_at, with_head
from esi_fast.evaluation.label_summary import THRESHOLDS
from esi_fast.evaluation.results import FloatArray, LabelResult
from esi_fast.evaluation.xresnet import xresnet1d101

if TYPE_CHECKING:
    from esi_fast.evaluation.splits import EvaluationDataset
    from esi_fast.models.esi import ESI
    from esi_fast.signal.measurements import Measurements

Demographics = Mapping[str, tuple[float, float]]

# From scratch there is nothing to keep near the input: all layers learn alike.
SCRATCH = Training(epochs=50, lr=1e-3, layer_decay=1.0, patience=10)
_MEASURED_AT_ONCE = 256
_MAX_TREES = 300


def train_convnext(
    model: ESI, dataset: EvaluationDataset, *, split: str = "test", training: Training = SCRATCH
) -> LabelResult:
    """Train the model's architecture from random weights on the labels: "scratch-convnext".

    The same network, head and loop as fine-tuning, so that the difference is the pretraining.

    Args:
        model: whose architecture; its weights are not looked at.
        dataset: opened for its rate and length.
        split: which records to score.
        training: how.

    Raises:
        ValueError: see :func:`esi_fast.evaluation.finetune.finetune`.
    """

    def build(log_odds_K: Tensor) -> Network:
        return with_head(model.untrained_copy(training.seed).to(model.device), log_odds_K)

    return learn("finetune", "scratch-convnext", build, dataset, split, training)


def train_xresnet(
    model: ESI, dataset: EvaluationDataset, *, split: str = "test", training: Training = SCRATCH
) -> LabelResult:
    """Train the PTB-XL benchmark's network on the labels: "scratch-xresnet1d101".

    On whole records in millivolt, where the benchmark trains on standardised crops of 2.5 s and
    takes the highest score of a record's crops.

    Args:
        model: beside which it stands: its device, and its ``ecg_scale``.
        dataset: opened for the model's rate and length.
        split: which records to score.
        training: how.

    Raises:
        ValueError: see :func:`esi_fast.evaluation.finetune.finetune`.
    """

    def build(log_odds_K: Tensor) -> Network:
        network = xresnet1d101(len(log_odds_K))
        start_at(network.head, log_odds_K)
        module = _Scaled(network, model.config.ecg_scale).to(model.device)
        return Network(module, [list(network.named_parameters())])

    return learn("finetune", "scratch-xresnet1d101", build, dataset, split, training)


class _Scaled(nn.Module):
    """A network that sees millivolts times a constant, 0 where samples are missing."""

    def __init__(self, network: nn.Module, scale: float) -> None:
        super().__init__()
        self.network = network
        self.scale = scale

    def forward(self, x_BLT: Tensor) -> Tensor:
        return self.network(torch.nan_to_num(x_BLT, nan=0.0) * self.scale)


def boost_measurements(
    dataset: EvaluationDataset,
    *,
    fs: float,
    split: str = "test",
    demographics: Demographics | None = None,
    seed: int = 0,
) -> LabelResult:
    """Gradient boosting on what an electrocardiograph measures: "measurements".

    Rate, intervals, axes, counts of beats, voltages of every wave in every lead
    (`esi_fast.signal.measure`), age and sex; what was not measured stays missing, which trees know
    how to treat. One ``HistGradientBoostingClassifier`` a label is fitted on ``train``; its number
    of trees is the one of the lowest log-loss on ``val``.

    Args:
        dataset: the records.
        fs: rate that it was opened for, Hz.
        split: which records to score.
        demographics: key to age in years and 1 for male, 0 for female; NaN or no key where unknown.
        seed: of the boosting.

    Returns:
        Task "finetune" with contender "measurements", whose scores are probabilities.

    Raises:
        ValueError: ``split`` is learned from, no label can be learned, or a split is empty or
            unreadable.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from tqdm import tqdm

    require_held_out(split)
    names = dataset.label_names
    rows: dict[str, npt.NDArray[np.int64]] = {}
    features: dict[str, FloatArray] = {}
    errors: dict[str, str] = {}
    for part in ("train", "val", split):
        rows[part], features[part], unreadable = measured_features(
            dataset, part, fs, demographics or {}
        )
        errors |= unreadable
    labels = {part: dataset.split(part).labels[rows[part]] for part in rows}
    not_scored = unfit_labels(names, labels["train"])
    if len(not_scored) == len(names):
        raise ValueError("no label has both positive and negative training records")
    # The classifier cannot bin what was never measured, or always the same.
    varies = np.array([len(np.unique(x[~np.isnan(x)])) > 1 for x in features["train"].T])
    features = {part: x[:, varies] for part, x in features.items()}
    scores = {part: np.full(labels[part].shape, np.nan) for part in ("val", split)}
    trees: dict[str, int] = {}
    fitted = [k for k, name in enumerate(names) if name not in not_scored]
    for k in tqdm(fitted, desc="measurements", unit="label", disable=None, leave=False):
        forest = HistGradientBoostingClassifier(
            learning_rate=0.05, max_iter=_MAX_TREES, early_stopping=False, random_state=seed
        )
        forest.fit(features["train"], labels["train"][:, k])
        stages = np.stack([p[:, 1] for p in forest.staged_predict_proba(features["val"])])
        right = np.where(labels["val"][:, k], stages, 1 - stages)
        best = int(np.log(np.maximum(right, 1e-12)).mean(axis=1).argmax())
        trees[names[k]] = best + 1
        scores["val"][:, k] = stages[best]
        for stage, probabilities in enumerate(forest.staged_predict_proba(features[split])):
            if stage == best:
                scores[split][:, k] = probabilities[:, 1]
                break
    return label_result(
        "finetune",
        dataset,
        split,
        rows[split],
        {"measurements": scores[split]},
        probabilities=frozenset({"measurements"}),
        not_scored=not_scored,
        details={
            "features": [name for name, kept in zip(feature_names(), varies, strict=True) if kept],
            "age_and_sex": bool(demographics),
            "trees": trees,
            "seed": seed,
            "train_records": len(rows["train"]),
            "val_records": len(rows["val"]),
            THRESHOLDS: {"measurements": val_thresholds(names, scores["val"], labels["val"])},
        },
        errors=errors,
    )


def measured_features(
    dataset: EvaluationDataset, split: str, fs: float, demographics: Demographics
) -> tuple[npt.NDArray[np.int64], FloatArray, dict[str, str]]:
    """Readable rows (m,) of a split, features (m, F) as `feature_names`, and why others lack.

    Raises:
        ValueError: no record could be read.
    """
    from tqdm import tqdm

    from esi_fast.signal.measure import measure_records

    target = dataset.split(split)
    rows: list[int] = []
    found: list[list[float]] = []
    errors: dict[str, str] = {}
    starts = range(0, len(target.keys), _MEASURED_AT_ONCE)
    for start in tqdm(starts, desc=f"measure {split}", unit="batch", disable=None, leave=False):
        batch = list(range(start, min(start + _MEASURED_AT_ONCE, len(target.keys))))
        signals, reasons = target.read(batch)
        errors |= {target.keys[r]: why for r, why in zip(batch, reasons, strict=True) if why}
        good = [place for place, why in enumerate(reasons) if not why]
        measured = measure_records(np.ascontiguousarray(signals[good], np.float32), fs, threads=0)
        for place, one in zip(good, measured, strict=True):
            row = batch[place]
            rows.append(row)
            found.append([*_values(one), *demographics.get(target.keys[row], (np.nan, np.nan))])
    if not rows:
        raise ValueError(f"no record of split {split} could be read")
    return np.array(rows), np.array(found), errors


def feature_names() -> tuple[str, ...]:
    """Names of the columns of `measured_features`."""
    from esi_fast.leads import STANDARD_LEADS
    from esi_fast.signal.measurements import AMPLITUDES, VALUES

    voltages = (f"{lead} {name}" for lead in STANDARD_LEADS for name in AMPLITUDES)
    return (*VALUES, *voltages, "age", "male")


def _values(measured: Measurements) -> list[float]:
    from esi_fast.leads import STANDARD_LEADS
    from esi_fast.signal.measurements import AMPLITUDES, VALUES

    voltages: Any = measured.amplitudes
    return [
        *(float(getattr(measured, name)) for name in VALUES),
        *(
            float(voltages.get(lead, {}).get(name, np.nan))
            for lead in STANDARD_LEADS
            for name in AMPLITUDES
        ),
    ]


def read_demographics(name: str, root: Path) -> dict[str, tuple[float, float]]:
    """Age in years and sex (1 male, 0 female), NaN where unknown, of a dataset's records by key.

    Args:
        name: as :func:`esi_fast.evaluation.datasets.open_dataset`; of "csv", which has neither, the
            answer is empty.
        root: its folder.
    """
    if name == "csv":
        return {}
    if name == "shards":
        from esi_fast.data.shard_index import read_shard_folder
        from esi_fast.data.shard_set import ShardSet

        counts = read_shard_folder(root)["counts"]
        sets = [ShardSet([root], split) for split in counts if counts[split]]
        metas = ((key, one.read_meta(row)) for one in sets for row, key in enumerate(one.keys))
        return {key: _demographics(meta["age"], meta["sex"]) for key, meta in metas}
    from esi_fast.signal.catalogues import Source, open_catalogue

    sources: dict[str, Source] = {"ptbxl": "ptb-xl", "ludb": "ludb"}
    catalogue = open_catalogue(root, source=sources.get(name, "wfdb"))
    return {entry.key: _demographics(entry.age, entry.sex) for entry in catalogue}


def _demographics(age: float | None, sex: str | None) -> tuple[float, float]:
    male = {"male": 1.0, "female": 0.0}.get(sex or "", np.nan)
    return np.nan if age is None else float(age), male
