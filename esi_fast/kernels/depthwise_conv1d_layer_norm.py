"""Depthwise 1D convolution and LayerNorm over the channels, with nothing stored between them.

Forward: one program has all the channels of a few samples, so that the convolution's output goes
from registers into the normalisation: one read, one write. Backward: the convolution is made again,
LayerNorm's gradient leaves in the dtype of `x`, and the convolution's own backward ends it. Beyond
`MAX_CHANNELS` a program would hold too few samples for its halo: two kernels are faster there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from esi_fast.kernels import dispatch, reference
from esi_fast.kernels.convolve import convolve, load_taps
from esi_fast.kernels.depthwise_conv1d import MAX_HELD_TAPS, Tile, depthwise_conv1d, taps_limit
from esi_fast.kernels.depthwise_conv1d import launch_backward as launch_conv_backward
from esi_fast.kernels.dispatch import ceil_div, jit, next_power_of_2, tl
from esi_fast.kernels.partial_sums import sum_partials
from esi_fast.kernels.row_sums import sum_rows

MAX_CHANNELS = 1024

# Programs of the backward kernel, a constant as in depthwise_conv1d.
MAX_PROGRAMS = 1024


def forward_tile(num_channels: int) -> Tile:
    """The shipped configuration of the forward kernel."""
    block_c = max(32, next_power_of_2(num_channels))
    return Tile(max(1, 128 // block_c), 8, block_c, min(4, max(1, block_c // 128)))


def backward_tile(num_channels: int) -> Tile:
    """The shipped configuration of the backward kernel."""
    block_c = max(32, next_power_of_2(num_channels))
    if block_c <= 128:
        return Tile(512 // block_c, 4, block_c, 4)
    return Tile(1, 4, block_c, block_c // 128)


@jit
def forward_kernel(
    x_ptr: tl.tensor, w_ptr: tl.tensor, b_ptr: tl.tensor, ln_w_ptr: tl.tensor, ln_b_ptr: tl.tensor,
    lengths_ptr: tl.tensor, y_ptr: tl.tensor, mean_ptr: tl.tensor, rstd_ptr: tl.tensor,
    T: tl.tensor, C: tl.tensor, eps: tl.tensor,
    x_stride_b: tl.tensor, x_stride_t: tl.tensor, x_stride_c: tl.tensor,
    w_stride_c: tl.tensor, w_stride_k: tl.tensor,
    K: tl.constexpr, HELD: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    ACC: tl.constexpr, G: tl.constexpr, ROWS: tl.constexpr, BC: tl.constexpr,
) -> None:  # fmt: skip
    """y = LayerNorm(bias + convolution), zero past the length; y is dense (B, T, C)."""
    num_t = tl.cdiv(T, G * ROWS)
    b = (tl.program_id(0) // num_t).to(tl.int64)
    t = tl.program_id(0) % num_t * (G * ROWS) + tl.arange(0, G) * ROWS
    c = tl.arange(0, BC)
    in_c = c < C
    n = T
    if HAS_LENGTHS:
        n = tl.minimum(tl.load(lengths_ptr + b), T).to(tl.int32)
    c_row = c[None, :].to(tl.int64)
    w_ptr += c * w_stride_c
    taps = load_taps(w_ptr, in_c, w_stride_k, K, HELD, ACC)
    out = convolve(
        x_ptr + b * x_stride_b + c_row * x_stride_c, t, n, in_c, x_stride_t, taps, w_ptr,
        w_stride_k, K, K // 2, HELD, ROWS, ACC, G, BC,
    )  # fmt: skip
    scale = tl.load(ln_w_ptr + c, mask=in_c, other=0.0).to(ACC)[None, :]
    shift = tl.load(ln_b_ptr + c, mask=in_c, other=0.0).to(ACC)[None, :]
    shifted = ()
    for r in tl.static_range(ROWS):
        z = out[r]
        if HAS_BIAS:
            z += tl.load(b_ptr + c, mask=in_c, other=0.0).to(ACC)[None, :]
        shifted = shifted + (z,)
    sums = sum_rows(shifted, ROWS)
    centred = ()
    squares = ()
    for r in tl.static_range(ROWS):
        z = tl.where(in_c[None, :], shifted[r] - (sums[r] / C)[:, None], 0.0)
        centred = centred + (z,)
        squares = squares + (z * z,)
    squares = sum_rows(squares, ROWS)
    for r in tl.static_range(ROWS):
        z = centred[r]
        mean = sums[r] / C
        rstd = 1.0 / tl.sqrt(squares[r] / C + eps)
        y = z * rstd[:, None] * scale + shift
        if HAS_LENGTHS:
            y = tl.where((t + r < n)[:, None], y, 0.0)
        row = b * T + t + r
        in_t = t + r < T
        tl.store(
            y_ptr + row[:, None] * C + c_row,
            y.to(y_ptr.dtype.element_ty),
            mask=in_t[:, None] & in_c[None, :],
        )
        tl.store(mean_ptr + row, mean, mask=in_t)
        tl.store(rstd_ptr + row, rstd, mask=in_t)


@jit
def backward_kernel(
    dy_ptr: tl.tensor, x_ptr: tl.tensor, w_ptr: tl.tensor, b_ptr: tl.tensor, ln_w_ptr: tl.tensor,
    mean_ptr: tl.tensor, rstd_ptr: tl.tensor, lengths_ptr: tl.tensor, dz_ptr: tl.tensor,
    partial_ptr: tl.tensor,
    T: tl.tensor, C: tl.tensor, num_tiles: tl.tensor, num_partials: tl.tensor,
    dy_stride_b: tl.tensor, dy_stride_t: tl.tensor, dy_stride_c: tl.tensor,
    x_stride_b: tl.tensor, x_stride_t: tl.tensor, x_stride_c: tl.tensor,
    w_stride_c: tl.tensor, w_stride_k: tl.tensor,
    K: tl.constexpr, HELD: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    ACC: tl.constexpr, G: tl.constexpr, ROWS: tl.constexpr, BC: tl.constexpr,
) -> None:  # fmt: skip
    """Gradient of the convolution's output, dense (B, T, C), and a row of sums for scale, shift."""
    num_t = tl.cdiv(T, G * ROWS)
    c = tl.arange(0, BC)
    in_c = c < C
    c_row = c[None, :].to(tl.int64)
    w_ptr += c * w_stride_c
    taps = load_taps(w_ptr, in_c, w_stride_k, K, HELD, ACC)
    scale = tl.load(ln_w_ptr + c, mask=in_c, other=0.0).to(ACC)[None, :]
    sum_scale = tl.zeros((G, BC), ACC)
    sum_shift = tl.zeros((G, BC), ACC)
    for tile in range(tl.program_id(0), num_tiles, num_partials):
        b = (tile // num_t).to(tl.int64)
        t = tile % num_t * (G * ROWS) + tl.arange(0, G) * ROWS
        n = T
        if HAS_LENGTHS:
            n = tl.minimum(tl.load(lengths_ptr + b), T).to(tl.int32)
        out = convolve(
            x_ptr + b * x_stride_b + c_row * x_stride_c, t, n, in_c, x_stride_t, taps, w_ptr,
            w_stride_k, K, K // 2, HELD, ROWS, ACC, G, BC,
        )  # fmt: skip
        dy_tile = dy_ptr + b * dy_stride_b + c_row * dy_stride_c
        normal = ()
        scaled = ()
        products = ()
        for r in tl.static_range(ROWS):
            z = out[r]
            if HAS_BIAS:
                z += tl.load(b_ptr + c, mask=in_c, other=0.0).to(ACC)[None, :]
            row = b * T + t + r
            mean = tl.load(mean_ptr + row, mask=t + r < T, other=0.0)
            rstd = tl.load(rstd_ptr + row, mask=t + r < T, other=0.0)
            dy = tl.load(
                dy_tile + (t + r)[:, None].to(tl.int64) * dy_stride_t,
                mask=(t + r < n)[:, None] & in_c[None, :],
                other=0.0,
            ).to(ACC)
            z = tl.where(in_c[None, :], (z - mean[:, None]) * rstd[:, None], 0.0)
            sum_scale = tl.fma(dy, z, sum_scale)
            sum_shift += dy
            dy *= scale
            normal = normal + (z,)
            scaled = scaled + (dy,)
            products = products + (dy * z,)
        sums = sum_rows(scaled + products, 2 * ROWS)
        for r in tl.static_range(ROWS):
            row = b * T + t + r
            in_t = t + r < T
            rstd = tl.load(rstd_ptr + row, mask=in_t, other=0.0)
            through_mean = (sums[r] / C)[:, None]
            through_rstd = (sums[ROWS + r] / C)[:, None]
            dz = (scaled[r] - through_mean - normal[r] * through_rstd) * rstd[:, None]
            tl.store(
                dz_ptr + row[:, None] * C + c_row,
                dz.to(dz_ptr.dtype.element_ty),
                mask=in_t[:, None] & in_c[None, :],
            )
    partial_ptr += tl.program_id(0).to(tl.int64) * 2 * C + c
    tl.store(partial_ptr, tl.sum(sum_scale, axis=0), mask=in_c)
    tl.store(partial_ptr + C, tl.sum(sum_shift, axis=0), mask=in_c)


def _configuration(x: Tensor, weight: Tensor, lengths: Tensor | None, tile: Tile) -> dict[str, Any]:
    num_taps = weight.shape[2]
    return {
        "K": num_taps, "HELD": num_taps <= MAX_HELD_TAPS, "HAS_LENGTHS": lengths is not None,
        "ACC": dispatch.accumulator(x.dtype), "G": tile.groups, "ROWS": tile.rows,
        "BC": tile.block_c, "num_warps": tile.num_warps,
    }  # fmt: skip


def launch_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ln_weight: Tensor,
    ln_bias: Tensor,
    eps: float,
    lengths: Tensor | None,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`(B, T, C)`, any strides -> y, dense, and mean and rstd (B, T) of the convolution."""
    num_batch, num_time, num_channels = x.shape
    acc = reference.compute_dtype(x)
    y = x.new_empty(x.shape)
    mean, rstd = (x.new_empty((num_batch, num_time), dtype=acc) for _ in range(2))
    if y.numel() == 0:
        return y, mean, rstd
    lengths = None if lengths is None else lengths.contiguous()
    tile = tile or forward_tile(num_channels)
    with dispatch.on_device(x):
        forward_kernel[(num_batch * ceil_div(num_time, tile.block_t),)](
            x, weight, None if bias is None else bias.contiguous(),
            ln_weight.contiguous(), ln_bias.contiguous(), lengths, y, mean, rstd,
            num_time, num_channels, eps, *x.stride(), weight.stride(0), weight.stride(2),
            HAS_BIAS=bias is not None, **_configuration(x, weight, lengths, tile),
        )  # fmt: skip
    return y, mean, rstd


def launch_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ln_weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    lengths: Tensor | None,
    need: Sequence[bool],
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias, ln_weight, ln_bias; `need` is of the first three."""
    num_batch, num_time, num_channels = x.shape
    if x.numel() == 0:
        gradients = launch_conv_backward(dy, x, weight, weight.shape[2] // 2, lengths, need)
        return *gradients, torch.zeros_like(ln_weight), torch.zeros_like(ln_weight)
    dz = x.new_empty(x.shape)
    lengths = None if lengths is None else lengths.contiguous()
    tile = tile or backward_tile(num_channels)
    num_tiles = num_batch * ceil_div(num_time, tile.block_t)
    num_partials = min(num_tiles, MAX_PROGRAMS)
    partial = x.new_empty((num_partials, 2, num_channels), dtype=reference.compute_dtype(x))
    with dispatch.on_device(x):
        backward_kernel[(num_partials,)](
            dy, x, weight, None if bias is None else bias.contiguous(), ln_weight.contiguous(),
            mean, rstd, lengths, dz, partial, num_time, num_channels, num_tiles, num_partials,
            *dy.stride(), *x.stride(), weight.stride(0), weight.stride(2),
            HAS_BIAS=bias is not None, **_configuration(x, weight, lengths, tile),
        )  # fmt: skip
    dln_weight, dln_bias = sum_partials(partial, ln_weight.dtype)
    gradients = launch_conv_backward(dz, x, weight, weight.shape[2] // 2, lengths, need)
    return *gradients, dln_weight.squeeze(1), dln_bias


def _limits(num_channels: int, weight: Tensor) -> str:
    if num_channels > MAX_CHANNELS:
        return f"{num_channels} channels, more than {MAX_CHANNELS}"
    return taps_limit(weight)


def _forward_fake(x: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    rows = x.new_empty(x.shape[:2], dtype=reference.compute_dtype(x))
    return x.new_empty(x.shape), rows, torch.empty_like(rows)


def _backward_fake(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, ln_weight: Tensor, mean: Tensor,
    rstd: Tensor, lengths: Tensor | None, need: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return (
        reference.empty_like_layout(x, x.shape[1]) if need[0] else x.new_empty(0),
        weight.new_empty(weight.shape if need[1] else 0),
        weight.new_empty(weight.shape[0] if need[2] else 0),
        torch.empty_like(ln_weight),
        torch.empty_like(ln_weight),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, ln_weight, _, _, lengths = inputs
    ctx.set_materialize_grads(False)  # of the outputs that have none, as large as they are
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.save_for_backward(x, weight, bias, ln_weight, output[1], output[2], lengths)


def _backward(ctx: Any, dy: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return (None,) * 7
    need = list(ctx.needs_input_grad[:3])
    gradients = torch.ops.esi_fast.depthwise_conv1d_layer_norm_backward(
        dy, *ctx.saved_tensors, need
    )
    kept = [g if needed else None for g, needed in zip(gradients[:3], need, strict=True)]
    return (*kept, *gradients[3:], None, None)


dispatch.register(
    "depthwise_conv1d_layer_norm",
    "(Tensor x, Tensor weight, Tensor? bias, Tensor ln_weight, Tensor ln_bias, float eps,"
    " Tensor? lengths) -> (Tensor, Tensor, Tensor)",
    reference=reference.depthwise_conv1d_layer_norm_forward,
    launch=launch_forward,
    fake=_forward_fake,
    limits=lambda x, weight, *_: _limits(x.shape[2], weight),
)
dispatch.register(
    "depthwise_conv1d_layer_norm_backward",
    "(Tensor dy, Tensor x, Tensor weight, Tensor? bias, Tensor ln_weight, Tensor mean,"
    " Tensor rstd, Tensor? lengths, bool[] need) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=reference.depthwise_conv1d_layer_norm_backward,
    launch=launch_backward,
    fake=_backward_fake,
    limits=lambda dy, x, weight, *_: _limits(x.shape[2], weight),
)
dispatch.register_gradient("depthwise_conv1d_layer_norm", _backward, _setup_context)


def depthwise_conv1d_layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ln_weight: Tensor,
    ln_bias: Tensor,
    *,
    eps: float = 1e-6,
    lengths: Tensor | None = None,
) -> Tensor:
    """Depthwise 1D convolution that keeps the length, then LayerNorm over the channels; "BTC" only.

    Equivalent to:
        ```python
        y = F.conv1d(x.transpose(1, 2), weight, bias, padding=K // 2, groups=C).transpose(1, 2)
        y = F.layer_norm(y, (C,), ln_weight, ln_bias, eps)
        ```
    but with float32 accumulation and statistics for every dtype below float64, and the parameters
    in any floating dtype. Up to C = 1024 forward is one pass over the data, and only the gradient
    between the two parts is rounded to the dtype of `x`; above, there are two operators, and the
    convolution's output and LayerNorm's parameters are rounded to it too.

    Args:
        x: `(B, T, C)`, as in `depthwise_conv1d`; autocast casts it likewise.
        weight: `(C, 1, K)`, K odd.
        bias: `(C,)` or None.
        ln_weight: `(C,)`.
        ln_bias: `(C,)`.
        eps: added to the variance.
        lengths: `(B,)` int32 or int64, as in `depthwise_conv1d`: positions `t >= lengths[b]` count
            as absent, give zeros and get gradient zero.

    Returns:
        `(B, T, C)`, dtype of (the cast) `x`, contiguous.

    Raises:
        ValueError: an even K, or shapes that do not fit.

    Determinism: bit for bit, forward and backward. Saved for backward: `x` and the parameters, no
    copy, and mean and rstd, 8 bytes a position; the backward makes the convolution again. Double
    backward raises NotImplementedError.
    """
    reference.check_depthwise_conv1d_layer_norm(x, weight, bias, ln_weight, ln_bias, lengths)
    cast = reference.autocast_dtype(x)
    if cast is not None and x.dtype != torch.float64:
        x = x.to(cast)
    if x.shape[2] > MAX_CHANNELS:
        return _in_two(x, weight, bias, ln_weight, ln_bias, eps, lengths)
    y: Tensor = torch.ops.esi_fast.depthwise_conv1d_layer_norm(
        x, weight, bias, ln_weight, ln_bias, eps, lengths
    )[0]
    return y


def _in_two(
    x: Tensor, weight: Tensor, bias: Tensor | None, ln_weight: Tensor, ln_bias: Tensor, eps: float,
    lengths: Tensor | None,
) -> Tensor:  # fmt: skip
    z = depthwise_conv1d(x, weight, bias, padding=weight.shape[2] // 2, lengths=lengths)
    with reference.no_autocast(z):
        y = F.layer_norm(z, ln_weight.shape, ln_weight.to(z.dtype), ln_bias.to(z.dtype), eps)
    return reference.mask_time(y, lengths)
