"""One evaluation: the contenders, the tasks by name, and what is kept so that a rerun resumes."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import esi_fast
from esi_fast.evaluation.cache import (
    CONTEXT,
    has_result,
    read_context,
    read_result,
    results_in,
    write_context,
    write_result,
)
from esi_fast.evaluation.captioning import caption
from esi_fast.evaluation.document import Picture
from esi_fast.evaluation.embed import Embedder, still_unreadable
from esi_fast.evaluation.embedding_cache import EMBEDDINGS, is_embedding
from esi_fast.evaluation.identify import identify
from esi_fast.evaluation.published import require_own
from esi_fast.evaluation.report import REPORT, make_report
from esi_fast.evaluation.request import (
    AGAINST,
    MODEL,
    Models,
    Request,
    digest_of,
    open_models,
    open_unseen,
)
from esi_fast.evaluation.results import LabelResult, PairResult
from esi_fast.evaluation.retrieval import retrieve
from esi_fast.evaluation.splits import EvaluationDataset
from esi_fast.evaluation.summary import TaskResult
from esi_fast.evaluation.worst_errors import worst_errors
from esi_fast.evaluation.zeroshot import zero_shot


def evaluate(request: Request, *, command: str, overwrite: bool = False) -> dict[str, Any]:
    """Run the tasks of a request and write its folder: cached scores, then the three reports.

    A task whose result this version cached for the same models, records and settings is not run
    again, nor is a split embedded again; unless records could not be read, which may be over.

    Args:
        request: what is asked for.
        command: the command line, for whoever wants the same numbers.
        overwrite: take away what an earlier evaluation left in the folder, once the models and the
            dataset are open.

    Returns:
        The content of ``report.json``.

    Raises:
        ValueError: a task is unknown, or cannot run on what is asked: the others have run, and
            stand in the reports, if there are any.
        FileNotFoundError: a file of the model or the dataset is missing.
    """
    if overwrite and request.out.is_dir() and not is_evaluation(request.out):
        raise ValueError(f"{request.out} holds no evaluation: give another folder, or empty it")
    models = open_models(request)
    if overwrite:
        clear(request.out)
    request.out.mkdir(parents=True, exist_ok=True)
    basis = _basis(request, models)
    earlier = read_context(request.out) if (request.out / CONTEXT).is_file() else {}
    version = earlier.get("versions", {}).get("esi-fast")
    if version not in (None, esi_fast.__version__):
        _say(f"{request.out} is of esi_fast {version}: {esi_fast.__version__} scores it anew")
    # Of another model, dataset or version nothing is kept: one report must not name both as one.
    cached = {
        task: names
        for task, names in earlier.get("results_of", {}).items()
        if names
        and all(_is_done(request, models, name, digest_of([basis, task])) for name in names)
    }
    results: dict[str, list[str]] = {}
    impossible: dict[str, ValueError] = {}
    for task in request.tasks:
        if task in cached:
            _say(f"{task}: from {request.out}")
            results[task] = cached[task]
            continue
        _say(f"{task} on {models.dataset.name} ...")
        try:
            done = TASKS[task](models.embedders, request)
        except ValueError as error:
            if len(request.tasks) == 1:
                raise
            _say(f"{task} is not possible: {error}")
            impossible[task] = error
            continue
        for result in done:
            write_result(request.out, result, digest_of([basis, task]))
        results[task] = [result.task for result in done]
        _write_context(request, models, command, results | _rest(cached, results))
    if not results:
        raise next(iter(impossible.values()))
    kept = _rest(cached, results)
    results |= kept
    pages = _error_pages(request, models, results)
    notes = [f"Task {task} is not possible here: {error}." for task, error in impossible.items()]
    if kept:
        notes.append(f"Scored by an earlier command: {', '.join(kept)}.")
    _write_context(request, models, command, results, notes, pages)
    _say("intervals and tests ...")
    report = make_report(request.out, command=command, errors=pages)
    if impossible:
        task, reason = next(iter(impossible.items()))
        raise ValueError(f"{task}: {reason} (the other tasks are in {request.out})") from reason
    return report


def is_evaluation(folder: Path) -> bool:
    """Whether a folder is empty or of an evaluation, finished or not: it may be written over."""
    names = {path.name for path in folder.iterdir()}
    return bool(names & {CONTEXT, REPORT}) or names <= {EMBEDDINGS}


def clear(folder: Path) -> None:
    """Remove what an earlier evaluation left in a folder, by name, and nothing else."""
    if not folder.is_dir():
        return
    tasks = results_in(folder)
    paths = [folder / name for name in (CONTEXT, REPORT, "report.md", "report.html")]
    paths += [folder / f"scores-{task}{suffix}" for task in tasks for suffix in (".npz", ".json")]
    paths += [path for task in tasks for path in folder.glob(f"figures/{task}-*.png")]
    paths += [path for path in folder.glob(f"{EMBEDDINGS}/*.npz*") if is_embedding(path)]
    for path in paths:
        path.unlink(missing_ok=True)


def _is_done(request: Request, models: Models, name: str, digest: str) -> bool:
    """Whether a result is cached for this request, and what it could not read still is so."""
    if not has_result(request.out, name, digest):
        return False
    result = read_result(request.out, name)
    unread = {} if isinstance(result, PairResult) else result.errors
    return all(still_unreadable(split, unread) for split in models.dataset.splits.values())


def _identify(embedders: Mapping[str, Embedder], request: Request) -> list[TaskResult]:
    crops = request.same_record_crops
    return list(identify(embedders, split=request.split, same_record_crops=crops))


def _retrieve(embedders: Mapping[str, Embedder], request: Request) -> list[TaskResult]:
    return [retrieve(embedders, split=request.split)]


def _caption(embedders: Mapping[str, Embedder], request: Request) -> list[TaskResult]:
    """The captions of the pretrained models: random ones need no baseline beside the shuffled."""
    dataset = embedders[MODEL].dataset
    models = {name: one for name, one in embedders.items() if name in (MODEL, AGAINST)}
    other = [name for name, one in models.items() if one.dataset is not dataset]
    if other:
        raise ValueError(
            f"{request.against} takes signals of another rate or length than {request.model}: "
            "their captions cannot be compared; evaluate each on its own"
        )
    captioners = {name: require_own(one.model, "caption") for name, one in models.items()}
    return [caption(captioners, dataset, split=request.split, batch_size=request.batch_size)]


def _zero_shot(embedders: Mapping[str, Embedder], request: Request) -> list[TaskResult]:
    return [
        zero_shot(embedders, split=request.split, prompts=request.prompts, kind=request.prompts_by)
    ]


def _finetune(embedders: Mapping[str, Embedder], request: Request) -> list[TaskResult]:
    """The pretrained models, beside what learns the same labels without pretraining."""
    from esi_fast.evaluation import baselines
    from esi_fast.evaluation.contenders import beside, renamed
    from esi_fast.evaluation.finetune import finetune

    dataset, split = embedders[MODEL].dataset, request.split
    model = require_own(embedders[MODEL].model, "finetune")
    layers = request.layers
    results = [finetune(model, dataset, split=split, mode=layers)]
    if AGAINST in embedders:
        other = embedders[AGAINST]
        own = require_own(other.model, "finetune")
        second = finetune(own, other.dataset, split=split, mode=layers)
        results.append(renamed(second, "finetuned", "finetuned-against"))
    if "convnext" in request.baselines:
        results.append(baselines.train_convnext(model, dataset, split=split))
    if "xresnet" in request.baselines:
        results.append(baselines.train_xresnet(model, dataset, split=split))
    if "measurements" in request.baselines:
        fs, measured = _measurable(request, embedders[MODEL])
        known = baselines.read_demographics(request.dataset, request.root)
        results.append(
            baselines.boost_measurements(measured, fs=fs, split=split, demographics=known)
        )
    return [beside("finetune", results)]


def _measurable(request: Request, embedder: Embedder) -> tuple[float, EvaluationDataset]:
    """The records as an electrocardiograph has them: in mV, at its rate, whatever the model's."""
    config = embedder.model.config
    fs, num_samples = float(config.fs), int(config.num_samples)
    # Shards hold one rate, and were made for the model's.
    own = fs if request.dataset == "shards" else max(fs, _MEASURED_FS)
    if own == fs and request.protocol == "fixed":
        return fs, embedder.dataset
    plain = dataclasses.replace(request, protocol="fixed")
    return own, open_unseen(plain, own, round(num_samples * own / fs))


