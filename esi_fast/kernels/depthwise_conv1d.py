"""Depthwise 1D convolution: kernels, launchers, registration, public function.

Forward and backward read every operand once from memory (shifted reads hit the caches): one program
makes a tile of time x channels from K shifted loads. The backward pairs one window over `dy` with
one row of `x`, which gives dx and the weight gradient together; each program keeps its share of the
latter in a row of partial sums, and one sum in a fixed order closes it. No atomics: results repeat
bit for bit.

Strides are passed, so that slices, transposed views and expanded gradients cost no copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from esi_fast.kernels import dispatch, reference
from esi_fast.kernels.dispatch import ceil_div, jit, next_power_of_2, tl
from esi_fast.kernels.reference import Layout

MAX_TAPS = 31  # the taps are unrolled; above, the code grows without bound


class Tile(NamedTuple):
    """A launch configuration: rows of time, channels, warps."""

    block_t: int
    block_c: int
    num_warps: int


# Rows of partial sums of the weight gradient: enough programs to fill a large device, few enough
# that the second stage stays small. A constant, so that no device changes the order of the sum.
MAX_PARTIALS = 512


def forward_tile(num_channels: int, channels_first: bool) -> Tile:
    """The shipped configuration of the forward kernel."""
    if channels_first:
        return Tile(128, min(8, next_power_of_2(num_channels)), 4)
    return Tile(32, min(64, max(16, next_power_of_2(num_channels))), 4)


def backward_tile(num_channels: int, num_taps: int, channels_first: bool) -> Tile:
    """The shipped configuration of the backward kernel; many taps need many registers."""
    if channels_first:
        block_t = 128 if num_taps <= 7 else 64
        return Tile(block_t, min(8, next_power_of_2(num_channels)), 4)
    block_c = 64 if num_taps <= 7 else 32
    return Tile(16, min(block_c, max(16, next_power_of_2(num_channels))), 4)


@jit
def forward_kernel(
    x_ptr: tl.tensor, w_ptr: tl.tensor, b_ptr: tl.tensor, lengths_ptr: tl.tensor,
    y_ptr: tl.tensor,
    T: tl.tensor, T_out: tl.tensor, C: tl.tensor,
    x_stride_b: tl.tensor, x_stride_t: tl.tensor, x_stride_c: tl.tensor,
    w_stride_c: tl.tensor, w_stride_k: tl.tensor,
    y_stride_b: tl.tensor, y_stride_t: tl.tensor, y_stride_c: tl.tensor,
    K: tl.constexpr, PADDING: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    ACC: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr,
) -> None:  # fmt: skip
    """y[t] = bias + sum over k of w[k] * x[t + k - padding], zero past the length."""
    num_c = tl.cdiv(C, BC)
    num_t = tl.cdiv(T_out, BT)
    pid = tl.program_id(0)
    b = (pid // (num_c * num_t)).to(tl.int64)
    t = (pid // num_c) % num_t * BT + tl.arange(0, BT)
    c = pid % num_c * BC + tl.arange(0, BC)
    in_c = c < C
    n = T
    n_out = T_out
    if HAS_LENGTHS:
        n = tl.minimum(tl.load(lengths_ptr + b).to(tl.int32), T)
        n_out = tl.minimum(n + (2 * PADDING - (K - 1)), T_out)
    c_row = c[None, :].to(tl.int64)
    x_ptr += b * x_stride_b + c_row * x_stride_c
    acc = tl.zeros((BT, BC), ACC)
    for k in tl.static_range(K):
        s = t + (k - PADDING)
        x = tl.load(
            x_ptr + s[:, None].to(tl.int64) * x_stride_t,
            mask=((s >= 0) & (s < n))[:, None] & in_c[None, :],
            other=0.0,
        ).to(ACC)
        w = tl.load(w_ptr + c * w_stride_c + k * w_stride_k, mask=in_c, other=0.0).to(ACC)
        acc = tl.fma(x, tl.broadcast_to(w[None, :], (BT, BC)), acc)
    if HAS_BIAS:
        acc += tl.load(b_ptr + c, mask=in_c, other=0.0).to(ACC)[None, :]
    if HAS_LENGTHS:
        acc = tl.where((t < n_out)[:, None], acc, 0.0)
    tl.store(
        y_ptr + b * y_stride_b + t[:, None].to(tl.int64) * y_stride_t + c_row * y_stride_c,
        acc.to(y_ptr.dtype.element_ty),
        mask=(t < T_out)[:, None] & in_c[None, :],
    )


@jit
def backward_kernel(
    dy_ptr: tl.tensor, x_ptr: tl.tensor, w_ptr: tl.tensor, lengths_ptr: tl.tensor,
    dx_ptr: tl.tensor, partial_ptr: tl.tensor,
    T: tl.tensor, T_out: tl.tensor, C: tl.tensor, num_tiles: tl.tensor, num_partials: tl.tensor,
    dy_stride_b: tl.tensor, dy_stride_t: tl.tensor, dy_stride_c: tl.tensor,
    x_stride_b: tl.tensor, x_stride_t: tl.tensor, x_stride_c: tl.tensor,
    w_stride_c: tl.tensor, w_stride_k: tl.tensor,
    dx_stride_b: tl.tensor, dx_stride_t: tl.tensor, dx_stride_c: tl.tensor,
    K: tl.constexpr, K_ROWS: tl.constexpr, PADDING: tl.constexpr, NEED_DX: tl.constexpr,
    NEED_DW: tl.constexpr, HAS_LENGTHS: tl.constexpr, ACC: tl.constexpr, BT: tl.constexpr,
    BC: tl.constexpr,
) -> None:  # fmt: skip
    """dx[s] = sum over k of w[k] * dy[s + padding - k], and a row of sums for weight and bias."""
    num_c = tl.cdiv(C, BC)
    num_t = tl.cdiv(tl.maximum(T, T_out), BT)
    c = tl.program_id(0) % num_c * BC + tl.arange(0, BC)
    row = tl.program_id(0) // num_c
    in_c = c < C
    c_row = c[None, :].to(tl.int64)
    taps = tl.arange(0, K_ROWS)[:, None]
    sums = tl.zeros((K_ROWS, BC), ACC)  # rows 0..K-1 the taps, row K the bias
    for tile in range(row, num_tiles, num_partials):
        b = (tile // num_t).to(tl.int64)
        t = tile % num_t * BT + tl.arange(0, BT)
        t_row = t[:, None].to(tl.int64)
        n = T
        n_out = T_out
        if HAS_LENGTHS:
            n = tl.minimum(tl.load(lengths_ptr + b).to(tl.int32), T)
            n_out = tl.minimum(n + (2 * PADDING - (K - 1)), T_out)
        valid = (t < n)[:, None] & in_c[None, :]
        dy_tile = dy_ptr + b * dy_stride_b + c_row * dy_stride_c
        dx = tl.zeros((BT, BC), ACC)
        if NEED_DW:
            x = tl.load(
                x_ptr + b * x_stride_b + t_row * x_stride_t + c_row * x_stride_c,
                mask=valid,
                other=0.0,
            ).to(ACC)
            dy = tl.load(
                dy_tile + t_row * dy_stride_t, mask=(t < n_out)[:, None] & in_c[None, :], other=0.0
            ).to(ACC)
            sums += tl.where(taps == K, tl.sum(dy, axis=0)[None, :], 0.0)
        for k in tl.static_range(K):
            s = t + (PADDING - k)
            dy = tl.load(
                dy_tile + s[:, None].to(tl.int64) * dy_stride_t,
                mask=((s >= 0) & (s < n_out))[:, None] & in_c[None, :],
                other=0.0,
            ).to(ACC)
            if NEED_DX:
                w = tl.load(w_ptr + c * w_stride_c + k * w_stride_k, mask=in_c, other=0.0).to(ACC)
                dx = tl.fma(dy, tl.broadcast_to(w[None, :], (BT, BC)), dx)
            if NEED_DW:
                sums += tl.where(taps == k, tl.sum(x * dy, axis=0)[None, :], 0.0)
        if NEED_DX:
            dx = tl.where((t < n)[:, None], dx, 0.0)
            tl.store(
                dx_ptr + b * dx_stride_b + t_row * dx_stride_t + c_row * dx_stride_c,
                dx.to(dx_ptr.dtype.element_ty),
                mask=(t < T)[:, None] & in_c[None, :],
            )
    if NEED_DW:
        tl.store(
            partial_ptr + (row.to(tl.int64) * (K + 1) + taps) * C + c[None, :],
            sums,
            mask=(taps <= K) & in_c[None, :],
        )


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
    tile = tile or forward_tile(num_channels, reference.is_channels_first(x))
    num_programs = (
        ceil_div(num_channels, tile.block_c) * ceil_div(num_out, tile.block_t) * num_batch
    )
    with dispatch.on_device(x):
        forward_kernel[(num_programs,)](
            x, weight, _contiguous(bias), _contiguous(lengths), y, num_time, num_out, num_channels,
            *x.stride(), weight.stride(0), weight.stride(2), *y.stride(),
            K=num_taps, PADDING=padding, HAS_BIAS=bias is not None, HAS_LENGTHS=lengths is not None,
            ACC=dispatch.accumulator(x.dtype), BT=tile.block_t, BC=tile.block_c,
            num_warps=tile.num_warps,
        )  # fmt: skip
    return y


def launch_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
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
    dweight, dbias = weight.new_empty(0), weight.new_empty(0)
    tile = tile or backward_tile(num_channels, num_taps, reference.is_channels_first(x))
    num_tiles = num_batch * ceil_div(max(num_time, dy.shape[1]), tile.block_t)
    num_partials = min(num_tiles, MAX_PARTIALS)
    acc = reference.compute_dtype(x)
    partial = x.new_empty((num_partials, num_taps + 1, num_channels) if need_dw else 0, dtype=acc)
    if num_tiles and (need[0] or need_dw):
        with dispatch.on_device(x):
            backward_kernel[(ceil_div(num_channels, tile.block_c) * num_partials,)](
                dy, x, weight, _contiguous(lengths), dx, partial,
                num_time, dy.shape[1], num_channels, num_tiles, num_partials,
                *dy.stride(), *x.stride(), weight.stride(0), weight.stride(2),
                *(dx.stride() if need[0] else (0, 0, 0)),
                K=num_taps, K_ROWS=next_power_of_2(num_taps + 1), PADDING=padding, NEED_DX=need[0],
                NEED_DW=need_dw, HAS_LENGTHS=lengths is not None,
                ACC=dispatch.accumulator(x.dtype), BT=tile.block_t, BC=tile.block_c,
                num_warps=tile.num_warps,
            )  # fmt: skip
    if need_dw:
        total = partial.sum(0)
        if need[1]:
            dweight = total[:-1].t().unsqueeze(1).to(weight.dtype).contiguous()
        if need[2]:
            dbias = total[-1].to(weight.dtype, copy=True)
    return dx, dweight, dbias


def _limits(weight: Tensor) -> str:
    num_taps = weight.shape[2]
    return f"{num_taps} taps, more than {MAX_TAPS}" if num_taps > MAX_TAPS else ""


def _forward_fake(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, *_: Any) -> Tensor:
    num_out = reference.output_length(x.shape[1], weight.shape[2], padding)
    return reference.empty_like_layout(x, num_out)


def _backward_fake(
    dy: Tensor, x: Tensor, weight: Tensor, padding: int, lengths: Tensor | None, need: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        reference.empty_like_layout(x, x.shape[1]) if need[0] else x.new_empty(0),
        weight.new_empty(weight.shape if need[1] else 0),
        weight.new_empty(weight.shape[0] if need[2] else 0),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, padding, lengths = inputs
    ctx.save_for_backward(x, weight, lengths)
    ctx.padding = padding


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, lengths = ctx.saved_tensors
    need = list(ctx.needs_input_grad[:3])
    gradients = torch.ops.esi_fast.depthwise_conv1d_backward(
        dy, x, weight, ctx.padding, lengths, need
    )
    kept = [g if needed else None for g, needed in zip(gradients, need, strict=True)]
    return (*kept, None, None)


dispatch.register(
    "depthwise_conv1d",
    "(Tensor x, Tensor weight, Tensor? bias, int padding, Tensor? lengths) -> Tensor",
    reference=reference.depthwise_conv1d_forward,
    launch=launch_forward,
    fake=_forward_fake,
    limits=lambda x, weight, *_: _limits(weight),
)
dispatch.register(
    "depthwise_conv1d_backward",
    "(Tensor dy, Tensor x, Tensor weight, int padding, Tensor? lengths, bool[] need)"
    " -> (Tensor, Tensor, Tensor)",
    reference=reference.depthwise_conv1d_backward,
    launch=launch_backward,
    fake=_backward_fake,
    limits=lambda dy, x, weight, *_: _limits(weight),
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
            zeros; its gradient is zero past its end.
        layout: "BTC" or "BCT", of input and output.

    Returns:
        `(B, T + 2 * padding - (K - 1), C)` in the layout and dtype of (the cast) `x`.

    Raises:
        ValueError: shapes that do not fit, an unknown layout, or no output sample at all.

    Determinism: bit for bit, forward and backward. Saved for backward: `x` and `weight`, no copy of
        either. Double
    backward raises NotImplementedError.
    """
    if layout not in ("BTC", "BCT"):
        raise ValueError(f"layout={layout!r} is unknown: use 'BTC' or 'BCT'")
    x_BTC = x if layout == "BTC" else x.transpose(1, 2)
    reference.check_depthwise_conv1d(x_BTC, weight, bias, padding, lengths)
    cast = reference.autocast_dtype(x)
    if cast is not None and x.dtype != torch.float64:
        x_BTC = x_BTC.to(cast)
    y_BTC: Tensor = torch.ops.esi_fast.depthwise_conv1d(x_BTC, weight, bias, padding, lengths)
    return y_BTC if layout == "BTC" else y_BTC.transpose(1, 2)


