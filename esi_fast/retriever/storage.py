"""A retriever on disk: documents and vectors are the truth, the graph is a cache of them.

A folder holds ``documents.jsonl``, ``vectors.npy`` (float32, unit length), ``graph.bin`` (hnswlib's
own file) and ``meta.json`` with the sha256 of each and of itself. A file that is not the one
that was written is refused; a graph that is not, is built again from the vectors.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esi_fast.retriever.documents import Document
from esi_fast.retriever.embedders import Embedder, HashingEmbedder, TransformersEmbedder
from esi_fast.retriever.graph import PARAMETERS, Graph
from esi_fast.retriever.vectors import VectorIndex

_FORMAT = 3
_DOCUMENTS, _VECTORS, _GRAPH, _META = "documents.jsonl", "vectors.npy", "graph.bin", "meta.json"
# Half a surrogate pair, as in text that was cut in the middle, is kept as it is.
_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogatepass"}
# A text whose embedding tells embedders apart that bear one name.
_PROBE = "sinus rhythm with first degree AV block"


@dataclass(frozen=True, slots=True)
class Saved:
    """What a folder holds.

    Attributes:
        folder: where.
        meta: what ``save`` was given, and sizes.
        documents: in their order.
        vectors: one a document, or None for a retriever by words.
        graph: the graph's file, its bytes verified, or None.
    """

    folder: Path
    meta: dict[str, Any]
    documents: tuple[Document, ...]
    vectors: NDArray[np.float32] | None
    graph: Path | None


def save(
    folder: Path, documents: Sequence[Document], meta: Mapping[str, Any], index: VectorIndex | None
) -> None:
    """Writes a folder; what an older one there held is replaced.

    Raises:
        FileExistsError: the folder holds something else.
    """
    folder = folder.resolve()
    if folder.exists() and not _is_ours(folder):
        raise FileExistsError(f"{folder} exists and is no saved retriever; choose another")
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    temporary.mkdir(parents=True)
    try:
        with (temporary / _DOCUMENTS).open("w", **_TEXT) as file:
            for one in documents:
                row: dict[str, Any] = {"id": one.id, "title": one.title, "text": one.text}
                row["metadata"] = dict(one.metadata)
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        sizes: dict[str, Any] = {"documents": len(documents)}
        if index is not None:
            np.save(temporary / _VECTORS, index.vectors, allow_pickle=False)
            graph = index.graph_to_save()
            if graph is not None:
                graph.save(temporary / _GRAPH)
            sizes |= {"dimension": index.dimension, "search": index.kind, "graph": PARAMETERS}
        files = sorted(path.name for path in temporary.iterdir())
        whole = {
            **meta,
            **sizes,
            "format": _FORMAT,
            "sha256": {name: _sha256(temporary / name) for name in files},
        }
        whole["meta_sha256"] = _digest(whole)
        (temporary / _META).write_text(json.dumps(whole, indent=1), encoding="utf-8")
        for path in (*temporary.iterdir(), temporary):
            _sync(path)
        _put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds what `save` writes, be it damaged, and nothing else."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return _META in names and names <= {_DOCUMENTS, _VECTORS, _GRAPH, _META}


def _put_in_place(temporary: Path, folder: Path) -> None:
    """A rename cannot replace a folder that holds files: the old one steps aside first."""
    if folder.exists():
        aside = temporary.with_name(f"{temporary.name}.old")
        folder.replace(aside)
        try:
            temporary.replace(folder)
        except BaseException:
            aside.replace(folder)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    else:
        temporary.replace(folder)
    _sync(folder.parent)


def load(folder: Path) -> Saved:
    """Reads and verifies a folder.

    Raises:
        FileNotFoundError: it holds no saved retriever.
        ValueError: a file is damaged or of another format.
    """
    if not (folder / _META).is_file() or not (folder / _DOCUMENTS).is_file():
        raise FileNotFoundError(f"{folder} holds no saved retriever")
    try:
        meta = json.loads((folder / _META).read_text(encoding="utf-8"))
    except ValueError:
        raise _damaged(folder / _META) from None
    if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
        raise ValueError(f"{folder / _META} is not of format {_FORMAT}; save it again")
    if meta.pop("meta_sha256", None) != _digest(meta):
        raise _damaged(folder / _META)
    missing = {"sha256", "documents", "backend", "embedder", "k1", "b"} - meta.keys()
    if missing:
        raise ValueError(f"{folder / _META} lacks {', '.join(sorted(missing))}")
    sums: dict[str, str] = meta["sha256"]
    for name in {_DOCUMENTS, *sums} - {_GRAPH}:
        path = folder / name
        if not path.is_file() or _sha256(path) != sums.get(name):
            raise _damaged(path)
    # JSON escapes every line end but the one that ends a row; splitlines() would cut at others.
    lines = (folder / _DOCUMENTS).read_text(**_TEXT).split("\n")
    documents = tuple(Document(**json.loads(line)) for line in lines if line)
    vectors = np.load(folder / _VECTORS, allow_pickle=False) if _VECTORS in sums else None
    graph = folder / _GRAPH
    if _GRAPH not in sums:
        return Saved(folder, meta, documents, vectors, None)
    is_ours = graph.is_file() and _sha256(graph) == sums[_GRAPH]
    if not is_ours or meta.get("graph") != PARAMETERS:
        warnings.warn(f"{graph} is not what was saved: it is built again", stacklevel=3)
        return Saved(folder, meta, documents, vectors, None)
    return Saved(folder, meta, documents, vectors, graph)


def restore_vectors(index: VectorIndex, saved: Saved) -> None:
    """Puts saved vectors, and their graph where there is one, into an empty index.

    Raises:
        ValueError: the vectors do not fit the documents or the index.
    """
    vectors = saved.vectors
    wanted = (len(saved.documents), index.dimension)
    said = (saved.meta["documents"], saved.meta.get("dimension"))
    if vectors is None or not vectors.shape == wanted == said or vectors.dtype != np.float32:
        raise ValueError(f"{saved.folder / _VECTORS} does not hold float32 {wanted}")
    index.restore(vectors)
    if saved.graph is not None:
        try:
            index.adopt_graph(Graph.load(saved.graph, index.dimension))
        except (RuntimeError, ValueError) as error:
            warnings.warn(f"{saved.graph}: {error}: it is built again", stacklevel=3)


def probe_of(embedder: Embedder) -> list[list[float]]:
    """The embeddings of a fixed text as a query and a document: an embedder is known by them."""
    vectors = (
        embedder.embed_queries([_PROBE])[0],
        embedder.embed_documents([Document("probe", _PROBE)])[0],
    )
    return [[round(float(value), 6) for value in vector] for vector in vectors]


def check_probe(embedder: Embedder, probe: Sequence[Sequence[float]], folder: Path) -> None:
    """Make sure that an embedder is the one that made a folder's vectors.

    Raises:
        ValueError: it is not.
    """
    mine, saved = np.array(probe_of(embedder)), np.array(probe)
    # Another machine's arithmetic may differ in the last digits.
    if mine.shape != saved.shape or not np.allclose(mine, saved, atol=1e-3):
        raise ValueError(
            f"{folder} was made by another embedder than {embedder.identity}; load it with that one"
        )


def embedder_of(identity: Mapping[str, Any]) -> Embedder:
    """The embedder that a folder names.

    Raises:
        ValueError: it is none of ours, so that it must be given.
    """
    kind, options = identity.get("kind"), {k: v for k, v in identity.items() if k != "kind"}
    if kind == "hashing":
        return HashingEmbedder(**options)
    if kind == "transformers":
        return TransformersEmbedder(options.pop("model"), **options)
    raise ValueError(f"embedder {dict(identity)} cannot be made again: give it as embedder=")


def _damaged(path: Path) -> ValueError:
    return ValueError(f"{path} is damaged; save the retriever again")


def _digest(meta: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
