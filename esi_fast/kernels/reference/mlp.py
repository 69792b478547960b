"""The MLP of a ConvNeXt-V2 block: linear, GELU, GRN, linear."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from esi_fast.kernels.reference.layout import (
    check_lengths,
    check_parameter,
    check_signal,
    mask_time,
)
from esi_fast.kernels.reference.normalization import (
    Activation,
    Approximate,
    activation_of,
    check_activation,
    gelu_grn,
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
    eps: float,
    activation: str,
    lengths: Tensor | None,
) -> None:
    """Raises ValueError unless the arguments fit together."""
    check_signal(x_BTC)
    num_hidden, num_out = weight1.shape[:1].numel(), weight2.shape[:1].numel()
    for name, tensor, shape in (
        ("weight1", weight1, (num_hidden, x_BTC.shape[2])),
        ("bias1", bias1, (num_hidden,)),
        ("gamma", gamma, (num_hidden,)),
        ("beta", beta, (num_hidden,)),
        ("weight2", weight2, (num_out, num_hidden)),
        ("bias2", bias2, (num_out,)),
    ):
        check_parameter(x_BTC, name, tensor, shape, like_x=name[-1].isdigit())
    check_activation(activation)
    check_lengths(x_BTC, lengths)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if x.dtype in (torch.float32, torch.float64):
        return F.linear(x, weight).add_(bias)  # on a CPU faster than with the bias inside
    return F.linear(x, weight, bias)  # rounded once


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
    hidden = _linear(mask_time(x_BTC, lengths), weight1, bias1)
    y, norm = grn_forward(hidden, gamma, beta, eps, activation, lengths)
    return mask_time(_linear(y, weight2, bias2), lengths), hidden, norm


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
    need: Sequence[bool],
) -> tuple[Tensor, ...]:
    """Gradients of x, weight1, bias1, gamma, beta, weight2, bias2; empty where not needed."""
    dout, x_BTC = mask_time(dout, lengths), mask_time(x_BTC, lengths)
    dy = torch.matmul(dout, weight2)
    dhidden, dgamma, dbeta, y = grn_backward_with_output(
        dy, hidden, gamma, beta.dtype, beta if need[5] else None, norm, eps, activation, lengths
    )
    dbias1 = dhidden.sum((0, 1)) if need[2] else dhidden.new_empty(0)
    return mlp_gradients(dout, x_BTC, weight1, y, dhidden, dbias1, dgamma, dbeta, need)


def mlp_gradients(
    dout: Tensor,
    x_BTC: Tensor,
    weight1: Tensor,
    y: Tensor | None,
    dhidden: Tensor,
    dbias1: Tensor,
    dgamma: Tensor,
    dbeta: Tensor,
    need: Sequence[bool],
) -> tuple[Tensor, ...]:
    """The matrix products that end the backward, and all gradients in the order of the inputs."""
    dx = torch.matmul(dhidden, weight1) if need[0] else dhidden.new_empty(0)
    dhidden, dout = dhidden.flatten(0, 1), dout.flatten(0, 1)
    dweight1 = dhidden.t() @ x_BTC.flatten(0, 1) if need[1] else dhidden.new_empty(0)
    dweight2 = dout.t() @ y.flatten(0, 1) if need[5] and y is not None else dout.new_empty(0)
    dbias2 = dout.sum(0) if need[6] else dout.new_empty(0)
    return dx, dweight1, dbias1, dgamma, dbeta, dweight2, dbias2


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
    approximate: Approximate = "none",
) -> Tensor:
    """The specification of `esi_fast.kernels.gelu_grn_mlp`, with the same arguments."""
    activation = activation_of(approximate)
    check_gelu_grn_mlp(x, weight1, bias1, gamma, beta, weight2, bias2, eps, activation, lengths)
    hidden = F.linear(mask_time(x, lengths), weight1, bias1)
    y = gelu_grn(hidden, gamma, beta, eps=eps, lengths=lengths, approximate=approximate)
    return mask_time(F.linear(y, weight2, bias2), lengths)
