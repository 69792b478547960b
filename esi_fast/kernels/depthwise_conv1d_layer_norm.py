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

from esi_fast.kernels import dispatch, reference, tuning
from esi_fast.kernels.convolve import convolve, load_bias, load_taps
from esi_fast.kernels.depthwise_conv1d import depthwise_conv1d
from esi_fast.kernels.depthwise_conv1d import launch_backward as launch_conv_backward
from esi_fast.kernels.depthwise_conv1d import limits as conv_limits
from esi_fast.kernels.dispatch import ceil_div, jit, tl
from esi_fast.kernels.lengths import record_length
from esi_fast.kernels.partial_sums import sum_partials
from esi_fast.kernels.row_sums import sum_rows
from esi_fast.kernels.tiles import MAX_HELD_TAPS, Tile

MAX_CHANNELS = 1024


@jit
def forward_kernel(
    x_ptr: tl.tensor, w_ptr: tl.tensor, b_ptr: tl.tensor, ln_w_ptr: tl.tensor, ln_b_ptr: tl.tensor,
    lengths_ptr: tl.tensor, y_ptr: tl.tensor, mean_ptr: tl.tensor, rstd_ptr: tl.tensor,
    T: tl.tensor,
    x_stride_b: tl.tensor, x_stride_t: tl.tensor, x_stride_c: tl.tensor,
    w_stride_c: tl.tensor, w_stride_k: tl.tensor,
    C: tl.constexpr, DENSE: tl.constexpr, K: tl.constexpr, EPS: tl.constexpr, HELD: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr, ACC: tl.constexpr, G: tl.constexpr,
    ROWS: tl.constexpr, BC: tl.constexpr,
) -> None:  # fmt: skip
    """y = LayerNorm(bias + convolution), zero past the length; y is dense (B, T, C)."""
    num_t = tl.cdiv(T, G * ROWS)
    b = (tl.program_id(0) // num_t).to(tl.int64)
    t = tl.program_id(0) % num_t * (G * ROWS) + tl.arange(0, G) * ROWS
    c = tl.arange(0, BC)
    in_c = c < C
    n = T
    if HAS_LENGTHS:
        n = record_length(lengths_ptr, b, T)
    c_row = c[None, :].to(tl.int64)
    w_ptr += c * w_stride_c
    taps = load_taps(w_ptr, in_c, w_stride_k, K, HELD, ACC)
    bias = load_bias(b_ptr, c, in_c, HAS_BIAS, ACC, G, BC)
    out = convolve(
        x_ptr + b * x_stride_b + c_row * x_stride_c, t, n, in_c, C if DENSE else x_stride_t, taps,
        w_ptr, w_stride_k, bias, K, K // 2, HELD, ROWS, ACC, G, BC,
    )  # fmt: skip
    scale = tl.load(ln_w_ptr + c, mask=in_c, other=0.0).to(ACC)[None, :]
    shift = tl.load(ln_b_ptr + c, mask=in_c, other=0.0).to(ACC)[None, :]
    sums = sum_rows(out, ROWS)
    centred = ()
    squares = ()
    for r in tl.static_range(ROWS):
        z = tl.where(in_c[None, :], out[r] - (sums[r] / C)[:, None], 0.0)
        centred = centred + (z,)
        squares = squares + (z * z,)
    squares = sum_rows(squares, ROWS)
    for r in tl.static_range(ROWS):
        z = centred[r]
        mean = sums[r] / C
        rstd = tl.rsqrt(squares[r] / C + EPS)
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
    T: tl.tensor, num_tiles: tl.tensor, num_partials: tl.tensor,
    dy_stride_b: tl.tensor, dy_stride_t: tl.tensor, dy_stride_c: tl.tensor,
    x_stride_b: tl.tensor, x_stride_t: tl.tensor, x_stride_c: tl.tensor,
    w_stride_c: tl.tensor, w_stride_k: tl.tensor,
    C: tl.constexpr, DENSE: tl.constexpr, K: tl.constexpr, HELD: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr, ACC: tl.constexpr, G: tl.constexpr,
    ROWS: tl.constexpr, BC: tl.constexpr,
) -> None:  # fmt: skip
    """Gradient of the convolution's output, dense (B, T, C), and a row of sums for scale, shift."""
    num_t = tl.cdiv(T, G * ROWS)
    c = tl.arange(0, BC)
    in_c = c < C
    c_row = c[None, :].to(tl.int64)
    w_ptr += c * w_stride_c
    taps = load_taps(w_ptr, in_c, w_stride_k, K, HELD, ACC)
    bias = load_bias(b_ptr, c, in_c, HAS_BIAS, ACC, G, BC)
    scale = tl.load(ln_w_ptr + c, mask=in_c, other=0.0).to(ACC)[None, :]
    sum_scale = tl.zeros((G, BC), ACC)
    sum_shift = tl.zeros((G, BC), ACC)
    for tile in range(tl.program_id(0), num_tiles, num_partials):
        b = (tile // num_t).to(tl.int64)
        t = tile % num_t * (G * ROWS) + tl.arange(0, G) * ROWS
        n = T
        if HAS_LENGTHS:
            n = record_length(lengths_ptr, b, T)
        out = convolve(
            x_ptr + b * x_stride_b + c_row * x_stride_c, t, n, in_c, C if DENSE else x_stride_t,
            taps, w_ptr, w_stride_k, bias, K, K // 2, HELD, ROWS, ACC, G, BC,
        )  # fmt: skip
        dy_tile = dy_ptr + b * dy_stride_b + c_row * dy_stride_c
        normal = ()
        scaled = ()
        products = ()
        for r in tl.static_range(ROWS):
            row = b * T + t + r
            mean = tl.load(mean_ptr + row, mask=t + r < T, other=0.0)
            rstd = tl.load(rstd_ptr + row, mask=t + r < T, other=0.0)
            dy = tl.load(
                dy_tile + (t + r)[:, None].to(tl.int64) * (C if DENSE else dy_stride_t),
                mask=(t + r < n)[:, None] & in_c[None, :],
                other=0.0,
            ).to(ACC)
            z = tl.where(in_c[None, :], (out[r] - mean[:, None]) * rstd[:, None], 0.0)
            if HAS_LENGTHS:  # without eps, rstd is infinite past the length
                z = tl.where((t + r < n)[:, None], z, 0.0)
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
        "C": x.shape[2], "K": num_taps, "HELD": num_taps <= MAX_HELD_TAPS,
        "HAS_LENGTHS": lengths is not None, "ACC": dispatch.accumulator(x.dtype),
        "G": tile.groups, "ROWS": tile.rows, "BC": tile.block_c, **dispatch.options(tile.num_warps),
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
    num_batch, num_time, _ = x.shape
    acc = reference.compute_dtype(x)
    y = x.new_empty(x.shape)
    mean, rstd = (x.new_empty((num_batch, num_time), dtype=acc) for _ in range(2))
    if y.numel() == 0:
        return y, mean, rstd
    lengths = None if lengths is None else lengths.contiguous()
    tile = tile or tuning.choose(
        "depthwise_conv1d_layer_norm", x, False, weight.shape[2],
        lambda tile: launch_forward(x, weight, bias, ln_weight, ln_bias, eps, lengths, tile),
    )  # fmt: skip
    with dispatch.on_device(x):
        forward_kernel[(num_batch * ceil_div(num_time, tile.block_t),)](
            x, weight, None if bias is None else bias.contiguous(),
            ln_weight.contiguous(), ln_bias.contiguous(), lengths, y, mean, rstd,
            num_time, *x.stride(), weight.stride(0), weight.stride(2),
            DENSE=dispatch.are_dense(x), EPS=eps, HAS_BIAS=bias is not None,
            **_configuration(x, weight, lengths, tile),
        )  # fmt: skip
    return y, mean, rstd


def launch_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ln_weight: Tensor,
    ln_bias_dtype: torch.dtype,
    mean: Tensor,
    rstd: Tensor,
    lengths: Tensor | None,
    need: Sequence[bool],
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias, ln_weight, ln_bias; `need` is of the first three."""
    lengths = None if lengths is None else lengths.contiguous()
    dz, dln_weight, dln_bias = _launch_norm_backward(
        dy, x, weight, bias, ln_weight, ln_bias_dtype, mean, rstd, lengths, tile
    )
    bias_dtype = weight.dtype if bias is None else bias.dtype
    padding = weight.shape[2] // 2
    gradients = launch_conv_backward(dz, x, weight, bias_dtype, padding, lengths, need)
    return *gradients, dln_weight, dln_bias


def _launch_norm_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ln_weight: Tensor,
    ln_bias_dtype: torch.dtype,
    mean: Tensor,
    rstd: Tensor,
    lengths: Tensor | None,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the convolution's output, of ln_weight and ln_bias: the first pass."""
    num_batch, num_time, num_channels = x.shape
    dz = x.new_empty(x.shape)
    tile = tile or tuning.choose(
        "depthwise_conv1d_layer_norm_backward", x, False, weight.shape[2],
        lambda tile: _launch_norm_backward(
            dy, x, weight, bias, ln_weight, ln_bias_dtype, mean, rstd, lengths, tile
        ),
    )  # fmt: skip
    num_tiles = num_batch * ceil_div(num_time, tile.block_t)
    num_partials = min(num_tiles, tile.programs)
    partial = x.new_empty((num_partials, 2, num_channels), dtype=reference.compute_dtype(x))
    if num_tiles:
        with dispatch.on_device(x):
            backward_kernel[(num_partials,)](
                dy, x, weight, None if bias is None else bias.contiguous(), ln_weight.contiguous(),
                mean, rstd, lengths, dz, partial, num_time, num_tiles, num_partials,
                *dy.stride(), *x.stride(), weight.stride(0), weight.stride(2),
                DENSE=dispatch.are_dense(dy, x), HAS_BIAS=bias is not None,
                **_configuration(x, weight, lengths, tile),
            )  # fmt: skip
    dln_weight, dln_bias = sum_partials(partial, ln_weight.dtype, ln_bias_dtype)
    return dz, dln_weight.squeeze(1), dln_bias


def limits(x: Tensor, weight: Tensor, *_: Any) -> str:
    """Why Triton cannot serve these arguments; empty where it can."""
    if x.shape[2] > MAX_CHANNELS:
        return f"{x.shape[2]} channels, more than {MAX_CHANNELS}"
    return conv_limits(x, weight)


def _forward_fake(x: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    rows = x.new_empty(x.shape[:2], dtype=reference.compute_dtype(x))
    return x.new_empty(x.shape), rows, torch.empty_like(rows)


def _backward_fake(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, ln_weight: Tensor,
    ln_bias_dtype: torch.dtype, mean: Tensor, rstd: Tensor, lengths: Tensor | None,
    need: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return (
        reference.empty_like_layout(x, x.shape[1]) if need[0] else x.new_empty(0),
        weight.new_empty(weight.shape if need[1] else 0),
        weight.new_empty(
            weight.shape[0] if need[2] else 0, dtype=weight.dtype if bias is None else bias.dtype
        ),
        torch.empty_like(ln_weight),
        torch.empty_like(ln_weight, dtype=ln_bias_dtype),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, ln_weight, ln_bias, _, lengths = inputs
    ctx.set_materialize_grads(False)  # of the outputs that have none, as large as they are
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.save_for_backward(x, weight, bias, ln_weight, output[1], output[2], lengths)
    ctx.ln_bias_dtype = ln_bias.dtype


def _backward(ctx: Any, dy: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return (None,) * 7
    need = list(ctx.needs_input_grad[:3])
    x, weight, bias, ln_weight, mean, rstd, lengths = ctx.saved_tensors
    gradients = torch.ops.esi_fast.depthwise_conv1d_layer_norm_backward(
        dy, x, weight, bias, ln_weight, ctx.ln_bias_dtype, mean, rstd, lengths, need
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
    check=reference.check_depthwise_conv1d_layer_norm,
    limits=limits,
)
dispatch.register(
    "depthwise_conv1d_layer_norm_backward",
    "(Tensor dy, Tensor x, Tensor weight, Tensor? bias, Tensor ln_weight,"
    " ScalarType ln_bias_dtype, Tensor mean, Tensor rstd, Tensor? lengths, bool[] need)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=reference.depthwise_conv1d_layer_norm_backward,
    launch=launch_backward,
    fake=_backward_fake,
    limits=lambda dy, *arguments: limits(*arguments),
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
        TypeError: an argument of another type.
        ValueError: an even K, or shapes, dtypes or devices that do not fit.

    Determinism: bit for bit, forward and backward. Saved for backward: `x` and the parameters, no
    copy, and mean and rstd, 8 bytes a position (16 for float64); the backward makes the convolution
    again. Above C = 1024 the convolution's output is saved as well. Double backward, forward mode
    and gradients of `torch.func` raise: `reference` can do them.
    """
    x = reference.autocast_input(x)
    if isinstance(x, Tensor) and x.ndim == 3 and x.shape[2] > MAX_CHANNELS:
        return _in_two(x, weight, bias, ln_weight, ln_bias, eps, lengths)
    y: Tensor = dispatch.call(
        "depthwise_conv1d_layer_norm", x, weight, bias, ln_weight, ln_bias, eps, lengths
    )[0]
    return y


def _in_two(
    x: Tensor, weight: Tensor, bias: Tensor | None, ln_weight: Tensor, ln_bias: Tensor, eps: float,
    lengths: Tensor | None,
) -> Tensor:  # fmt: skip
    reference.check_depthwise_conv1d_layer_norm(x, weight, bias, ln_weight, ln_bias, eps, lengths)
    z = depthwise_conv1d(x, weight, bias, padding=weight.shape[2] // 2, lengths=lengths)
    with reference.no_autocast(z):
        y = F.layer_norm(z, ln_weight.shape, ln_weight.to(z.dtype), ln_bias.to(z.dtype), eps)
    return reference.mask_time(y, lengths)
