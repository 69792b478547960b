"""The second stage of every sum over batch and time: partial rows, added in a fixed order."""

from __future__ import annotations

import torch
from torch import Tensor

from esi_fast.kernels import dispatch
from esi_fast.kernels.dispatch import ceil_div, jit, tl

BLOCK_ROWS = 256
BLOCK_COLUMNS = 16


@jit
def sum_partials_kernel(
    partial_ptr: tl.tensor, first_ptr: tl.tensor, second_ptr: tl.tensor,
    num_rows: tl.tensor, C: tl.tensor, num_first: tl.tensor,
    ACC: tl.constexpr, BR: tl.constexpr, BN: tl.constexpr,
) -> None:  # fmt: skip
    """(rows, num_first + 1, C) -> first (C, num_first) and second (C,)."""
    column = tl.program_id(0) * BN + tl.arange(0, BN)  # k * C + c
    num_columns = (num_first + 1) * C
    total = tl.zeros((BN,), ACC)
    for start in range(0, num_rows, BR):
        row = start + tl.arange(0, BR)
        total += tl.sum(
            tl.load(
                partial_ptr + row[:, None].to(tl.int64) * num_columns + column[None, :],
                mask=(row < num_rows)[:, None] & (column < num_columns)[None, :],
                other=0.0,
            ),
            axis=0,
        )
    k = column // C
    c = column % C
    tl.store(
        first_ptr + c * num_first + k, total.to(first_ptr.dtype.element_ty), mask=k < num_first
    )
    tl.store(second_ptr + c, total.to(second_ptr.dtype.element_ty), mask=k == num_first)


def sum_partials(
    partial: Tensor, first_dtype: torch.dtype, second_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Sums (rows, N + 1, C) over the rows -> (C, N) and (C,) of these dtypes: taps, bias."""
    num_rows, num_sums, num_channels = partial.shape
    first = partial.new_empty((num_channels, num_sums - 1), dtype=first_dtype)
    second = partial.new_empty(num_channels, dtype=second_dtype)
    with dispatch.on_device(partial):
        sum_partials_kernel[(ceil_div(num_sums * num_channels, BLOCK_COLUMNS),)](
            partial, first, second, num_rows, num_channels, num_sums - 1,
            ACC=dispatch.accumulator(partial.dtype), BR=BLOCK_ROWS, BN=BLOCK_COLUMNS,
            **dispatch.options(num_warps=4),
        )  # fmt: skip
    return first, second
