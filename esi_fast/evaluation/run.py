"""One evaluation: the contenders, the tasks by name, and what is kept so that a rerun resumes."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from esi_fast.evaluation.bootstrap import Resampling
from esi_fast.evaluation.cache import (
    CONTEXT,
    has_result,
    read_context,
    read_result,
    write_context,
    write_result,
)
from esi_fast.evaluation.datasets import EvaluationDataset, open_dataset
from esi_fast.evaluation.document import Picture
from esi_fast.evaluation.embed import Embedder
from esi_fast.evaluation.embedding_cache import CachedEmbedder, weights_digest
from esi_fast.evaluation.label_summary import THRESHOLDS, f_max_threshold
from esi_fast.evaluation.probe import fit_probe
from esi_fast.evaluation.report import make_report
from esi_fast.evaluation.results import LabelResult
from esi_fast.evaluation.summary import TaskResult
from esi_fast.evaluation.worst_errors import worst_errors
from esi_fast.evaluation.zeroshot import cosine_scores

if TYPE_CHECKING:
    from esi_fast.models.esi import ESI

MODEL, AGAINST = "model", "against"


@dataclass(frozen=True)
class Request:
    """What one evaluation is asked for.

    Attributes:
        model: folder of the model.
        dataset: name, see :func:`esi_fast.evaluation.datasets.open_dataset`.
        root: folder of the dataset.
        tasks: names of :data:`TASKS`, in order.
        out: folder to write.
        against: folder of a second model to compare with.
        num_random: encoders with random weights (seeds 0, 1, ...) that go through the same steps.
        labels: label set; "" is the dataset's concepts.
        folds: of each split, for datasets with folds.
        protocol: "fixed", or "merl" to compare with published numbers.
        split: to score.
        settings: of intervals and tests.
        batch_size: records a forward pass.
        device: torch device.
    """

    model: Path
    dataset: str
    root: Path
    tasks: tuple[str, ...]
    out: Path
    against: Path | None = None
    num_random: int = 3
    labels: str = ""
    folds: Mapping[str, Sequence[int]] | None = None
    protocol: str = "fixed"
    split: str = "test"
    settings: Resampling = dataclasses.field(default_factory=Resampling)
    batch_size: int = 64
    device: str = "cpu"


@dataclass(frozen=True)
class Contenders:
    """The models of an evaluation over its dataset, the one in question first.

    Attributes:
        embedders: name to embedder.
        descriptions: name to what it is, for the report.
        digests: name to digest of the weights.
    """

    embedders: Mapping[str, Embedder]
    descriptions: Mapping[str, str]
    digests: Mapping[str, str]


def evaluate(request: Request, *, command: str) -> dict[str, Any]:
    """Run the tasks of a request and write its folder: cached scores, then the three reports.

    A task whose result is cached for the same models, records and settings is not run again, nor is
    a split embedded again.

    Returns:
        The content of ``report.json``.

    Raises:
        ValueError: a task is unknown, or cannot run on what is asked.
        FileNotFoundError: a file of the model or the dataset is missing.
    """
    contenders, model = open_contenders(request)
    dataset = contenders.embedders[MODEL].dataset
    request.out.mkdir(parents=True, exist_ok=True)
    cached = _cached_tasks(request.out)
    basis = _basis(request, contenders, dataset)
    results: dict[str, list[str]] = {}
    for task in request.tasks:
        digest = _digest([basis, task])
        names = cached.get(task, [])
        if names and all(has_result(request.out, name, digest) for name in names):
            _say(f"{task}: from {request.out}")
            results[task] = names
            continue
        _say(f"{task} on {dataset.name} ...")
        done = TASKS[task](contenders.embedders, request)
        for result in done:
            write_result(request.out, result, digest)
        results[task] = [result.task for result in done]
        _write_context(request, contenders, model, dataset, results | _rest(cached, results))
    _write_context(request, contenders, model, dataset, results)
    _say("intervals and tests ...")
    return make_report(
        request.out, command=command, errors=_error_pages(request, dataset, results, model)
    )


def clear(folder: Path) -> None:
    """Remove what an earlier evaluation left in a folder, and nothing else."""
    names = ("report.*", "evaluation.json", "scores-*", "figures/*.png", "embeddings/*.npz")
    for path in (path for name in names for path in folder.glob(name)):
        path.unlink()


def open_contenders(request: Request) -> tuple[Contenders, ESI]:
    """Load the models of a request, each over the dataset in its own format.

    Raises:
        FileNotFoundError: a folder has no model.
        ValueError: the dataset cannot be opened as asked.
    """
    from esi_fast.models.esi import ESI

    datasets: dict[tuple[float, int], EvaluationDataset] = {}
    embedders: dict[str, Embedder] = {}
    descriptions: dict[str, str] = {}
    digests: dict[str, str] = {}

    def add(name: str, model: ESI, description: str, digest: str) -> None:
        config = model.config
        form = (float(config.fs), int(config.num_samples))
        if form not in datasets:
            datasets[form] = open_dataset(
                request.dataset,
                request.root,
                fs=config.fs,
                num_samples=config.num_samples,
                labels=request.labels,
                folds=request.folds,
                protocol=request.protocol,
            )
        embedders[name] = CachedEmbedder(
            model.eval().to(request.device),
            datasets[form],
            batch_size=request.batch_size,
            folder=request.out / "embeddings",
            identity=_digest([digest, request.protocol]),
        )
        descriptions[name], digests[name] = description, digest

    model = ESI.from_pretrained(request.model)
    digest = weights_digest(request.model)
    add(MODEL, model, str(request.model), digest)
    if request.against is not None:
        against = ESI.from_pretrained(request.against)
        add(AGAINST, against, str(request.against), weights_digest(request.against))
    for seed in range(request.num_random):
        text = f"the model's architecture with random weights, seed {seed}"
        name = f"random-{seed}"
        add(name, model.untrained_copy(seed), text, _digest([digest, name]))
    return Contenders(embedders, descriptions, digests), model


def _zero_shot(embedders: Mapping[str, Embedder], request: Request) -> list[TaskResult]:
    embedder = embedders[MODEL]
    scores = {name: cosine_scores(one, request.split) for name, one in embedders.items()}
    details: dict[str, Any] = {
        "score": "cosine of the record's embedding and the mean of its label's prompts'",
        "prompts": dict(
            zip(embedder.dataset.label_names, map(list, embedder.dataset.prompts), strict=True)
        ),
    }
    if request.split == "test" and "val" in embedder.dataset.splits:
        details[THRESHOLDS] = {name: _val_thresholds(one) for name, one in embedders.items()}
    return [_label_result("zeroshot", embedder, request.split, scores, details)]


def _val_thresholds(embedder: Embedder) -> dict[str, float]:
    """The threshold of the highest F1 on the validation patients, for labels that they have."""
    scores = cosine_scores(embedder, "val")
    labels = embedder.dataset.split("val").labels[embedder.ecg("val").rows]
    return {
        name: f_max_threshold(scores[:, k], labels[:, k])
        for k, name in enumerate(embedder.dataset.label_names)
        if labels[:, k].any()
    }


def _probe(embedders: Mapping[str, Embedder], request: Request) -> list[TaskResult]:
    embedder = embedders[MODEL]
    parts = ("train", "val", request.split)
    rows = {part: embedder.ecg(part).rows for part in parts}
    fits = {
        name: fit_probe(
            *(one.ecg(part).values for part in parts),
            train_labels=embedder.dataset.split("train").labels[rows["train"]],
            val_labels=embedder.dataset.split("val").labels[rows["val"]],
        )
        for name, one in embedders.items()
    }
    details: dict[str, Any] = {
        "train_records": len(rows["train"]),
        "val_records": len(rows["val"]),
        "fits": {name: {"c": fit.c} for name, fit in fits.items()},
    }
    scores = {name: fit.scores for name, fit in fits.items()}
    return [_label_result("probe", embedder, request.split, scores, details)]


def _label_result(
    task: str,
    embedder: Embedder,
    split: str,
    scores: Mapping[str, npt.NDArray[np.float64]],
    details: Mapping[str, Any],
) -> LabelResult:
    dataset, target, ecg = embedder.dataset, embedder.dataset.split(split), embedder.ecg(split)
    missing = np.isnan(np.concatenate(list(scores.values()))).all(axis=0).tolist()
    return LabelResult(
        task=task,
        split=split,
        label_names=dataset.label_names,
        titles=dataset.titles,
        keys=np.array(target.keys)[ecg.rows],
        groups=target.groups[ecg.rows],
        labels=target.labels[ecg.rows],
        scores=scores,
        not_scored={
            name: "no training record with it, or none without it"
            for name, lacks in zip(dataset.label_names, missing, strict=True)
            if lacks
        },
        details=details,
        errors=ecg.errors,
    )


TASKS: Mapping[str, Callable[[Mapping[str, Embedder], Request], list[TaskResult]]] = {
    "zeroshot": _zero_shot,
    "probe": _probe,
}


def _error_pages(
    request: Request,
    dataset: EvaluationDataset,
    results: Mapping[str, Sequence[str]],
    model: ESI,
) -> tuple[Picture, ...]:
    """The worst errors of the first task of labels."""
    for name in (name for names in results.values() for name in names):
        result = read_result(request.out, name)
        if isinstance(result, LabelResult):
            split = dataset.split(result.split)
            row_of_key = {key: row for row, key in enumerate(split.keys)}

            def read(key: str) -> npt.NDArray[np.float32]:
                signal: npt.NDArray[np.float32] = split.read([row_of_key[key]])[0][0]  # noqa: B023
                return signal

            few = request.settings.min_positives
            return worst_errors(result, read, fs=float(model.config.fs), min_positives=few)
    return ()


def _cached_tasks(folder: Path) -> dict[str, list[str]]:
    """Task of the command line to the results that it gave, of an earlier run in this folder."""
    if not (folder / CONTEXT).is_file():
        return {}
    return dict(read_context(folder).get("results_of", {}))


def _rest(cached: Mapping[str, list[str]], results: Mapping[str, Any]) -> dict[str, list[str]]:
    return {task: names for task, names in cached.items() if task not in results}


def _basis(request: Request, contenders: Contenders, dataset: EvaluationDataset) -> str:
    """Digest of all that a result depends on but its task."""
    splits = {
        name: [
            split.keys,
            split.groups.tolist(),
            hashlib.sha256(split.labels.tobytes()).hexdigest(),
        ]
        for name, split in dataset.splits.items()
    }
    return _digest(
        [contenders.digests, dataset.name, dataset.label_names, dataset.prompts, splits,
         request.split, request.protocol]
    )  # fmt: skip


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _write_context(
    request: Request,
    contenders: Contenders,
    model: ESI,
    dataset: EvaluationDataset,
    results: Mapping[str, list[str]],
) -> None:
    write_context(
        request.out,
        {
            "model": {"path": str(request.model), "config": dataclasses.asdict(model.config)},
            "contenders": dict(contenders.descriptions),
            "dataset": {
                "name": dataset.name,
                "root": str(request.root),
                "labels": request.labels or "concepts",
                "splits": {
                    name: {"records": len(split.keys), "patients": len(set(split.groups.tolist()))}
                    for name, split in dataset.splits.items()
                },
            },
            "settings": dataclasses.asdict(request.settings),
            "tasks": [name for names in results.values() for name in names],
            "results_of": dict(results),
            "notes": _notes(request, dataset),
            "versions": _versions(),
        },
    )


def _notes(request: Request, dataset: EvaluationDataset) -> list[str]:
    """What a reader of the scores should know, a sentence each."""
    notes = list(dataset.notes)
    if not dataset.patients_known:
        notes.append("This dataset does not tell patients apart: each record counts as its own.")
    if request.protocol != "fixed":
        notes.append(
            f"Protocol {request.protocol}: signals were prepared as a published benchmark does, to "
            "compare with its numbers, and not as the model was trained to see them."
        )
    return notes


def _versions() -> dict[str, str]:
    packages = ("esi-fast", "torch", "numpy", "scikit-learn", "transformers")
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
