"""Texts to vectors: by any encoder of Hugging Face, or by hashed words where there is no model."""

from __future__ import annotations

import math
import os
import threading
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from esi_fast.retriever.arguments import whole_number
from esi_fast.retriever.documents import Document, words_of

Vectors = NDArray[np.float32]
# A word's own weight, beside all of its parts together.
_WHOLE, _PARTS = 1.0, 0.5


class Embedder(Protocol):
    """Whatever makes vectors of texts.

    ``identity`` says in JSON what made them: vectors of two embedders cannot be compared.
    """

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the vectors, as JSON."""

    @property
    def dimension(self) -> int:
        """Of the vectors."""

    def embed_documents(self, documents: Sequence[Document]) -> Vectors:
        """One row a document, (n, dimension) float32, finite."""

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """One row a query; all zeros where there is nothing to embed."""


class HashingEmbedder:
    """Words and parts of words hashed into a vector: no model, nothing to fit.

    Two texts are near when they share words, or parts of 3 to 5 letters ("repolarisation" and
    "repolarization"). It knows no meaning. Source: Weinberger et al. 2009, "Feature hashing for
    large scale multitask learning"; parts as in Bojanowski et al. 2017.

    Args:
        dimension: of the vectors.

    Raises:
        ValueError: ``dimension`` is no whole number, or below 8.
    """

    def __init__(self, dimension: int = 1024) -> None:
        self.dimension = whole_number("dimension", dimension, least=8)
        self.identity: dict[str, Any] = {"kind": "hashing", "dimension": self.dimension}

    def embed_documents(self, documents: Sequence[Document]) -> Vectors:
        """The title's words count twice."""
        return self._embed(f"{one.title} {one.title} {one.text}" for one in documents)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """All zeros where a text holds no word."""
        return self._embed(texts)

    def _embed(self, texts: Iterable[str]) -> Vectors:
        rows = []
        for text in texts:
            row = np.zeros(self.dimension, dtype=np.float32)
            for word, count in Counter(words_of(text)).items():
                places, weights = _features(word, self.dimension)
                np.add.at(row, places, weights * (1 + math.log(count)))
            rows.append(row / (np.linalg.norm(row) or 1.0))
        return np.array(rows, dtype=np.float32).reshape(-1, self.dimension)


@lru_cache(maxsize=131072)
def _features(word: str, dimension: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    marked = f"<{word}>"
    parts = [marked[i : i + size] for size in (3, 4, 5) for i in range(len(marked) - size + 1)]
    # Half a surrogate pair is a word's letter as any other.
    encoded = [part.encode(errors="surrogatepass") for part in [f"={word}", *parts]]
    hashed = np.array([zlib.crc32(part) for part in encoded], np.int64)
    weights = np.full(len(hashed), _PARTS / max(len(parts), 1) ** 0.5, np.float32)
    weights[0] = _WHOLE
    # The lowest bit is the sign, the others say where.
    return (hashed >> 1) % dimension, np.where(hashed & 1, weights, -weights)


class TransformersEmbedder:
    """Any encoder of Hugging Face, by name or local path.

    Args:
        model: of the documents, and of the queries unless ``query_model`` says otherwise.
        query_model: of the queries, for encoders that come in pairs (MedCPT).
        pooling: ``"mean"`` over the tokens of the last layer, or ``"cls"``, its first token.
        query_prefix, document_prefix: written before each text, as the model was trained.
        max_length: tokens, at most as many as the model takes; longer texts are cut.
        batch_size: texts at a time, of like length.
        device: as torch names it.

    Raises:
        OSError: there is no such model.
        ValueError: ``pooling`` is something else, ``max_length`` is above the model's, ``model`` is
            there and no encoder, or the two models make vectors of different dimensions.
    """

    def __init__(
        self,
        model: str,
        *,
        query_model: str | None = None,
        pooling: Literal["mean", "cls"] = "mean",
        query_prefix: str = "",
        document_prefix: str = "",
        max_length: int = 256,
        batch_size: int = 32,
        device: str = "cpu",
    ) -> None:
        if pooling not in ("mean", "cls"):
            raise ValueError(f"pooling is {pooling!r}; give 'mean' or 'cls'")
        self._pooling, self._max_length = pooling, max_length
        self._batch_size, self._device = batch_size, device
        self._query_prefix, self._document_prefix = query_prefix, document_prefix
        self._tokenizing = threading.Lock()
        self._documents = _load_encoder(model, device)
        self._queries = self._documents
        if query_model is not None and query_model != model:
            self._queries = _load_encoder(query_model, device)
        self.identity: dict[str, Any] = {
            "kind": "transformers",
            "model": model,
            "query_model": query_model or model,
            "pooling": pooling,
            "query_prefix": query_prefix,
            "document_prefix": document_prefix,
            "max_length": max_length,
        }
        self.dimension = int(self._documents[1].config.hidden_size)
        if self._queries[1].config.hidden_size != self.dimension:
            raise ValueError(f"{model} and {query_model} make vectors of different dimensions")
        for tokenizer, encoder in (self._documents, self._queries):
            positions = getattr(encoder.config, "max_position_embeddings", max_length)
            most = min(positions, tokenizer.model_max_length)
            if not 2 < max_length <= most:
                raise ValueError(f"max_length is {max_length}; {model} takes 3 to {most} tokens")

    def embed_documents(self, documents: Sequence[Document]) -> Vectors:
        """Title, full stop, text."""
        texts = [f"{one.title}. {one.text}" if one.title else one.text for one in documents]
        return self._embed(self._documents, [self._document_prefix + text for text in texts])

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """All zeros where a text holds no word."""
        vectors = self._embed(self._queries, [self._query_prefix + text for text in texts])
        vectors[[not words_of(text) for text in texts]] = 0.0
        return vectors

    def _embed(self, encoder: tuple[Any, Any], texts: Sequence[str]) -> Vectors:
        import torch

        tokenizer, model = encoder
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for first in range(0, len(by_length), self._batch_size):
            rows = by_length[first : first + self._batch_size]
            with self._tokenizing:  # it keeps padding and cutting as a state
                batch = tokenizer(
                    [texts[row] for row in rows], padding=True, truncation=True,
                    max_length=self._max_length, return_tensors="pt",
                ).to(self._device)  # fmt: skip
            with torch.inference_mode():
                hidden_BND = model(**batch).last_hidden_state
            if self._pooling == "mean":
                mask_BN1 = batch["attention_mask"][..., None].to(hidden_BND.dtype)
                pooled_BD = (hidden_BND * mask_BN1).sum(1) / mask_BN1.sum(1).clamp(min=1)
            else:
                pooled_BD = hidden_BND[:, 0]
            unit_BD = torch.nn.functional.normalize(pooled_BD.float(), dim=1)
            vectors[rows] = unit_BD.cpu().numpy()
        return vectors


def _load_encoder(name: str, device: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    expected = (
        "give a folder with config.json, weights and the tokenizer's files, or a name that can be "
        "fetched from Hugging Face"
    )
    try:
        tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModel.from_pretrained(name)
    except (ModuleNotFoundError, MemoryError):
        raise
    except Exception as error:  # whatever the parsers of its files raise
        if not os.path.lexists(name):
            message = f"{name} is no encoder here, and could not be fetched; {expected}"
            raise OSError(message) from None
        reason = str(error).strip().partition("\n")[0][:120]
        raise ValueError(f"{name} is no encoder ({reason}); {expected}") from None
    # Where the tokenizer's files are missing, an empty one may be made: all texts are the same.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError(f"{name} is no encoder (its tokenizer knows no word); {expected}")
    return tokenizer, model.to(device).eval()
