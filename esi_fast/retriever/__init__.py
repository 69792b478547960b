"""Documents or vectors in, nearest neighbours out; nothing here knows what they are about.

`bm25` finds documents by their words and `vectors` by the direction of their embeddings, exactly
or through hnswlib (`graph`); `retrieve` joins the two and `storage` keeps them on disk.
"""

from esi_fast.retriever.documents import Document, Hit
from esi_fast.retriever.embedders import Embedder, HashingEmbedder, TransformersEmbedder
from esi_fast.retriever.retrieve import BACKENDS, Retriever
from esi_fast.retriever.vectors import VectorIndex

__all__ = [
    "BACKENDS",
    "Document",
    "Embedder",
    "HashingEmbedder",
    "Hit",
    "Retriever",
    "TransformersEmbedder",
    "VectorIndex",
]
