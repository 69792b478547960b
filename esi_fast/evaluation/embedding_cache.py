"""Embeddings on disk, so that a run that was killed, or that adds a task, embeds nothing twice."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from esi_fast.evaluation.embed import ECGTextModel, Embedder, Embeddings, still_unreadable

if TYPE_CHECKING:
    from esi_fast.evaluation.splits import EvaluationDataset

_HEX = 20  # digits of a file's name
EMBEDDINGS = "embeddings"  # a folder of an evaluation's
_CHUNK = 1 << 20


class CachedEmbedder(Embedder):
    """An :class:`Embedder` that keeps each split's embeddings in a file.

    Args:
        model: as :class:`Embedder`.
        dataset: as :class:`Embedder`.
        batch_size: as :class:`Embedder`.
        folder: for the files; made if absent.
        identity: of the model's weights and of how signals are prepared for it. A file is found by
            it, by the dataset and by the split's keys; one that is damaged is made again.
    """

    def __init__(
        self,
        model: ECGTextModel,
        dataset: EvaluationDataset,
        *,
        batch_size: int,
        folder: Path,
        identity: str,
    ) -> None:
        super().__init__(model, dataset, batch_size=batch_size)
        self._folder = folder
        self._identity = identity
        self._held: dict[str, Embeddings] = {}

    def ecg(self, split: str) -> Embeddings:
        """Embeddings of a split, from its file if there is one; errors as :class:`Embedder`."""
        if split not in self._held:
            records = self.dataset.split(split)
            path = self._folder / f"{self._name(split, records.keys)}.npz"
            found = _read(path, len(records.keys))
            if found is None or not still_unreadable(records, found.errors):
                found = super().ecg(split)
                _write(path, found)
            self._held[split] = found
        return self._held[split]

    def _name(self, split: str, keys: tuple[str, ...]) -> str:
        about = [self._identity, self.dataset.name, split, *keys]
        return f"{split}-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:_HEX]}"


def is_embedding(path: Path) -> bool:
    """Whether a file has the name of one that holds a split's embeddings, or is to."""
    return (
        re.fullmatch(rf"(train|val|test)-[0-9a-f]{{{_HEX}}}\.npz(\.partial)?", path.name)
        is not None
    )


def weights_digest(model: Path) -> str:
    """Digest of a model's weights and configuration: those of a folder, or of a file.

    Raises:
        FileNotFoundError: it has no weights.
    """
    of_weights = (".safetensors", ".bin", ".pt", ".pth")
    files = [model] if model.is_file() else sorted(model.iterdir())
    files = [path for path in files if path.suffix in (*of_weights, ".json", ".txt")]
    if not any(path.suffix in of_weights for path in files):
        raise FileNotFoundError(f"{model} has no .safetensors file: it is no exported model")
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _write(path: Path, embeddings: Embeddings) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        np.savez(
            file,
            values=embeddings.values,
            rows=embeddings.rows,
            error_keys=np.array(list(embeddings.errors), dtype=np.str_),
            error_reasons=np.array(list(embeddings.errors.values()), dtype=np.str_),
        )
    partial.replace(path)


def _read(path: Path, num_keys: int) -> Embeddings | None:
    if not path.is_file():
        return None
    try:
        # Opened here: numpy leaves a file open that is no archive.
        with path.open("rb") as file, np.load(file) as arrays:
            reasons = (arrays[name].tolist() for name in ("error_keys", "error_reasons"))
            errors = dict(zip(*reasons, strict=True))
            found = Embeddings(arrays["values"], arrays["rows"], errors)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    whole = len(found.rows) == len(found.values) and len(found.rows) + len(found.errors) == num_keys
    return found if whole else None
