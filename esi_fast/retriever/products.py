"""Products of queries with many vectors, and the best of them in order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Vectors of half precision that are widened at a time: 32 MiB of 512 dimensions.
_ROWS = 1 << 14


def products(queries: NDArray[np.float32], rows: NDArray[Any]) -> NDArray[np.float32]:
    """Products (m, n) of queries (m, dimension) with rows (n, dimension), float32 or float16."""
    if rows.dtype == np.float32:
        whole: NDArray[np.float32] = queries @ rows.T
        return whole
    products = np.empty((len(queries), len(rows)), np.float32)
    for first in range(0, len(rows), _ROWS):
        wide = np.asarray(rows[first : first + _ROWS], np.float32)
        products[:, first : first + len(wide)] = queries @ wide.T
    return products


def best(
    near: NDArray[np.int64], exact: NDArray[np.float64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The best k, in order, of positions and similarities (m, n)."""
    order = np.lexsort((near, -exact))[:, :k]
    if len(near) == 1:
        return near[:, order[0]], exact[:, order[0]]
    rows = np.arange(len(near))[:, None]
    return near[rows, order], exact[rows, order]
