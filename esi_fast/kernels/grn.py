"""Global response normalisation, with or without a GELU before it.

With `a` the (activated) input: `norm = sqrt(sum over t of a^2)`, `s = 1 + gamma * norm / (mean over
c of norm + eps)`, `y = a * s + beta`. Two passes over the input forward (sums of squares; scale)
and two backward (column sums of `dy * a` and `dy`; the gradient). GELU's output is computed again
in every pass and never stored. The sums leave a partial row for each chunk of time, and are closed
by a sum in a fixed order: no atomics, results repeat bit for bit. What lies between the passes has
shape (B, C) and is plain PyTorch, shared with the reference.

The statistics are float32 (float64 for float64): the sum of squares overflows float16 from |a| > 7
on.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from esi_fast.kernels import dispatch, reference
from esi_fast.kernels.dispatch import ceil_div, jit, next_power_of_2, tl
from esi_fast.kernels.reference import Activation


class Tile(NamedTuple):
    """A launch configuration: rows of time, such steps in a chunk of the sums, channels, warps."""

    block_t: int
    num_steps: int
    block_c: int
    num_warps: int


def shipped_tile(num_channels: int, channels_first: bool) -> Tile:
    """The shipped configuration of all four kernels."""
    if channels_first:
        return Tile(128, 2, min(8, next_power_of_2(num_channels)), 4)
    return Tile(16, 16, min(128, max(16, next_power_of_2(num_channels))), 4)


@jit
def activate(x: tl.tensor, ACTIVATION: tl.constexpr) -> tl.tensor:
    """The input itself, or its GELU."""
    if ACTIVATION == "gelu":
        x = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif ACTIVATION == "gelu_tanh":  # x * sigmoid(2 z) = x * (1 + tanh(z)) / 2
        x = x / (1.0 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))
    return x


@jit
def activation_gradient(x: tl.tensor, ACTIVATION: tl.constexpr) -> tl.tensor:
    """The derivative of the GELU."""
    if ACTIVATION == "gelu":
        cdf = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))
        slope = cdf + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)
    else:
        sigmoid = 1.0 / (1.0 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))
        inner = 1.5957691216057308 * (1.0 + 0.134145 * x * x)
        slope = sigmoid + x * sigmoid * (1.0 - sigmoid) * inner
    return slope


@jit
def sums_kernel(
    dy_ptr: tl.tensor, x_ptr: tl.tensor, lengths_ptr: tl.tensor, partial_ptr: tl.tensor,
    T: tl.tensor, C: tl.tensor,
    dy_stride_b: tl.tensor, dy_stride_t: tl.tensor, dy_stride_c: tl.tensor,
    x_stride_b: tl.tensor, x_stride_t: tl.tensor, x_stride_c: tl.tensor,
    BACKWARD: tl.constexpr, ACTIVATION: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    ACC: tl.constexpr, BT: tl.constexpr, NUM_STEPS: tl.constexpr, BC: tl.constexpr,
) -> None:  # fmt: skip
    """Sums of a chunk of time: a^2 -> (B, chunks, 1, C); dy * a and dy -> (B, chunks, 2, C)."""
    num_c = tl.cdiv(C, BC)
    num_chunks = tl.cdiv(T, BT * NUM_STEPS)
    row = tl.program_id(0) // num_c  # b * num_chunks + chunk
    b = (row // num_chunks).to(tl.int64)
    chunk = row % num_chunks
    c = tl.program_id(0) % num_c * BC + tl.arange(0, BC)
    in_c = c < C
    n = T
    if HAS_LENGTHS:
        n = tl.minimum(tl.load(lengths_ptr + b).to(tl.int32), T)
    c_row = c[None, :].to(tl.int64)
    x_ptr += b * x_stride_b + c_row * x_stride_c
    first = tl.zeros((BT, BC), ACC)
    second = tl.zeros((BT, BC), ACC)
    for step in range(NUM_STEPS):
        t = (chunk * NUM_STEPS + step) * BT + tl.arange(0, BT)
        t_row = t[:, None].to(tl.int64)
        valid = (t < n)[:, None] & in_c[None, :]
        a = activate(tl.load(x_ptr + t_row * x_stride_t, mask=valid, other=0.0).to(ACC), ACTIVATION)
        if BACKWARD:
            dy = tl.load(
                dy_ptr + b * dy_stride_b + t_row * dy_stride_t + c_row * dy_stride_c,
                mask=valid,
                other=0.0,
            ).to(ACC)
            first = tl.fma(dy, a, first)
            second += dy
        else:
            first = tl.fma(a, a, first)
    if BACKWARD:
        partial_ptr += row.to(tl.int64) * 2 * C + c
        tl.store(partial_ptr, tl.sum(first, axis=0), mask=in_c)
        tl.store(partial_ptr + C, tl.sum(second, axis=0), mask=in_c)
    else:
        tl.store(partial_ptr + row.to(tl.int64) * C + c, tl.sum(first, axis=0), mask=in_c)


@jit
def forward_kernel(
    x_ptr: tl.tensor, scale_ptr: tl.tensor, beta_ptr: tl.tensor, lengths_ptr: tl.tensor,
    y_ptr: tl.tensor, T: tl.tensor, C: tl.tensor,
    x_stride_b: tl.tensor, x_stride_t: tl.tensor, x_stride_c: tl.tensor,
    y_stride_b: tl.tensor, y_stride_t: tl.tensor, y_stride_c: tl.tensor,
    ACTIVATION: tl.constexpr, HAS_LENGTHS: tl.constexpr, ACC: tl.constexpr, BT: tl.constexpr,
    BC: tl.constexpr,
) -> None:  # fmt: skip
    """y = a * scale + beta, zero past the length."""
    num_c = tl.cdiv(C, BC)
    num_t = tl.cdiv(T, BT)
    pid = tl.program_id(0)
    b = (pid // (num_c * num_t)).to(tl.int64)
    t = (pid // num_c) % num_t * BT + tl.arange(0, BT)
    c = pid % num_c * BC + tl.arange(0, BC)
    in_c = c < C
    n = T
    if HAS_LENGTHS:
        n = tl.minimum(tl.load(lengths_ptr + b).to(tl.int32), T)
    c_row = c[None, :].to(tl.int64)
    t_row = t[:, None].to(tl.int64)
    x = tl.load(
        x_ptr + b * x_stride_b + t_row * x_stride_t + c_row * x_stride_c,
        mask=(t < n)[:, None] & in_c[None, :],
        other=0.0,
    ).to(ACC)
    scale = tl.load(scale_ptr + b * C + c, mask=in_c, other=0.0)
    beta = tl.load(beta_ptr + c, mask=in_c, other=0.0).to(ACC)
    y = tl.fma(
        activate(x, ACTIVATION),
        tl.broadcast_to(scale[None, :], (BT, BC)),
        tl.broadcast_to(beta[None, :], (BT, BC)),
    )
    if HAS_LENGTHS:
        y = tl.where((t < n)[:, None], y, 0.0)
    tl.store(
        y_ptr + b * y_stride_b + t_row * y_stride_t + c_row * y_stride_c,
        y.to(y_ptr.dtype.element_ty),
        mask=(t < T)[:, None] & in_c[None, :],
    )


@jit
def backward_kernel(
    dy_ptr: tl.tensor, x_ptr: tl.tensor, scale_ptr: tl.tensor, ratio_ptr: tl.tensor,
    lengths_ptr: tl.tensor, dx_ptr: tl.tensor,
    T: tl.tensor, C: tl.tensor,
    dy_stride_b: tl.tensor, dy_stride_t: tl.tensor, dy_stride_c: tl.tensor,
    x_stride_b: tl.tensor, x_stride_t: tl.tensor, x_stride_c: tl.tensor,
    dx_stride_b: tl.tensor, dx_stride_t: tl.tensor, dx_stride_c: tl.tensor,
    ACTIVATION: tl.constexpr, HAS_LENGTHS: tl.constexpr, ACC: tl.constexpr, BT: tl.constexpr,
    BC: tl.constexpr,
) -> None:  # fmt: skip
    """dx = (dy * scale + a * ratio) * slope of the activation, zero past the length."""
    num_c = tl.cdiv(C, BC)
    num_t = tl.cdiv(T, BT)
    pid = tl.program_id(0)
    b = (pid // (num_c * num_t)).to(tl.int64)
    t = (pid // num_c) % num_t * BT + tl.arange(0, BT)
    c = pid % num_c * BC + tl.arange(0, BC)
    in_c = c < C
    n = T
    if HAS_LENGTHS:
        n = tl.minimum(tl.load(lengths_ptr + b).to(tl.int32), T)
    valid = (t < n)[:, None] & in_c[None, :]
    c_row = c[None, :].to(tl.int64)
    t_row = t[:, None].to(tl.int64)
    x = tl.load(
        x_ptr + b * x_stride_b + t_row * x_stride_t + c_row * x_stride_c, mask=valid, other=0.0
    ).to(ACC)
    dy = tl.load(
        dy_ptr + b * dy_stride_b + t_row * dy_stride_t + c_row * dy_stride_c, mask=valid, other=0.0
    ).to(ACC)
    scale = tl.load(scale_ptr + b * C + c, mask=in_c, other=0.0)
    ratio = tl.load(ratio_ptr + b * C + c, mask=in_c, other=0.0)
    dx = activate(x, ACTIVATION) * ratio[None, :]
    dx = tl.fma(dy, tl.broadcast_to(scale[None, :], (BT, BC)), dx)
    if ACTIVATION != "none":
        dx *= activation_gradient(x, ACTIVATION)
    tl.store(  # a masked load gave x = dy = 0, so dx = 0 past the length
        dx_ptr + b * dx_stride_b + t_row * dx_stride_t + c_row * dx_stride_c,
        dx.to(dx_ptr.dtype.element_ty),
        mask=(t < T)[:, None] & in_c[None, :],
    )


def _launch_sums(
    dy: Tensor | None, x: Tensor, activation: Activation, lengths: Tensor | None, tile: Tile
) -> Tensor:
    """Sums over time: of a^2 -> (B, 1, C), or with `dy` of dy * a and dy -> (B, 2, C)."""
    num_batch, num_time, num_channels = x.shape
    num_chunks = ceil_div(num_time, tile.block_t * tile.num_steps)
    num_sums = 1 if dy is None else 2
    acc = reference.compute_dtype(x)
    partial = x.new_empty((num_batch, num_chunks, num_sums, num_channels), dtype=acc)
    sums_kernel[(ceil_div(num_channels, tile.block_c) * num_chunks * num_batch,)](
        dy, x, lengths, partial, num_time, num_channels,
        *((0, 0, 0) if dy is None else dy.stride()), *x.stride(),
        BACKWARD=dy is not None, ACTIVATION=activation, HAS_LENGTHS=lengths is not None,
        ACC=dispatch.accumulator(x.dtype), BT=tile.block_t, NUM_STEPS=tile.num_steps,
        BC=tile.block_c, num_warps=tile.num_warps,
    )  # fmt: skip
    return partial.sum(1)


def launch_forward(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    activation: Activation,
    lengths: Tensor | None,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor]:
    """Both forward passes on `(B, T, C)`, any strides -> y and norms; `tile` overrides."""
    num_batch, num_time, num_channels = x.shape
    y = reference.empty_like_layout(x, num_time)
    lengths = None if lengths is None else lengths.contiguous()
    if y.numel() == 0:
        return y, x.new_zeros((num_batch, num_channels), dtype=reference.compute_dtype(x))
    tile = tile or shipped_tile(num_channels, reference.is_channels_first(x))
    num_programs = ceil_div(num_channels, tile.block_c) * ceil_div(num_time, tile.block_t)
    with dispatch.on_device(x):
        norm = _launch_sums(None, x, activation, lengths, tile)[:, 0].sqrt()
        forward_kernel[(num_programs * num_batch,)](
            x, reference.grn_scale(norm, gamma, eps), beta.contiguous(), lengths, y,
            num_time, num_channels, *x.stride(), *y.stride(),
            ACTIVATION=activation, HAS_LENGTHS=lengths is not None,
            ACC=dispatch.accumulator(x.dtype), BT=tile.block_t, BC=tile.block_c,
            num_warps=tile.num_warps,
        )  # fmt: skip
    return y, norm


def launch_backward(
    dy: Tensor,
    x: Tensor,
    gamma: Tensor,
    norm: Tensor,
    eps: float,
    activation: Activation,
    lengths: Tensor | None,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Both backward passes -> dx like `x`, dgamma and dbeta in the dtype of `gamma`."""
    num_batch, num_time, num_channels = x.shape
    dx = reference.empty_like_layout(x, num_time)
    lengths = None if lengths is None else lengths.contiguous()
    if dx.numel() == 0:
        return dx, torch.zeros_like(gamma), torch.zeros_like(gamma)
    tile = tile or shipped_tile(num_channels, reference.is_channels_first(x))
    num_programs = ceil_div(num_channels, tile.block_c) * ceil_div(num_time, tile.block_t)
    with dispatch.on_device(x):
        sums = _launch_sums(dy, x, activation, lengths, tile)
        gradients = reference.grn_gradients(norm, sums[:, 0], gamma, eps)
        backward_kernel[(num_programs * num_batch,)](
            dy, x, gradients.scale, gradients.ratio, lengths, dx,
            num_time, num_channels, *dy.stride(), *x.stride(), *dx.stride(),
            ACTIVATION=activation, HAS_LENGTHS=lengths is not None,
            ACC=dispatch.accumulator(x.dtype), BT=tile.block_t, BC=tile.block_c,
            num_warps=tile.num_warps,
        )  # fmt: skip
    return dx, gradients.dgamma.to(gamma.dtype), sums[:, 1].sum(0).to(gamma.dtype)


