"""What an evaluation is asked for, and its models: the one in question and those beside it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import esi_fast
from esi_fast.evaluation.bootstrap import Resampling
from esi_fast.evaluation.datasets import open_dataset
from esi_fast.evaluation.embed import Embedder
from esi_fast.evaluation.embedding_cache import EMBEDDINGS, CachedEmbedder, weights_digest
from esi_fast.evaluation.leaks import LEAK, find_leaks, without_leaks
from esi_fast.evaluation.published import load_model
from esi_fast.evaluation.splits import EvaluationDataset

if TYPE_CHECKING:
    from esi_fast.evaluation.published import PublishedModel
    from esi_fast.models.esi import ESI

MODEL, AGAINST = "model", "against"


@dataclass(frozen=True)
class Request:
    """What one evaluation is asked for.

    Attributes:
        model: folder of the model; or weights in the published layout, a folder or a file.
        dataset: name, see :func:`esi_fast.evaluation.datasets.open_dataset`.
        root: folder of the dataset.
        tasks: names of ``run.TASKS``, in order.
        out: folder to write.
        against: a second model to compare with.
        tokenizer: name or folder, for weights in the published layout.
        num_random: encoders with random weights (seeds 0, 1, ...) that go through the same steps.
        labels: label set; "" is the dataset's concepts.
        folds: of each split, for datasets with folds.
        protocol: "fixed", or "merl" for signals as a published benchmark prepares them.
        split: to score.
        prompts: a file of the user's own zero-shot prompts.
        prompts_by: zero-shot prompts by "name", "description" or "both".
        baselines: of fine-tuning, names of ``run.BASELINES``.
        layers: what fine-tuning trains: "full", or "last": projection and last stage.
        pretrained_on: shard folders that the model has seen: their patients are left out.
        allow_leak: keep them, and say so in the report.
        same_record_crops: identify halves of one record, not records of one patient.
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
    tokenizer: str = ""
    num_random: int = 3
    labels: str = ""
    folds: Mapping[str, Sequence[int]] | None = None
    protocol: str = "fixed"
    split: str = "test"
    prompts: Path | None = None
    prompts_by: str = "name"
    baselines: tuple[str, ...] = ()
    layers: Literal["full", "last"] = "full"
    pretrained_on: Sequence[Path] = ()
    allow_leak: bool = False
    same_record_crops: bool = False
    settings: Resampling = dataclasses.field(default_factory=Resampling)
    batch_size: int = 64
    device: str = "cpu"

    def source_digest(self) -> str:
        """Of where the records are, of shards what they hold, and of the code that scores them."""
        index = self.root / "index.json"
        content = index.read_text(encoding="utf-8") if index.is_file() else ""
        return digest_of([str(self.root.resolve()), content, esi_fast.__version__])


@dataclass(frozen=True)
class Models:
    """The models of an evaluation over its dataset, the one in question first.

    Attributes:
        embedders: contender to embedder.
        descriptions: contender to what it is, for the report.
        digests: contender to digest of the weights.
        config: of the model in question.
    """

    embedders: Mapping[str, Embedder]
    descriptions: Mapping[str, str]
    digests: Mapping[str, str]
    config: Any

    @property
    def dataset(self) -> EvaluationDataset:
        """In the format of the model in question."""
        return self.embedders[MODEL].dataset


def open_models(request: Request) -> Models:
    """Load the models of a request, each over the dataset in its own format.

    Raises:
        FileNotFoundError: a folder has no model.
        ValueError: the dataset cannot be opened as asked.
    """
    datasets: dict[tuple[float, int], EvaluationDataset] = {}
    embedders: dict[str, Embedder] = {}
    descriptions: dict[str, str] = {}
    digests: dict[str, str] = {}

    def add(name: str, model: ESI | PublishedModel, description: str, digest: str) -> None:
        form = (float(model.config.fs), int(model.config.num_samples))
        if form not in datasets:
            datasets[form] = open_unseen(request, *form)
        embedders[name] = CachedEmbedder(
            model.eval().to(request.device),
            datasets[form],
            batch_size=request.batch_size,
            folder=request.out / EMBEDDINGS,
            identity=digest_of([digest, request.protocol, request.source_digest()]),
        )
        descriptions[name], digests[name] = description, digest

    model = load_model(request.model, request.tokenizer)
    digest = weights_digest(request.model)
    add(MODEL, model, str(request.model), digest)
    if request.against is not None:
        against = load_model(request.against, request.tokenizer)
        add(AGAINST, against, str(request.against), weights_digest(request.against))
    for seed in range(request.num_random):
        text = f"the model's architecture with random weights, seed {seed}"
        name = f"random-{seed}"
        add(name, model.untrained_copy(seed), text, digest_of([digest, name]))
    return Models(embedders, descriptions, digests, model.config)


def open_unseen(request: Request, fs: float, num_samples: int) -> EvaluationDataset:
    """The dataset of a request in a model's format, less the patients that pretraining has seen.

    Its notes say what was looked at and what was found.

    Raises:
        ValueError: the dataset cannot be opened as asked, or nothing of the split is unseen.
        FileNotFoundError: a file of it, or a shard folder, is missing.
    """
    dataset = open_dataset(
        request.dataset,
        request.root,
        fs=fs,
        num_samples=num_samples,
        labels=request.labels,
        folds=request.folds,
        protocol=request.protocol,
    )
    if not request.pretrained_on:
        note = "Whether pretraining has seen these patients was not checked (--pretrained-on)."
        return dataclasses.replace(dataset, notes=(*dataset.notes, note))
    leaks = find_leaks(dataset, request.split, request.pretrained_on)
    notes = (*dataset.notes, *leaks.notes)
    if not len(leaks.rows):
        return dataclasses.replace(dataset, notes=notes)
    if request.allow_leak:
        notes += (f"{LEAK}{leaks.describe()} and were kept (--allow-leak).",)
        return dataclasses.replace(dataset, notes=notes)
    return without_leaks(dataclasses.replace(dataset, notes=notes), leaks)


def digest_of(content: Any) -> str:
    """Digest of anything JSON-ready."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
