"""Sums over the channels of several tiles at once: one exchange between threads, not many."""

from __future__ import annotations

from esi_fast.kernels.dispatch import jit, tl


@jit
def _add2(
    a0: tl.tensor, a1: tl.tensor, b0: tl.tensor, b1: tl.tensor,
) -> tl.tuple:  # fmt: skip
    return a0 + b0, a1 + b1


@jit
def _add4(
    a0: tl.tensor, a1: tl.tensor, a2: tl.tensor, a3: tl.tensor, b0: tl.tensor, b1: tl.tensor,
    b2: tl.tensor, b3: tl.tensor,
) -> tl.tuple:  # fmt: skip
    return a0 + b0, a1 + b1, a2 + b2, a3 + b3


@jit
def _add8(
    a0: tl.tensor, a1: tl.tensor, a2: tl.tensor, a3: tl.tensor, a4: tl.tensor, a5: tl.tensor,
    a6: tl.tensor, a7: tl.tensor, b0: tl.tensor, b1: tl.tensor, b2: tl.tensor, b3: tl.tensor,
    b4: tl.tensor, b5: tl.tensor, b6: tl.tensor, b7: tl.tensor,
) -> tl.tuple:  # fmt: skip
    return a0 + b0, a1 + b1, a2 + b2, a3 + b3, a4 + b4, a5 + b5, a6 + b6, a7 + b7


@jit
def sum_rows(tiles: tl.tuple, N: tl.constexpr) -> tl.tuple:
    """The sums over channels of 1, 2, 4 or 8 tiles, with one exchange between the threads."""
    if N == 1:
        sums = (tl.sum(tiles[0], axis=1),)
    elif N == 2:
        sums = tl.reduce(tiles, 1, _add2)
    elif N == 4:
        sums = tl.reduce(tiles, 1, _add4)
    else:
        sums = tl.reduce(tiles, 1, _add8)
    return sums
