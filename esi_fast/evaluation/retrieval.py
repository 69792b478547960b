"""Retrieval between ECGs and texts: is the right one among the k nearest?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_CHUNK = 1024  # queries compared at once with the whole gallery


def recall_at(
    query_ND: npt.NDArray[np.float32],
    gallery_MD: npt.NDArray[np.float32],
    query_key_N: npt.NDArray[np.int64],
    gallery_key_M: npt.NDArray[np.int64],
    ks: Sequence[int] = (1, 5, 10),
) -> dict[int, float]:
    """Share of queries with a match among their k nearest, for each k.

    Args:
        query_ND, gallery_MD: unit-length embeddings.
        query_key_N, gallery_key_M: a query matches what has its key. Keys that all differ ask for
            the exact pair, ``concept_key`` for any text that says the same.
        ks: of the nearest that count; more than the gallery holds is all of it.

    Raises:
        ValueError: there is no query or no gallery, or the keys do not fit.
    """
    if not len(query_ND) or not len(gallery_MD):
        raise ValueError(
            f"{len(query_ND)} queries and a gallery of {len(gallery_MD)}: none to rank"
        )
    if len(query_ND) != len(query_key_N) or len(gallery_MD) != len(gallery_key_M):
        raise ValueError(
            f"{len(query_ND)} and {len(gallery_MD)} embeddings have {len(query_key_N)} and "
            f"{len(gallery_key_M)} keys"
        )
    most = min(max(ks), len(gallery_MD))
    hits = dict.fromkeys(ks, 0)
    for start in range(0, len(query_ND), _CHUNK):
        cosine = query_ND[start : start + _CHUNK] @ gallery_MD.T
        nearest = np.argpartition(-cosine, most - 1, axis=1)[:, :most]
        order = np.argsort(-np.take_along_axis(cosine, nearest, axis=1), axis=1, kind="stable")
        found = gallery_key_M[np.take_along_axis(nearest, order, axis=1)]
        matches = found == query_key_N[start : start + _CHUNK, None]
        for k in ks:
            hits[k] += int(matches[:, :k].any(axis=1).sum())
    return {k: count / len(query_ND) for k, count in hits.items()}
