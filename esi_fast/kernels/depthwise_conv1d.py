"""Depthwise 1D convolution: kernels, launchers, registration, public function.

A program makes a tile of time x channels, and each of its threads `ROWS` consecutive samples of a
few channels: a sample that is loaded serves all the outputs of the thread that it touches, so that
the caches see (ROWS + K - 1) / ROWS loads an output instead of K. The backward pairs one window
over `dy` with the same rows of `x`, which gives dx and the weight gradient together; each program
walks over several tiles, keeps its share of the latter in registers and leaves one row of partial
sums, which one sum in a fixed order closes. No atomics: results repeat bit for bit.

Strides are passed, so that slices, transposed views and expanded gradients cost no copy. The
number of channels is a constant of the compiled kernel, and so is the stride between samples where
it is that number: masks vanish where the channels fill their blocks, and addresses are immediate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from esi_fast.kernels import dispatch, reference, tuning
from esi_fast.kernels.convolve import convolve, load_bias, load_taps, tap
from esi_fast.kernels.dispatch import ceil_div, jit, tl
from esi_fast.kernels.lengths import record_length
from esi_fast.kernels.partial_sums import sum_partials
from esi_fast.kernels.reference import Layout
from esi_fast.kernels.tiles import MAX_HELD_TAPS, Tile

MAX_TAPS = 31  # the taps are unrolled; above, the code grows without bound


@jit
def forward_kernel(
    x_ptr: tl.tensor, w_ptr: tl.tensor, b_ptr: tl.tensor, lengths_ptr: tl.tensor,
    y_ptr: tl.tensor,
    T: tl.tensor, T_out: tl.tensor,
    x_stride_b: tl.tensor, x_stride_t: tl.tensor, x_stride_c: tl.tensor,
    w_stride_c: tl.tensor, w_stride_k: tl.tensor,
    y_stride_b: tl.tensor, y_stride_t: tl.tensor, y_stride_c: tl.tensor,
    C: tl.constexpr, DENSE: tl.constexpr, K: tl.constexpr, PADDING: tl.constexpr,
    HELD: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr, ACC: tl.constexpr,
    G: tl.constexpr, ROWS: tl.constexpr, BC: tl.constexpr,
) -> None:  # fmt: skip
    """y[t] = bias + sum over k of w[k] * x[t + k - padding], zero past the length."""
    num_c = tl.cdiv(C, BC)
    num_t = tl.cdiv(T_out, G * ROWS)
    pid = tl.program_id(0)
    b = (pid // (num_c * num_t)).to(tl.int64)
    t = (pid // num_c) % num_t * (G * ROWS) + tl.arange(0, G) * ROWS
    c = pid % num_c * BC + tl.arange(0, BC)
    in_c = c < C
    n = T
    n_out = T_out
    if HAS_LENGTHS:
        n = record_length(lengths_ptr, b, T)
        n_out = tl.minimum(n + (2 * PADDING - (K - 1)), T_out)
    c_row = c[None, :].to(tl.int64)
    w_ptr += c * w_stride_c
    taps = load_taps(w_ptr, in_c, w_stride_k, K, HELD, ACC)
    bias = load_bias(b_ptr, c, in_c, HAS_BIAS, ACC, G, BC)
    out = convolve(
        x_ptr + b * x_stride_b + c_row * x_stride_c, t, n, in_c, C if DENSE else x_stride_t, taps,
        w_ptr, w_stride_k, bias, K, PADDING, HELD, ROWS, ACC, G, BC,
    )  # fmt: skip
    y_ptr += b * y_stride_b + c_row * y_stride_c
    for r in tl.static_range(ROWS):
        y = out[r]
        if HAS_LENGTHS:
            y = tl.where((t + r < n_out)[:, None], y, 0.0)
        tl.store(
            y_ptr + (t + r)[:, None].to(tl.int64) * (C if DENSE else y_stride_t),
            y.to(y_ptr.dtype.element_ty),
            mask=(t + r < T_out)[:, None] & in_c[None, :],
        )


@jit
def backward_kernel(
    dy_ptr: tl.tensor, x_ptr: tl.tensor, w_ptr: tl.tensor, lengths_ptr: tl.tensor,
    dx_ptr: tl.tensor, partial_ptr: tl.tensor,
    T: tl.tensor, T_out: tl.tensor, num_tiles: tl.tensor, num_partials: tl.tensor,
    dy_stride_b: tl.tensor, dy_stride_t: tl.tensor, dy_stride_c: tl.tensor,
    x_stride_b: tl.tensor, x_stride_t: tl.tensor, x_stride_c: tl.tensor,
    w_stride_c: tl.tensor, w_stride_k: tl.tensor,
    dx_stride_b: tl.tensor, dx_stride_t: tl.tensor, dx_stride_c: tl.tensor,
    C: tl.constexpr, DENSE: tl.constexpr, K: tl.constexpr, PADDING: tl.constexpr,
    HELD: tl.constexpr, NEED_DX: tl.constexpr, NEED_DW: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    ACC: tl.constexpr, G: tl.constexpr, ROWS: tl.constexpr, BC: tl.constexpr,
) -> None:  # fmt: skip
    """dx[s] = sum over k of w[k] * dy[s + padding - k], and a row of sums for weight and bias."""
    num_c = tl.cdiv(C, BC)
    num_t = tl.cdiv(tl.maximum(T, T_out), G * ROWS)
    c = tl.program_id(0) % num_c * BC + tl.arange(0, BC)
    row = tl.program_id(0) // num_c
    in_c = c < C
    c_row = c[None, :].to(tl.int64)
    w_ptr += c * w_stride_c
    taps = load_taps(w_ptr, in_c, w_stride_k, K, HELD and NEED_DX, ACC)
    sums = (tl.zeros((G, BC), ACC),) * (K + 1)  # the taps, then the bias
    for tile in range(row, num_tiles, num_partials):
        b = (tile // num_t).to(tl.int64)
        t = tile % num_t * (G * ROWS) + tl.arange(0, G) * ROWS
        n = T
        n_out = T_out
        if HAS_LENGTHS:
            n = record_length(lengths_ptr, b, T)
            n_out = tl.minimum(n + (2 * PADDING - (K - 1)), T_out)
        x = ()
        if NEED_DW:
            x_tile = x_ptr + b * x_stride_b + c_row * x_stride_c
            for r in tl.static_range(ROWS):
                value = tl.load(
                    x_tile + (t + r)[:, None].to(tl.int64) * (C if DENSE else x_stride_t),
                    mask=(t + r < n)[:, None] & in_c[None, :],
                    other=0.0,
                )
                x = x + (value.to(ACC),)
        dy_tile = dy_ptr + b * dy_stride_b + c_row * dy_stride_c
        dx = (tl.zeros((G, BC), ACC),) * ROWS
        for j in tl.static_range(ROWS + K - 1):
            s = t + (j - (K - 1) + PADDING)  # meets row r of x through tap r - j + K - 1
            dy = tl.load(
                dy_tile + s[:, None].to(tl.int64) * (C if DENSE else dy_stride_t),
                mask=((s >= 0) & (s < n_out))[:, None] & in_c[None, :],
                other=0.0,
            ).to(ACC)
            if NEED_DX:
                new = ()
                for r in tl.static_range(ROWS):
                    if r + K - 1 >= j and r - j < 1:
                        w = tap(taps, w_ptr, in_c, w_stride_k, r - j + K - 1, HELD, ACC, G, BC)
                        new = new + (tl.fma(dy, w, dx[r]),)
                    else:
                        new = new + (dx[r],)
                dx = new
            if NEED_DW:
                new_sums = ()
                for k in tl.static_range(K):
                    if j + k >= K - 1 and j + k - (K - 1) < ROWS:
                        new_sums = new_sums + (tl.fma(x[j + k - (K - 1)], dy, sums[k]),)
                    else:
                        new_sums = new_sums + (sums[k],)
                if j + PADDING >= K - 1 and j + PADDING - (K - 1) < ROWS:
                    new_sums = new_sums + (sums[K] + dy,)
                else:
                    new_sums = new_sums + (sums[K],)
                sums = new_sums
        if NEED_DW and PADDING > K - 1:  # the first rows of dy were not among those above
            for r in tl.static_range(ROWS):
                if r < PADDING - (K - 1):
                    dy = tl.load(
                        dy_tile + (t + r)[:, None].to(tl.int64) * (C if DENSE else dy_stride_t),
                        mask=(t + r < n_out)[:, None] & in_c[None, :],
                        other=0.0,
                    ).to(ACC)
                    sums = sums[:K] + (sums[K] + dy,)
        if NEED_DX:
            dx_tile = dx_ptr + b * dx_stride_b + c_row * dx_stride_c
            for r in tl.static_range(ROWS):
                tl.store(
                    dx_tile + (t + r)[:, None].to(tl.int64) * (C if DENSE else dx_stride_t),
                    tl.where((t + r < n)[:, None], dx[r], 0.0).to(dx_ptr.dtype.element_ty),
                    mask=(t + r < T)[:, None] & in_c[None, :],
                )
    if NEED_DW:
        partial_ptr += row.to(tl.int64) * (K + 1) * C + c
        for k in tl.static_range(K + 1):
            tl.store(partial_ptr + k * C, tl.sum(sums[k], axis=0), mask=in_c)


def _contiguous(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def launch_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: int,
    lengths: Tensor | None,
    tile: Tile | None = None,
) -> Tensor:
    """Runs the forward kernel on `(B, T, C)`, any strides; `tile` overrides the shipped one."""
    num_batch, num_time, num_channels = x.shape
    num_taps = weight.shape[2]
    num_out = reference.output_length(num_time, num_taps, padding)
    y = reference.empty_like_layout(x, num_out)
    if y.numel() == 0:
        return y
    tile = tile or tuning.choose(
        "depthwise_conv1d", x, reference.is_channels_first(x), num_taps,
        lambda tile: launch_forward(x, weight, bias, padding, lengths, tile),
    )  # fmt: skip
    num_programs = (
        ceil_div(num_channels, tile.block_c) * ceil_div(num_out, tile.block_t) * num_batch
    )
    with dispatch.on_device(x):
        forward_kernel[(num_programs,)](
            x, weight, _contiguous(bias), _contiguous(lengths), y, num_time, num_out,
            *x.stride(), weight.stride(0), weight.stride(2), *y.stride(),
            C=num_channels, DENSE=dispatch.are_dense(x, y), K=num_taps, PADDING=padding,
            HELD=num_taps <= MAX_HELD_TAPS, HAS_BIAS=bias is not None,
            HAS_LENGTHS=lengths is not None, ACC=dispatch.accumulator(x.dtype),
            G=tile.groups, ROWS=tile.rows, BC=tile.block_c, **dispatch.options(tile.num_warps),
        )  # fmt: skip
    return y


def launch_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_dtype: torch.dtype,
    padding: int,
    lengths: Tensor | None,
    need: Sequence[bool],
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Runs the backward kernel and sums its partials; a gradient not needed comes back empty."""
    num_batch, num_time, num_channels = x.shape
    num_taps = weight.shape[2]
    need_dw = need[1] or need[2]
    dx = reference.empty_like_layout(x, num_time) if need[0] else x.new_empty(0)
    dweight, dbias = weight.new_empty(0), weight.new_empty(0, dtype=bias_dtype)
    tile = tile or tuning.choose(
        "depthwise_conv1d_backward", x, reference.is_channels_first(x), num_taps,
        lambda tile: launch_backward(dy, x, weight, bias_dtype, padding, lengths, need, tile),
    )  # fmt: skip
    num_tiles = num_batch * ceil_div(max(num_time, dy.shape[1]), tile.block_t)
    num_blocks_c = ceil_div(num_channels, tile.block_c)
    num_partials = min(num_tiles, max(1, tile.programs // num_blocks_c))
    acc = reference.compute_dtype(x)
    partial = x.new_empty((num_partials, num_taps + 1, num_channels) if need_dw else 0, dtype=acc)
    if num_tiles and (need[0] or need_dw):
        with dispatch.on_device(x):
            backward_kernel[(num_blocks_c * num_partials,)](
                dy, x, weight, _contiguous(lengths), dx, partial,
                num_time, dy.shape[1], num_tiles, num_partials,
                *dy.stride(), *x.stride(), weight.stride(0), weight.stride(2),
                *(dx.stride() if need[0] else (0, 0, 0)),
                C=num_channels, DENSE=dispatch.are_dense(dy, x), K=num_taps, PADDING=padding,
                HELD=num_taps <= MAX_HELD_TAPS, NEED_DX=need[0], NEED_DW=need_dw,
                HAS_LENGTHS=lengths is not None, ACC=dispatch.accumulator(x.dtype), G=tile.groups,
                ROWS=tile.rows, BC=tile.block_c, **dispatch.options(tile.num_warps),
            )  # fmt: skip
    if need_dw:
        sums = sum_partials(partial, weight.dtype, bias_dtype)
        dweight = sums[0].unsqueeze(1) if need[1] else dweight
        dbias = sums[1] if need[2] else dbias
    return dx, dweight, dbias


def limits(x: Tensor, weight: Tensor, *_: Any) -> str:
    """Why Triton cannot serve these arguments; empty where it can."""
    num_taps = weight.shape[2]
    return f"{num_taps} taps, more than {MAX_TAPS}" if num_taps > MAX_TAPS else ""


def _forward_fake(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, *_: Any) -> Tensor:
    return reference.empty_like_layout(x, x.shape[1] + 2 * padding - (weight.shape[2] - 1))


def _backward_fake(
    dy: Tensor, x: Tensor, weight: Tensor, bias_dtype: torch.dtype, padding: int,
    lengths: Tensor | None, need: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return (
        reference.empty_like_layout(x, x.shape[1]) if need[0] else x.new_empty(0),
        weight.new_empty(weight.shape if need[1] else 0),
        weight.new_empty(weight.shape[0] if need[2] else 0, dtype=bias_dtype),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, padding, lengths = inputs
    ctx.save_for_backward(x, weight, lengths)
    ctx.padding = padding
    ctx.bias_dtype = weight.dtype if bias is None else bias.dtype


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, lengths = ctx.saved_tensors
    need = list(ctx.needs_input_grad[:3])
    gradients = torch.ops.esi_fast.depthwise_conv1d_backward(
        dy, x, weight, ctx.bias_dtype, ctx.padding, lengths, need
    )
    kept = [g if needed else None for g, needed in zip(gradients, need, strict=True)]
    return (*kept, None, None)


dispatch.register(
    "depthwise_conv1d",
    "(Tensor x, Tensor weight, Tensor? bias, int padding, Tensor? lengths) -> Tensor",
    reference=reference.depthwise_conv1d_forward,
    launch=launch_forward,
    fake=_forward_fake,
    check=reference.check_depthwise_conv1d,
    limits=limits,
)
dispatch.register(
    "depthwise_conv1d_backward",
    "(Tensor dy, Tensor x, Tensor weight, ScalarType bias_dtype, int padding, Tensor? lengths,"
    " bool[] need) -> (Tensor, Tensor, Tensor)",
    reference=reference.depthwise_conv1d_backward,
    launch=launch_backward,
    fake=_backward_fake,
    limits=lambda dy, *arguments: limits(*arguments),
)
dispatch.register_gradient("depthwise_conv1d", _backward, _setup_context)


def depthwise_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    padding: int,
    lengths: Tensor | None = None,
    layout: Layout = "BTC",
) -> Tensor:
    """Depthwise 1D convolution, stride 1, zero padding on both sides.

    Equivalent to:
        ```python
        x = x.transpose(1, 2)  # layout="BTC" only
        y = F.conv1d(x, weight, bias, padding=padding, groups=C)
        y = y.transpose(1, 2)  # layout="BTC" only
        ```
    but with float32 accumulation for every dtype below float64, and the parameters in any floating
    dtype.

    Args:
        x: `(B, T, C)`, or `(B, C, T)` with `layout="BCT"`; float16, bfloat16, float32 or float64,
            any strides. Under autocast it is first cast to the autocast dtype, as `F.conv1d` does;
            the parameters are not.
        weight: `(C, 1, K)` as `nn.Conv1d` stores it; Triton serves K <= 31, the reference the rest.
        bias: `(C,)` or None.
        padding: zeros on each side; `K // 2` keeps the length.
        lengths: `(B,)` int32 or int64: positions `t >= lengths[b]` count as absent. The record
            gives what it would give alone, `lengths[b] + 2 * padding - (K - 1)` samples, then
            zeros; its gradient is zero past its end. More than T counts as T, less than 0 as 0.
        layout: "BTC" or "BCT", of input and output.

    Returns:
        `(B, T + 2 * padding - (K - 1), C)` in the layout and dtype of (the cast) `x`.

    Raises:
        TypeError: an argument of another type.
        ValueError: shapes, dtypes or devices that do not fit, an unknown layout, or no output
            sample at all.

    Determinism: bit for bit, forward and backward. Saved for backward: `x` and `weight`, no copy of
    either. Double backward, forward mode and gradients of `torch.func` raise: `reference` can do
    them.
    """
    x_BTC = reference.autocast_input(reference.as_btc(x, layout))
    y_BTC: Tensor = dispatch.call("depthwise_conv1d", x_BTC, weight, bias, padding, lengths)
    return y_BTC if layout == "BTC" else y_BTC.transpose(1, 2)
