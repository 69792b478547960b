"""Ranks by cosine: how far down a gallery a query finds what it looks for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from esi_fast.evaluation.results import FloatArray

Keys = npt.NDArray[np.int64]

_MAX_COSINES = 1 << 24  # held at once: 128 MB
_GALLERY_BLOCK = 8192  # rows turned into float64 at once
# Sums of the same numbers in another order differ by less, and distinct float32 ones by more.
_TIE = 1e-12


def match_ranks(
    query_ND: npt.NDArray[np.float32],
    gallery_MD: npt.NDArray[np.float32],
    *keys: tuple[Keys, Keys],
    title: str = "rank",
) -> tuple[FloatArray, ...]:
    """The rank of the nearest match of each query, from 1, for each way to match.

    Cosines are float64. Ties are counted pessimistically: what does not match and is as near as
    the nearest match comes before it, so that embeddings that are all alike rank last, not first.
    So do embeddings that are not finite.

    Args:
        query_ND, gallery_MD: unit-length embeddings.
        keys: of queries (N,) and of the gallery (M,): a query matches what has its key. All ways to
            match share the cosines.
        title: of the progress bar.

    Returns:
        For each of ``keys`` the ranks (N,); NaN where nothing in the gallery matches.

    Raises:
        ValueError: there is no query or no gallery, or the keys do not fit.
    """
    from tqdm import tqdm

    if not len(query_ND) or not len(gallery_MD):
        raise ValueError(
            f"{len(query_ND)} queries and a gallery of {len(gallery_MD)}: none to rank"
        )
    for query_key_N, gallery_key_M in keys:
        if len(query_ND) != len(query_key_N) or len(gallery_MD) != len(gallery_key_M):
            raise ValueError(
                f"{len(query_ND)} and {len(gallery_MD)} embeddings have {len(query_key_N)} and "
                f"{len(gallery_key_M)} keys"
            )
    matches = [_matches(*pair) for pair in keys]
    ranks = tuple(np.empty(len(query_ND)) for _ in keys)
    step = max(1, _MAX_COSINES // len(gallery_MD))
    starts = range(0, len(query_ND), step)
    for start in tqdm(starts, desc=title, unit="block", disable=None, leave=False, delay=1):
        part = slice(start, start + step)
        cosine = _cosines(query_ND[part], gallery_MD)
        for found, (order, first, end) in zip(ranks, matches, strict=True):
            spans = zip(cosine, first[part], end[part], strict=True)
            found[part] = [_rank(row, order[i:j]) for row, i, j in spans]
    return ranks


def _matches(query_key_N: Keys, gallery_key_M: Keys) -> tuple[Keys, Keys, Keys]:
    """The gallery in the order of its keys, and (N,) where in it each query's matches are.

    A mask of queries by gallery would cost more time than the cosines.
    """
    order = np.argsort(gallery_key_M, kind="stable")
    in_order = gallery_key_M[order]
    first, end = (np.searchsorted(in_order, query_key_N, side) for side in ("left", "right"))
    return order, first, end


def _cosines(query_ND: npt.NDArray[np.float32], gallery_MD: npt.NDArray[np.float32]) -> FloatArray:
    query = query_ND.astype(np.float64)
    cosine = np.empty((len(query_ND), len(gallery_MD)))
    for start in range(0, len(gallery_MD), _GALLERY_BLOCK):
        block = slice(start, start + _GALLERY_BLOCK)
        np.matmul(query, gallery_MD[block].astype(np.float64).T, out=cosine[:, block])
    return cosine


def _rank(cosine_M: FloatArray, matches: Keys) -> float:
    """The rank of the nearest of a query's matches, which are places in the gallery."""
    if not len(matches):
        return np.nan
    own = cosine_M[matches]
    as_near = own.max() - _TIE
    # What is not farther comes before, so that a NaN does as well.
    others = len(cosine_M) - len(own)
    return 1.0 + others - np.count_nonzero(cosine_M < as_near) + np.count_nonzero(own < as_near)


def hits(ranks: FloatArray, ks: Sequence[int], name: str) -> dict[str, FloatArray]:
    """``{name}{k}`` to 1 where a rank (n,) is k or better, 0 elsewhere, NaN where there is none."""
    return {
        f"{name}{k}": np.where(np.isnan(ranks), np.nan, (ranks <= k).astype(np.float64)) for k in ks
    }


def chance(
    num_matches: npt.NDArray[np.int64], gallery_size: int, ks: Sequence[int], name: str
) -> dict[str, float]:
    """``chance {name}{k}`` to the share of hits that a gallery in random order gives, to 1e-4.

    Where many records say the same, chance alone finds one of them.

    Args:
        num_matches: (N,) of each query, in the gallery.
        gallery_size: M.
        ks: of the first that count.
        name: what goes before each k.
    """
    found = {}
    for k in ks:
        first = np.arange(min(k, gallery_size))
        misses = (gallery_size - num_matches[:, None] - first) / (gallery_size - first)
        found[f"chance {name}{k}"] = round(float(1 - np.maximum(misses, 0).prod(axis=1).mean()), 4)
    return found