def _probe(embedders: Mapping[str, Embedder], request: Request) -> list[TaskResult]:
    from esi_fast.evaluation.probe import probe

    return list(probe(embedders, split=request.split))


_MEASURED_FS = 500.0  # of clinical records, to the millisecond
BASELINES = ("convnext", "xresnet", "measurements")
_FINE_TUNED = {
    "finetuned": "the model, its ECG side trained on on the labels",
    "finetuned-against": "the second model, trained on alike",
    "scratch-convnext": "the model's architecture, trained on the labels from random weights",
    "scratch-xresnet1d101": "the PTB-XL benchmark's network, trained on the labels",
    "measurements": "gradient boosting on measured intervals, axes and voltages",
}


def _fine_tuned(request: Request) -> dict[str, str]:
    """The contenders that fine-tuning had."""
    asked = {
        "finetuned": True,
        "finetuned-against": request.against is not None,
        "scratch-convnext": "convnext" in request.baselines,
        "scratch-xresnet1d101": "xresnet" in request.baselines,
        "measurements": "measurements" in request.baselines,
    }
    return {name: text for name, text in _FINE_TUNED.items() if asked[name]}


TASKS: Mapping[str, Callable[[Mapping[str, Embedder], Request], list[TaskResult]]] = {
    "zeroshot": _zero_shot,
    "probe": _probe,
    "finetune": _finetune,
    "identify": _identify,
    "retrieval": _retrieve,
    "caption": _caption,
}


