"""How a kernel reads the length of a record."""

from __future__ import annotations

from esi_fast.kernels.dispatch import jit, tl


@jit
def record_length(lengths_ptr: tl.tensor, b: tl.tensor, T: tl.tensor) -> tl.tensor:
    """Samples of record b that count, an int32 in [0, T], whatever its length says."""
    return tl.maximum(tl.minimum(tl.load(lengths_ptr + b), T), 0).to(tl.int32)
