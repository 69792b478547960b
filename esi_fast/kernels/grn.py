"""Global response normalisation, with or without a GELU before it.

With `a` the (activated) input: `norm = sqrt(sum over t of a^2)`, `s = 1 + gamma * norm / (mean over
c of norm + eps)`, `y = a * s + beta`. Two passes over the input forward (sums of squares; scale)
and two backward (column sums of `dy * a` and `dy`; the gradient). GELU's output is computed again
in every pass and never stored. The sums leave a partial row for each chunk of time, and are closed
by a sum in a fixed order: no atomics, results repeat bit for bit. What lies between the passes has
shape (B, C) and is one small kernel, which also closes the sums over the chunks.

The statistics are float32 (float64 for float64): the sum of squares overflows float16 from |a| > 7
on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from esi_fast.kernels import dispatch, reference, tuning
from esi_fast.kernels.dispatch import ceil_div, next_power_of_2
from esi_fast.kernels.grn_kernels import (
    backward_kernel,
    coefficients_kernel,
    forward_kernel,
    norms_kernel,
    sums_kernel,
)
from esi_fast.kernels.partial_sums import sum_partials
from esi_fast.kernels.reference import Activation
from esi_fast.kernels.tiles import Tile


def _half(x: Tensor) -> bool:
    return x.dtype in (torch.float16, torch.bfloat16)


def _launch_sums(
    dy: Tensor | None,
    x: Tensor,
    activation: Activation,
    lengths: Tensor | None,
    tile: Tile,
) -> Tensor:
    """Sums over the chunks of time: a^2 -> (B, chunks, 1, C); dy * a and dy -> (.., 2, C)."""
    num_batch, num_time, num_channels = x.shape
    num_chunks = ceil_div(num_time, tile.block_t)
    acc = reference.compute_dtype(x)
    partial = x.new_empty((num_batch, num_chunks, 1 if dy is None else 2, num_channels), dtype=acc)
    sums_kernel[(ceil_div(num_channels, tile.block_c) * num_chunks * num_batch,)](
        dy, x, lengths, partial, num_time, num_channels,
        *((0, 0, 0) if dy is None else dy.stride()), *x.stride(),
        BACKWARD=dy is not None, ACTIVATION=activation, HAS_LENGTHS=lengths is not None,
        ACC=dispatch.accumulator(x.dtype), HALF=_half(x), BT=tile.block_t,
        BC=tile.block_c, **dispatch.options(tile.num_warps),
    )  # fmt: skip
    return partial


def _sums_tile(
    dy: Tensor | None, x: Tensor, activation: Activation, lengths: Tensor | None
) -> Tile:
    return tuning.choose(
        "grn_sums" if dy is None else "grn_backward_sums", x, reference.is_channels_first(x), 1,
        lambda tile: _launch_sums(dy, x, activation, lengths, tile),
    )  # fmt: skip


def record_block(num_channels: int) -> dict[str, Any]:
    """Configuration of the kernels that have all channels of a record in one program."""
    block_c = min(2048, max(16, next_power_of_2(num_channels)))
    return {
        "BC": block_c,
        "BR": max(4, min(16, 8192 // block_c)),
        **dispatch.options(num_warps=8),
    }


def launch_forward(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    activation: Activation,
    lengths: Tensor | None,
    sums_tile: Tile | None = None,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor]:
    """Both forward passes on `(B, T, C)`, any strides -> y and norms; tiles override the table."""
    num_batch, num_time, num_channels = x.shape
    y = reference.empty_like_layout(x, num_time)
    lengths = None if lengths is None else lengths.contiguous()
    acc = reference.compute_dtype(x)
    if y.numel() == 0:
        return y, x.new_zeros((num_batch, num_channels), dtype=acc)
    sums_tile = sums_tile or _sums_tile(None, x, activation, lengths)
    tile = tile or tuning.choose(
        "grn", x, reference.is_channels_first(x), 1,
        lambda tile: launch_forward(x, gamma, beta, eps, activation, lengths, sums_tile, tile),
    )  # fmt: skip
    num_programs = ceil_div(num_channels, tile.block_c) * ceil_div(num_time, tile.block_t)
    norm, scale = (x.new_empty((num_batch, num_channels), dtype=acc) for _ in range(2))
    accumulate = {"ACC": dispatch.accumulator(x.dtype)}
    with dispatch.on_device(x):
        partial = _launch_sums(None, x, activation, lengths, sums_tile)
        norms_kernel[(num_batch,)](
            partial, gamma.contiguous(), norm, scale, partial.shape[1], num_channels,
            EPS=eps, **accumulate, **record_block(num_channels),
        )  # fmt: skip
        forward_kernel[(num_programs * num_batch,)](
            x, scale, beta.contiguous(), lengths, y,
            num_time, num_channels, *x.stride(), *y.stride(),
            ACTIVATION=activation, HAS_LENGTHS=lengths is not None, **accumulate, HALF=_half(x),
            BT=tile.block_t, BC=tile.block_c, **dispatch.options(tile.num_warps),
        )  # fmt: skip
    return y, norm


def launch_backward(
    dy: Tensor,
    x: Tensor,
    gamma: Tensor,
    beta_dtype: torch.dtype,
    norm: Tensor,
    eps: float,
    activation: Activation,
    lengths: Tensor | None,
    sums_tile: Tile | None = None,
    tile: Tile | None = None,
    beta: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Both backward passes -> dx like `x`, dgamma like `gamma`, dbeta.

    Where `beta` is given, for the layers around: y, like `x`, made again on the way, and the sums
    of dx (C,); otherwise two empty tensors.
    """
    num_batch, num_time, num_channels = x.shape
    dx = reference.empty_like_layout(x, num_time)
    y = x.new_empty(0) if beta is None else reference.empty_like_layout(x, num_time)
    lengths = None if lengths is None else lengths.contiguous()
    if dx.numel() == 0:
        dgamma, dbeta = torch.zeros_like(gamma), torch.zeros_like(gamma, dtype=beta_dtype)
        return dx, dgamma, dbeta, y, torch.zeros_like(gamma if beta is not None else y)
    sums_tile = sums_tile or _sums_tile(dy, x, activation, lengths)
    tile = tile or tuning.choose(
        "grn_backward", x, reference.is_channels_first(x), 1,
        lambda tile: launch_backward(
            dy, x, gamma, beta_dtype, norm, eps, activation, lengths, sums_tile, tile, beta
        ),
    )  # fmt: skip
    acc = reference.compute_dtype(x)
    scale, ratio = x.new_empty((2, num_batch, num_channels), dtype=acc)
    rows = x.new_empty((num_batch, 2, num_channels), dtype=acc)
    num_tiles = num_batch * ceil_div(num_time, tile.block_t)
    sums = x.new_empty((num_tiles, num_channels) if beta is not None else 0, dtype=acc)
    accumulate = {"ACC": dispatch.accumulator(x.dtype)}
    with dispatch.on_device(x):
        partial = _launch_sums(dy, x, activation, lengths, sums_tile)
        coefficients_kernel[(num_batch,)](
            partial, gamma.contiguous(), norm, scale, ratio, rows,
            partial.shape[1], num_channels, EPS=eps, **accumulate, **record_block(num_channels),
        )  # fmt: skip
        backward_kernel[(ceil_div(num_channels, tile.block_c) * num_tiles,)](
            dy, x, scale, ratio, None if beta is None else beta.contiguous(), lengths, dx, y,
            sums,
            num_time, num_channels, *dy.stride(), *x.stride(), *dx.stride(),
            ACTIVATION=activation, HAS_LENGTHS=lengths is not None, FOR_LAYERS=beta is not None,
            **accumulate, HALF=_half(x), BT=tile.block_t, BC=tile.block_c,
            **dispatch.options(tile.num_warps),
        )  # fmt: skip
    dgamma, dbeta = sum_partials(rows, gamma.dtype, beta_dtype)
    return dx, dgamma.squeeze(1), dbeta, y, sums if beta is None else sums.sum(0)


