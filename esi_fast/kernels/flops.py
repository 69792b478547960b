"""What `torch.utils.flop_counter.FlopCounterMode` counts for the operators.

As for torch's own: two operations for each product and its addition, in convolutions and matrix
products; elementwise work is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

Shape = Sequence[int]


def _conv(x: Shape, weight: Shape, *_: Any, out_shape: Shape, **__: Any) -> int:
    return 2 * math.prod(out_shape) * weight[2]


def _conv_backward(
    dy: Shape, x: Shape, weight: Shape, bias_dtype: Any, padding: int, lengths: Any,
    need: Sequence[bool], **_: Any,
) -> int:  # fmt: skip
    return 2 * math.prod(dy) * weight[2] * sum(need[:2])


def _conv_layer_norm(x: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    return 2 * math.prod(x) * weight[2]


def _conv_layer_norm_backward(dy: Shape, x: Shape, weight: Shape, *rest: Any, **_: Any) -> int:
    need = rest[-1]
    return 2 * math.prod(x) * weight[2] * (1 + sum(need[:2]))  # the convolution once more


def _mlp(
    x: Shape, weight1: Shape, bias1: Shape, gamma: Shape, beta: Shape, weight2: Shape,
    *_: Any, **__: Any,
) -> int:  # fmt: skip
    return 2 * x[0] * x[1] * (math.prod(weight1) + math.prod(weight2))


def _mlp_backward(
    dout: Shape, x: Shape, weight1: Shape, gamma: Shape, beta: Shape, weight2: Shape,
    *rest: Any, **_: Any,
) -> int:  # fmt: skip
    need = rest[-1]
    first, second = math.prod(weight1), math.prod(weight2)
    return 2 * x[0] * x[1] * (first * (need[0] + need[1]) + second * (1 + need[5]))


FORMULAS: dict[str, Callable[..., int]] = {
    "depthwise_conv1d": _conv,
    "depthwise_conv1d_backward": _conv_backward,
    "depthwise_conv1d_layer_norm": _conv_layer_norm,
    "depthwise_conv1d_layer_norm_backward": _conv_layer_norm_backward,
    "gelu_grn_mlp": _mlp,
    "gelu_grn_mlp_backward": _mlp_backward,
}


def register_flop_formulas() -> None:
    """Tells torch's counter of the operators, all of which must be defined."""
    for name, formula in FORMULAS.items():
        register: Any = register_flop_formula(getattr(torch.ops.esi_fast, name))
        register(formula)
