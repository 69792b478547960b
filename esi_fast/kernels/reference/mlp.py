"""The MLP of a ConvNeXt-V2 block: linear, GELU, GRN, linear."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from esi_fast.kernels.reference.layout import check_lengths, mask_time
from esi_fast.kernels.reference.normalization import (
    Activation,
    grn_backward_with_output,
    grn_forward,
)


def check_gelu_grn_mlp(
    x_BTC: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    lengths: Tensor | None,
) -> None:
    """Raises ValueError unless the arguments fit together."""
    if x_BTC.ndim != 3 or not x_BTC.is_floating_point():
        raise ValueError(
            f"x must be a floating (B, T, C), got {x_BTC.dtype} of shape {tuple(x_BTC.shape)}"
        )
    num_hidden, num_out = weight1.shape[0], weight2.shape[0]
    for name, tensor, shape in (
        ("weight1", weight1, (num_hidden, x_BTC.shape[2])),
        ("bias1", bias1, (num_hidden,)),
        ("gamma", gamma, (num_hidden,)),
        ("beta", beta, (num_hidden,)),
        ("weight2", weight2, (num_out, num_hidden)),
        ("bias2", bias2, (num_out,)),
    ):
        if tensor.shape != shape:
            raise ValueError(f"{name} must be {shape}, got {tuple(tensor.shape)}")
    check_lengths(x_BTC, lengths)


def gelu_grn_mlp_forward(
    x_BTC: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    eps: float,
    activation: Activation,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Both layers -> (B, T, D); the hidden layer (B, T, H) before the activation; norms (B, H)."""
    # A bias after the product: on a CPU faster than in it.
    hidden = F.linear(mask_time(x_BTC, lengths), weight1).add_(bias1)
    y, norm = grn_forward(hidden, gamma, beta, eps, activation, lengths)
    return mask_time(F.linear(y, weight2).add_(bias2), lengths), hidden, norm


def gelu_grn_mlp_backward(
    dout: Tensor,
    x_BTC: Tensor,
    weight1: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight2: Tensor,
    hidden: Tensor,
    norm: Tensor,
    eps: float,
    activation: Activation,
    lengths: Tensor | None,
) -> tuple[Tensor, ...]:
    """Gradients of x, weight1, bias1, gamma, beta, weight2, bias2."""
    dout, x_BTC = mask_time(dout, lengths), mask_time(x_BTC, lengths)
    dy = torch.matmul(dout, weight2)
    dhidden, dgamma, dbeta, y = grn_backward_with_output(
        dy, hidden, gamma, beta, norm, eps, activation, lengths
    )
    assert y is not None
    dbias1 = dhidden.sum((0, 1))
    return mlp_gradients(dout, x_BTC, weight1, y, dhidden, dbias1, dgamma, dbeta)


def mlp_gradients(
    dout: Tensor,
    x_BTC: Tensor,
    weight1: Tensor,
    y: Tensor,
    dhidden: Tensor,
    dbias1: Tensor,
    dgamma: Tensor,
    dbeta: Tensor,
) -> tuple[Tensor, ...]:
    """The matrix products that end the backward, and all gradients in the order of the inputs."""
    dx = torch.matmul(dhidden, weight1)
    dhidden, dout = dhidden.flatten(0, 1), dout.flatten(0, 1)
    dweight1 = dhidden.t() @ x_BTC.flatten(0, 1)
    dweight2 = dout.t() @ y.flatten(0, 1)
    return dx, dweight1, dbias1, dgamma, dbeta, dweight2, dout.sum(0)


def gelu_grn_mlp(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    *,
    eps: float = 1e-6,
    lengths: Tensor | None = None,
    approximate: Literal["none", "tanh"] = "none",
) -> Tensor:
    """The specification of `esi_fast.kernels.gelu_grn_mlp`, with the same arguments."""
    check_gelu_grn_mlp(x, weight1, bias1, gamma, beta, weight2, bias2, lengths)
    activation: Activation = "gelu_tanh" if approximate == "tanh" else "gelu"
    return gelu_grn_mlp_forward(
        x, weight1, bias1, gamma, beta, weight2, bias2, eps, activation, lengths
    )[0]
