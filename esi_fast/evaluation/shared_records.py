"""Several models on the same records: what one of them could not embed counts for none."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import numpy as np
import numpy.typing as npt

from esi_fast.evaluation.embed import Embeddings, unit_rows


def shared_rows(
    embeddings: Mapping[str, Embeddings],
) -> tuple[npt.NDArray[np.int64], dict[str, str]]:
    """Ascending rows of the split that every contender has, and why others are left out.

    Raises:
        ValueError: there is no contender, or no record that all of them have.
    """
    if not embeddings:
        raise ValueError("there is no model to evaluate")
    rows = reduce(np.intersect1d, (one.rows for one in embeddings.values()))
    if not len(rows):
        raise ValueError(f"no record could be read for all of {', '.join(embeddings)}")
    errors = {key: reason for one in embeddings.values() for key, reason in one.errors.items()}
    return rows, errors


def unit_embeddings(embeddings: Embeddings, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Unit embeddings (len(rows), D) of rows of the split, which must be among the readable ones.

    Raises:
        ValueError: an embedding is zero or not finite, so that it has no direction.
    """
    return unit_rows(embeddings.values[np.searchsorted(embeddings.rows, rows)])
