"""Global response normalisation over time (Woo et al. 2023, "ConvNeXt V2"), alone and of GELU."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from esi_fast.kernels.reference.layout import (
    check_lengths,
    check_parameter,
    check_signal,
    compute_dtype,
    dense,
    is_channels_first,
    mask_time,
)

Activation = Literal["none", "gelu", "gelu_tanh"]
Approximate = Literal["none", "tanh"]


def activation_of(approximate: Approximate) -> Activation:
    """The GELU that `F.gelu` means by this word; raises ValueError for any other."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate={approximate!r} is unknown: use 'none' or 'tanh'")
    return "gelu" if approximate == "none" else "gelu_tanh"


def check_activation(activation: str) -> None:
    """Raises ValueError for an unknown activation."""
    if activation not in get_args(Activation):
        raise ValueError(f"activation={activation!r} is unknown: use {get_args(Activation)}")


def check_grn(
    x_BTC: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    activation: str,
    lengths: Tensor | None,
) -> None:
    """Raises ValueError unless `x_BTC` is a floating `(B, T, C)` and `gamma`, `beta` are `(C,)`."""
    check_signal(x_BTC)
    for name, parameter in (("gamma", gamma), ("beta", beta)):
        check_parameter(x_BTC, name, parameter, tuple(x_BTC.shape[2:]))
    check_activation(activation)
    check_lengths(x_BTC, lengths)


def activate(x: Tensor, activation: Activation) -> Tensor:
    """`x`, or its GELU by the error function or by the tanh approximation."""
    if activation == "none":
        return x
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")


def grn_scale(norm_BC: Tensor, gamma: Tensor, eps: float) -> Tensor:
    """`s = 1 + gamma * norm / (mean over channels of norm + eps)`, (B, C): `y = a * s + beta`."""
    unit = norm_BC / (norm_BC.mean(-1, keepdim=True) + eps)
    return 1 + gamma.to(norm_BC.dtype) * unit


class GRNGradients(NamedTuple):
    """What the second pass of the backward needs, `da = dy * scale + a * ratio`, and dgamma."""

    scale: Tensor
    ratio: Tensor
    dgamma: Tensor


def grn_gradients(norm_BC: Tensor, sum_dy_a_BC: Tensor, gamma: Tensor, eps: float) -> GRNGradients:
    """From the sums over time of `dy * a` to the coefficients; all (B, C) but dgamma, (C,).

    A dead channel (norm 0) has ratio 0, the convention of torch's own norm.
    """
    gamma = gamma.to(norm_BC.dtype)
    mean = norm_BC.mean(-1, keepdim=True) + eps
    unit = norm_BC / mean
    dunit = gamma * sum_dy_a_BC
    through_mean = (dunit * unit).mean(-1, keepdim=True)
    ratio = torch.where(norm_BC > 0, (dunit - through_mean) / mean / norm_BC, 0.0)
    return GRNGradients(1 + gamma * unit, ratio, (sum_dy_a_BC * unit).sum(0))


def grn_forward(
    x_BTC: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    activation: Activation,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """GRN of the activated input -> `y` like `x_BTC`, and the norms (B, C) for the backward."""
    a = activate(mask_time(x_BTC, lengths).to(compute_dtype(x_BTC)), activation)
    norm = (a * a).sum(1).sqrt()  # 5 to 10 times as fast on a CPU as `vector_norm`
    return _normalized(x_BTC, a, norm, gamma, beta, eps, lengths), norm


def _normalized(
    x_BTC: Tensor,
    a_BTC: Tensor,
    norm_BC: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    lengths: Tensor | None,
) -> Tensor:
    """The output for an input, its activation and its norms."""
    scale = grn_scale(norm_BC, gamma, eps).unsqueeze(1)
    y = torch.addcmul(beta.to(a_BTC.dtype), a_BTC, scale)
    return dense(mask_time(y, lengths).to(x_BTC.dtype), is_channels_first(x_BTC))


def grn_backward(
    dy_BTC: Tensor,
    x_BTC: Tensor,
    gamma: Tensor,
    beta_dtype: torch.dtype,
    norm_BC: Tensor,
    eps: float,
    activation: Activation,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x (like `x_BTC`), gamma and beta."""
    backward = grn_backward_with_output(
        dy_BTC, x_BTC, gamma, beta_dtype, None, norm_BC, eps, activation, lengths
    )
    return backward[:3]


def grn_backward_with_output(
    dy_BTC: Tensor,
    x_BTC: Tensor,
    gamma: Tensor,
    beta_dtype: torch.dtype,
    beta: Tensor | None,
    norm_BC: Tensor,
    eps: float,
    activation: Activation,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of x, gamma and beta, and with `beta` the output once more, from one GELU.

    To keep the output instead would double what is kept for the backward.
    """
    acc, channels_first = compute_dtype(x_BTC), is_channels_first(x_BTC)
    x = mask_time(x_BTC, lengths).to(acc)
    dy = mask_time(dy_BTC, lengths).to(acc)
    a = activate(x, activation)
    product = dy * a
    gradients = grn_gradients(norm_BC, product.sum(1), gamma, eps)
    scale = gradients.scale.unsqueeze(1)
    dx = torch.mul(a, gradients.ratio.unsqueeze(1), out=product).add_(dy * scale)
    y = None
    if beta is not None:
        y = mask_time(torch.addcmul(beta.to(acc), a, scale), lengths).to(x_BTC.dtype)
    if activation != "none":
        approximate = "tanh" if activation == "gelu_tanh" else "none"
        dx = torch.ops.aten.gelu_backward(dx, x, approximate=approximate)
    dx = dense(dx.to(x_BTC.dtype), channels_first)
    return dx, gradients.dgamma.to(gamma.dtype), dy.sum((0, 1)).to(beta_dtype), y


def grn(
    x: Tensor, gamma: Tensor, beta: Tensor, *, eps: float = 1e-6, lengths: Tensor | None = None
) -> Tensor:
    """The specification of `esi_fast.kernels.grn`, with the same arguments."""
    return _specification(x, gamma, beta, eps, "none", lengths)


def _specification(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    activation: Activation,
    lengths: Tensor | None,
) -> Tensor:
    check_grn(x, gamma, beta, eps, activation, lengths)
    a = activate(mask_time(x, lengths).to(compute_dtype(x)), activation)
    norm = torch.linalg.vector_norm(a, dim=1)  # its gradient at 0 is 0, a root's is none
    return _normalized(x, a, norm, gamma, beta, eps, lengths)


def gelu_grn(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    eps: float = 1e-6,
    lengths: Tensor | None = None,
    approximate: Approximate = "none",
) -> Tensor:
    """The specification of `esi_fast.kernels.gelu_grn`, with the same arguments."""
    return _specification(x, gamma, beta, eps, activation_of(approximate), lengths)