def _forward_fake(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    norm = x.new_empty((x.shape[0], x.shape[2]), dtype=reference.compute_dtype(x))
    return reference.empty_like_layout(x, x.shape[1]), norm


def _backward_fake(dy: Tensor, x: Tensor, gamma: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    dx = reference.empty_like_layout(x, x.shape[1])
    return dx, torch.empty_like(gamma), torch.empty_like(gamma)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, gamma, _, eps, activation, lengths = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(x, gamma, output[1], lengths)
    ctx.eps, ctx.activation = eps, activation


def _backward(ctx: Any, dy: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    x, gamma, norm, lengths = ctx.saved_tensors
    gradients = torch.ops.esi_fast.grn_backward(
        dy, x, gamma, norm, ctx.eps, ctx.activation, lengths
    )
    return (*gradients, None, None, None)


dispatch.register(
    "grn",
    "(Tensor x, Tensor gamma, Tensor beta, float eps, str activation, Tensor? lengths)"
    " -> (Tensor, Tensor)",
    reference=reference.grn_forward,
    launch=launch_forward,
    fake=_forward_fake,
)
dispatch.register(
    "grn_backward",
    "(Tensor dy, Tensor x, Tensor gamma, Tensor norm, float eps, str activation, Tensor? lengths)"
    " -> (Tensor, Tensor, Tensor)",
    reference=reference.grn_backward,
    launch=launch_backward,
    fake=_backward_fake,
)
dispatch.register_gradient("grn", _backward, _setup_context)


def grn(
    x: Tensor, gamma: Tensor, beta: Tensor, *, eps: float = 1e-6, lengths: Tensor | None = None
) -> Tensor:
    """Global response normalisation over time (ConvNeXt V2, Woo et al. 2023, section 3.2).

    Equivalent to:
        ```python
        norm = x.norm(dim=1, keepdim=True)
        y = gamma * (x * (norm / (norm.mean(-1, keepdim=True) + eps))) + beta + x
        ```
    but with float32 statistics for every dtype below float64, and the parameters in any floating
    dtype.

    Args:
        x: `(B, T, C)`; float16, bfloat16, float32 or float64, any strides. Autocast leaves its
            dtype as it is.
        gamma: `(C,)`.
        beta: `(C,)`.
        eps: added to the mean of the norms.
        lengths: `(B,)` int32 or int64: positions `t >= lengths[b]` count as absent, give zeros and
            get gradient zero.

    Returns:
        `(B, T, C)`, dtype of `x`.

    Raises:
        ValueError: shapes that do not fit.

    Determinism: bit for bit, forward and backward. Saved for backward: `x`, no copy, and `B * C`
        norms. The gradient
    of a dead channel (norm 0) through its norm is 0. Double backward raises NotImplementedError.
    The operator `torch.ops.esi_fast.grn` gives the norms as well.
    """
    reference.check_grn(x, gamma, beta, lengths)
    y: Tensor = torch.ops.esi_fast.grn(x, gamma, beta, eps, "none", lengths)[0]
    return y


def gelu_grn(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    eps: float = 1e-6,
    lengths: Tensor | None = None,
    approximate: Literal["none", "tanh"] = "none",
) -> Tensor:
    """GELU, then global response normalisation, with nothing stored between them.

    Equivalent to:
        ```python
        y = grn(F.gelu(x, approximate=approximate), gamma, beta, eps=eps, lengths=lengths)
        ```

    Args:
        x: `(B, T, C)`, as in `grn`.
        gamma: `(C,)`.
        beta: `(C,)`.
        eps: added to the mean of the norms.
        lengths: as in `grn`.
        approximate: "none" (error function) or "tanh", as in `F.gelu`.

    Returns:
        `(B, T, C)`, dtype of `x`.

    Raises:
        ValueError: shapes that do not fit, or an unknown `approximate`.

    Determinism and double backward as in `grn`. Saved for backward: `x` (before the GELU), no copy,
    and `B * C` norms.
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate={approximate!r} is unknown: use 'none' or 'tanh'")
    reference.check_grn(x, gamma, beta, lengths)
    activation = "gelu" if approximate == "none" else "gelu_tanh"
    y: Tensor = torch.ops.esi_fast.grn(x, gamma, beta, eps, activation, lengths)[0]
    return y