def _error_pages(
    request: Request, models: Models, results: Mapping[str, Sequence[str]]
) -> tuple[Picture, ...]:
    """The worst errors of the first task of labels, with all of its training patients.

    None under a protocol whose signals are not in mV.
    """
    if request.protocol != "fixed":
        return ()
    for name in (names[-1] for names in results.values()):
        result = read_result(request.out, name)
        if isinstance(result, LabelResult):
            split = models.dataset.split(result.split)
            row_of_key = {key: row for row, key in enumerate(split.keys)}

            def read(key: str) -> npt.NDArray[np.float32]:
                signal: npt.NDArray[np.float32] = split.read([row_of_key[key]])[0][0]  # noqa: B023
                return signal

            few = request.settings.min_positives
            return worst_errors(result, read, fs=float(models.config.fs), min_positives=few)
    return ()


def _rest(cached: Mapping[str, list[str]], results: Mapping[str, Any]) -> dict[str, list[str]]:
    return {task: names for task, names in cached.items() if task not in results}


def _basis(request: Request, models: Models) -> str:
    """Digest of all that a result depends on but its task."""
    dataset = models.dataset
    splits = {
        name: [
            split.keys,
            split.groups.tolist(),
            None if split.times is None else split.times.tolist(),
            None if split.concept_keys is None else split.concept_keys.tolist(),
            hashlib.sha256(split.labels.tobytes()).hexdigest(),
        ]
        for name, split in dataset.splits.items()
    }
    return digest_of(
        [models.digests, dataset.name, dataset.label_names, dataset.prompts, splits,
         request.split, request.protocol, request.baselines, request.layers,
         request.prompts_by, request.same_record_crops, request.source_digest(),
         request.tokenizer,
         request.prompts.read_text(encoding="utf-8") if request.prompts else None]
    )  # fmt: skip


def _write_context(
    request: Request,
    models: Models,
    command: str,
    results: Mapping[str, list[str]],
    notes: Sequence[str] = (),
    pages: Sequence[Picture] = (),
) -> None:
    dataset = models.dataset
    write_context(
        request.out,
        {
            "model": {"path": str(request.model), "config": dataclasses.asdict(models.config)},
            "contenders": dict(models.descriptions)
            | (_fine_tuned(request) if "finetune" in results else {}),
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
            "notes": [*_notes(request, dataset), *notes],
            "command": command,
            "pages": {page.name: page.alt for page in pages},
            "versions": _versions(),
        },
    )


def _notes(request: Request, dataset: EvaluationDataset) -> list[str]:
    """What a reader of the scores should know, a sentence each."""
    notes = list(dataset.notes)
    if request.protocol != "fixed":
        notes.append(
            f"Protocol {request.protocol}: signals were prepared as a published benchmark does, "
            "and not as the model was trained to see them. Splits and probe are not its own."
        )
    return notes


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "esi-fast": esi_fast.__version__}
    for package in ("torch", "numpy", "scikit-learn", "transformers"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