def depthwise_conv1d_layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ln_weight: Tensor,
    ln_bias: Tensor,
    *,
    eps: float = 1e-6,
) -> Tensor:
    """Depthwise 1D convolution that keeps the length, then LayerNorm over the channels; "BTC" only.

    Equivalent to:
        ```python
        y = F.conv1d(x.transpose(1, 2), weight, bias, padding=K // 2, groups=C).transpose(1, 2)
        y = F.layer_norm(y, (C,), ln_weight, ln_bias, eps)
        ```

    Args:
        x: `(B, T, C)`, as in `depthwise_conv1d`.
        weight: `(C, 1, K)`, K odd.
        bias: `(C,)` or None.
        ln_weight: `(C,)`.
        ln_bias: `(C,)`.
        eps: added to the variance.

    Returns:
        `(B, T, C)`, in the dtype that `F.layer_norm` gives (float32 under CUDA autocast).

    Raises:
        ValueError: an even K, or shapes that do not fit.

    Determinism: that of `F.layer_norm`. Saved for backward: `x`, the convolution's output, mean and
        rstd. Two
    operators for now: the convolution, then torch's LayerNorm.
    """
    if weight.shape[-1] % 2 == 0:
        raise ValueError(f"weight has {weight.shape[-1]} taps: an odd number keeps the length")
    y = depthwise_conv1d(x, weight, bias, padding=weight.shape[-1] // 2)
    return F.layer_norm(y, (y.shape[-1],), ln_weight, ln_bias, eps)
