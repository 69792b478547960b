"""What callers and embedders give, looked at before anything is done with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SCORES = ("bm25", "dense", "fused")


def whole_number(name: str, value: object, least: int = 1) -> int:
    """An integer, of Python's or numpy's types.

    Raises:
        ValueError: it is something else (True counts as that), or below ``least``.
    """
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= least:
        return int(value)
    raise ValueError(f"{name} is {value!r}; give a whole number, {least} or more")


def is_number(value: object) -> bool:
    """Whether a value is a real number, of Python's or numpy's types, and not NaN."""
    is_real = isinstance(value, int | float | np.integer | np.floating)
    return is_real and not isinstance(value, bool) and not math.isnan(value)  # type: ignore[arg-type]


def check_filter(wanted: object) -> None:
    """Makes sure that a filter is none at all, or maps keys of metadata.

    Raises:
        ValueError: it is something else.
    """
    if wanted is None:
        return
    if not isinstance(wanted, Mapping) or not all(isinstance(key, str) for key in wanted):
        raise ValueError(
            f"filter is {wanted!r}; give a dict of metadata keys, which are strings, and values"
        )


def lowest_scores(min_score: object, kind: str) -> Mapping[str, float]:
    """The lowest score that each kind of score may have, by its name; a number is of ``kind``.

    Raises:
        ValueError: it is no number, no None and no mapping of kinds of scores to numbers.
    """
    if min_score is None:
        return {}
    lowest: Mapping[str, Any] = min_score if isinstance(min_score, Mapping) else {kind: min_score}
    if not all(name in _SCORES and is_number(value) for name, value in lowest.items()):
        raise ValueError(
            f"min_score is {min_score!r}; give a number, None for no limit, or a dict of "
            f"{', '.join(_SCORES)} to numbers"
        )
    return lowest


def made_vectors(made: Any, count: int, dimension: int, what: str) -> NDArray[np.float32]:
    """A copy of what an embedder made of so many texts, which it may not keep its word about.

    Raises:
        ValueError: it is not (count, dimension), not of real numbers, or not finite in float32.
    """
    try:
        given = np.asarray(made)
    except (TypeError, ValueError, RuntimeError):  # rows of several lengths, a tensor on a GPU
        raise _not_wanted(f"a {type(made).__name__}", count, dimension, what) from None
    if given.shape != (count, dimension) or given.dtype.kind not in "fiu":
        raise _not_wanted(f"{given.dtype} {given.shape}", count, dimension, what)
    with np.errstate(over="ignore"):
        vectors = given.astype(np.float32)
    if not np.isfinite(vectors).all():
        row = int(np.argmin(np.isfinite(vectors).all(axis=1)))
        raise _not_wanted(f"a vector (row {row}) that is not finite", count, dimension, what)
    return vectors


def _not_wanted(made: str, count: int, dimension: int, what: str) -> ValueError:
    return ValueError(
        f"the embedder made {made} of {count} {what}; it must make finite float32 "
        f"({count}, {dimension})"
    )
