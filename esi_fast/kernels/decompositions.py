"""The operators in PyTorch's own, for what takes no others: ONNX and other runtimes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from esi_fast.kernels import reference


def decompositions() -> dict[Any, Callable[..., Any]]:
    """The operators' forward passes in PyTorch's operators, for an exported program.

    Example:
        ```python
        program = torch.export.export(model.eval(), (x,))
        program = program.run_decompositions(kernels.decompositions())
        torch.onnx.export(program)
        ```
    """
    operators = torch.ops.esi_fast
    return {
        operators.depthwise_conv1d.default: reference.depthwise_conv1d_forward,
        operators.depthwise_conv1d_layer_norm.default: (
            reference.depthwise_conv1d_layer_norm_forward
        ),
        operators.grn.default: reference.grn_forward,
        operators.gelu_grn_mlp.default: _gelu_grn_mlp,
    }


def _gelu_grn_mlp(
    x: Tensor, weight1: Tensor, bias1: Tensor, gamma: Tensor, beta: Tensor, weight2: Tensor,
    bias2: Tensor, eps: float, activation: reference.Activation, lengths: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`reference.gelu_grn_mlp_forward` but for its additions in place, which a program has not."""
    hidden = F.linear(reference.mask_time(x, lengths), weight1, bias1)
    y, norm = reference.grn_forward(hidden, gamma, beta, eps, activation, lengths)
    return reference.mask_time(F.linear(y, weight2, bias2), lengths), hidden, norm
