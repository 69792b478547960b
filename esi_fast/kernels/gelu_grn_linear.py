"""GELU, GRN and the linear layer behind them, whose input is not kept for the backward.

A ConvNeXt V2 block's largest tensors are four times as wide as the block. Of them only the input
of the GELU is saved; the backward makes the linear layer's input again in the pass that makes dx.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from esi_fast.kernels import dispatch, reference
from esi_fast.kernels.grn import launch_backward as launch_grn_backward
from esi_fast.kernels.grn import launch_forward as launch_grn_forward
from esi_fast.kernels.reference import Activation


def launch_forward(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    activation: Activation,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`(B, T, C)` -> `(B, T, D)` and the norms (B, C)."""
    y, norm = launch_grn_forward(x, gamma, beta, eps, activation, lengths)
    return F.linear(y, weight, bias), norm


def launch_backward(
    dout: Tensor,
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight: Tensor,
    norm: Tensor,
    eps: float,
    activation: Activation,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, gamma, beta, weight and bias."""
    dy = torch.matmul(dout, weight)
    dx, dgamma, dbeta, y = launch_grn_backward(
        dy, x, gamma, norm, eps, activation, lengths, beta=beta
    )
    rows = dout.reshape(-1, dout.shape[2])
    dweight = rows.t() @ y.reshape(-1, y.shape[2])
    return dx, dgamma, dbeta, dweight, rows.sum(0)


def _forward_fake(
    x: Tensor, gamma: Tensor, beta: Tensor, weight: Tensor, *_: Any
) -> tuple[Tensor, Tensor]:
    norm = x.new_empty((x.shape[0], x.shape[2]), dtype=reference.compute_dtype(x))
    return x.new_empty((*x.shape[:2], weight.shape[0])), norm


def _backward_fake(
    dout: Tensor, x: Tensor, gamma: Tensor, beta: Tensor, weight: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dx = reference.empty_like_layout(x, x.shape[1])
    small = torch.empty_like(gamma), torch.empty_like(beta), weight.new_empty(weight.shape)
    return dx, *small, dout.new_empty(dout.shape[2])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, gamma, beta, weight, bias, eps, activation, lengths = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(x, gamma, beta, weight, output[1], lengths)
    ctx.eps, ctx.activation, ctx.has_bias = eps, activation, bias is not None


def _backward(ctx: Any, dout: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    *tensors, lengths = ctx.saved_tensors
    *gradients, dbias = torch.ops.esi_fast.gelu_grn_linear_backward(
        dout, *tensors, ctx.eps, ctx.activation, lengths
    )
    return (*gradients, dbias if ctx.has_bias else None, None, None, None)


dispatch.register(
    "gelu_grn_linear",
    "(Tensor x, Tensor gamma, Tensor beta, Tensor weight, Tensor? bias, float eps, str activation,"
    " Tensor? lengths) -> (Tensor, Tensor)",
    reference=reference.gelu_grn_linear_forward,
    launch=launch_forward,
    fake=_forward_fake,
)
dispatch.register(
    "gelu_grn_linear_backward",
    "(Tensor dout, Tensor x, Tensor gamma, Tensor beta, Tensor weight, Tensor norm, float eps,"
    " str activation, Tensor? lengths) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=reference.gelu_grn_linear_backward,
    launch=launch_backward,
    fake=_backward_fake,
)
dispatch.register_gradient("gelu_grn_linear", _backward, _setup_context)


def gelu_grn_linear(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-6,
    lengths: Tensor | None = None,
    approximate: Literal["none", "tanh"] = "none",
) -> Tensor:
    """GELU, GRN and a linear layer, keeping for the backward nothing that is as wide as `x` but it.

    Equivalent to:
        ```python
        y = F.linear(gelu_grn(x, gamma, beta, eps=eps, lengths=lengths), weight, bias)
        ```
    The matrix products are those of `F.linear`, whose input is made again in the backward.

    Args:
        x: `(B, T, C)`, as in `grn`; autocast casts it, `weight` and `bias`, as it does for
            `F.linear`.
        gamma: `(C,)`.
        beta: `(C,)`.
        weight: `(D, C)`, dtype of `x`.
        bias: `(D,)`, dtype of `x`, or None. It is added past the lengths as well.
        eps: as in `grn`.
        lengths: as in `grn`.
        approximate: "none" (error function) or "tanh", as in `F.gelu`.

    Returns:
        `(B, T, D)`, dtype of (the cast) `x`.

    Raises:
        ValueError: shapes that do not fit, or an unknown `approximate`.

    Determinism: that of the matrix products. Saved for backward: `x` and the parameters, no copy,
    and `B * C` norms. Double backward raises NotImplementedError.
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate={approximate!r} is unknown: use 'none' or 'tanh'")
    reference.check_grn(x, gamma, beta, lengths)
    if weight.ndim != 2 or weight.shape[1] != x.shape[2]:
        raise ValueError(f"weight must be (D, {x.shape[2]}), got {tuple(weight.shape)}")
    cast = reference.autocast_dtype(x)
    if cast is not None and x.dtype != torch.float64:
        x, weight = x.to(cast), weight.to(cast)
        bias = None if bias is None else bias.to(cast)
    activation = "gelu" if approximate == "none" else "gelu_tanh"
    out: Tensor = torch.ops.esi_fast.gelu_grn_linear(
        x, gamma, beta, weight, bias, eps, activation, lengths
    )[0]
    return out
