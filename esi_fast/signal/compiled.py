"""How this package compiles its loops: once, to a cache beside the source, without the GIL."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

_COMPILED = (
    "amplitudes", "arrays", "atrial", "beats", "bumps", "compiled", "delineate", "marking",
    "median_beat", "pacing", "wave_settings", "waves",
)  # fmt: skip
# Sums may be reordered, so that they run in SIMD lanes. NaN keeps its meaning.
_FASTMATH = {"reassoc", "contract", "nsz", "arcp"}


def compiled(function: Function) -> Function:
    """Compile a function with numba; the first process of an installation pays for it."""
    loops: Function = njit(cache=True, nogil=True, fastmath=_FASTMATH)(function)
    return loops


def compiled_without_nan(function: Function) -> Function:
    """As `compiled`, for a function that meets no NaN: its minima and maxima run in SIMD lanes."""
    loops: Function = njit(cache=True, nogil=True, fastmath=_FASTMATH | {"nnan"})(function)
    return loops


def _forget_stale_code() -> None:
    """Remove compiled code that is older than a source.

    numba compares a function with its own file only: a caller in another file keeps its old code.
    """
    folder = Path(__file__).parent
    newest = max((folder / f"{name}.py").stat().st_mtime_ns for name in _COMPILED)
    for path in (folder / "__pycache__").glob("*.nb[ci]"):
        # Another process may be first; where nothing can be removed, numba keeps code elsewhere.
        with contextlib.suppress(OSError):
            if path.stat().st_mtime_ns < newest:
                path.unlink()


_forget_stale_code()