def _forward_fake(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    norm = x.new_empty((x.shape[0], x.shape[2]), dtype=reference.compute_dtype(x))
    return reference.empty_like_layout(x, x.shape[1]), norm


def _backward_fake(
    dy: Tensor, x: Tensor, gamma: Tensor, beta_dtype: torch.dtype, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    dx = reference.empty_like_layout(x, x.shape[1])
    return dx, torch.empty_like(gamma), torch.empty_like(gamma, dtype=beta_dtype)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, gamma, beta, eps, activation, lengths = inputs
    ctx.set_materialize_grads(False)  # of the outputs that have none, as large as they are
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(x, gamma, output[1], lengths)
    ctx.beta_dtype, ctx.eps, ctx.activation = beta.dtype, eps, activation


def _backward(ctx: Any, dy: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return (None,) * 6
    x, gamma, norm, lengths = ctx.saved_tensors
    gradients = torch.ops.esi_fast.grn_backward(
        dy, x, gamma, ctx.beta_dtype, norm, ctx.eps, ctx.activation, lengths
    )
    return (*gradients, None, None, None)


dispatch.register(
    "grn",
    "(Tensor x, Tensor gamma, Tensor beta, float eps, str activation, Tensor? lengths)"
    " -> (Tensor, Tensor)",
    reference=reference.grn_forward,
    launch=launch_forward,
    fake=_forward_fake,
    check=reference.check_grn,
)
dispatch.register(
    "grn_backward",
    "(Tensor dy, Tensor x, Tensor gamma, ScalarType beta_dtype, Tensor norm, float eps,"
    " str activation, Tensor? lengths) -> (Tensor, Tensor, Tensor)",
    reference=reference.grn_backward,
    launch=lambda *args: launch_backward(*args)[:3],
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
        TypeError: an argument of another type.
        ValueError: shapes, dtypes or devices that do not fit.

    Determinism: bit for bit, forward and backward. Saved for backward: `x`, no copy, and `B * C`
    norms. The gradient of a dead channel (norm 0) through its norm is 0. Double backward, forward
    mode and gradients of `torch.func` raise: `reference` can do them. The operator
    `torch.ops.esi_fast.grn` gives the norms as well.
    """
    y: Tensor = dispatch.call("grn", x, gamma, beta, eps, "none", lengths)[0]
    return y


def gelu_grn(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    eps: float = 1e-6,
    lengths: Tensor | None = None,
    approximate: reference.Approximate = "none",
) -> Tensor:
    """GELU, then global response normalisation, with nothing stored between them.

    As operator `torch.ops.esi_fast.grn` with `activation="gelu"` or "gelu_tanh"; as module
    `kernels.nn.GRN(channels, activation="gelu")`.

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
        TypeError: an argument of another type.
        ValueError: shapes, dtypes or devices that do not fit, or an unknown `approximate`.

    Determinism and double backward as in `grn`. Saved for backward: `x` (before the GELU), no copy,
    and `B * C` norms.
    """
    activation = reference.activation_of(approximate)
    y: Tensor = dispatch.call("grn", x, gamma, beta, eps, activation, lengths)[0]
    return y
