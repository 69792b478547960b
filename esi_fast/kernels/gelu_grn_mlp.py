"""The pointwise half of a ConvNeXt V2 block: two linear layers with GELU and GRN between them.

Its largest tensors are four times as wide as the block. Of them only the input of the GELU is kept:
the pass of the backward that makes its gradient also makes the second layer's input again, and the
sums that are the gradient of the first layer's bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from esi_fast.kernels import dispatch, reference
from esi_fast.kernels.grn import launch_backward as launch_grn_backward
from esi_fast.kernels.grn import launch_forward as launch_grn_forward
from esi_fast.kernels.reference import Activation


def launch_forward(
    x: Tensor,
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
    """`(B, T, C)` -> `(B, T, D)`, the hidden layer `(B, T, H)` before the GELU, norms (B, H)."""
    hidden = F.linear(x, weight1, bias1)
    y, norm = launch_grn_forward(hidden, gamma, beta, eps, activation, lengths)
    return reference.mask_time(F.linear(y, weight2, bias2), lengths), hidden, norm


def launch_backward(
    dout: Tensor,
    x: Tensor,
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
    dout, x = reference.mask_time(dout, lengths), reference.mask_time(x, lengths)
    dy = torch.matmul(dout, weight2)
    for_layers = need[2] or need[5]
    dhidden, dgamma, dbeta, y, dbias1 = launch_grn_backward(
        dy, hidden, gamma, beta.dtype, norm, eps, activation, lengths,
        beta=beta if for_layers else None,
    )  # fmt: skip
    dbias1 = dbias1.to(weight1.dtype) if need[2] else weight1.new_empty(0)
    return reference.mlp_gradients(dout, x, weight1, y, dhidden, dbias1, dgamma, dbeta, need)


def _forward_fake(
    x: Tensor, weight1: Tensor, bias1: Tensor, gamma: Tensor, beta: Tensor, weight2: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    num_hidden = weight1.shape[0]
    norm = x.new_empty((x.shape[0], num_hidden), dtype=reference.compute_dtype(x))
    hidden = x.new_empty((*x.shape[:2], num_hidden))
    return x.new_empty((*x.shape[:2], weight2.shape[0])), hidden, norm


def _backward_fake(
    dout: Tensor,
    x: Tensor,
    weight1: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight2: Tensor,
    *rest: Any,
) -> tuple[Tensor, ...]:
    need = rest[-1]
    num_hidden, num_out = weight1.shape[0], weight2.shape[0]
    return (
        x.new_empty(x.shape if need[0] else 0),
        weight1.new_empty(weight1.shape if need[1] else 0),
        weight1.new_empty(num_hidden if need[2] else 0),
        torch.empty_like(gamma),
        torch.empty_like(beta),
        weight2.new_empty(weight2.shape if need[5] else 0),
        weight2.new_empty(num_out if need[6] else 0),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight1, _, gamma, beta, weight2, _, eps, activation, lengths = inputs
    _, hidden, norm = output
    ctx.set_materialize_grads(False)  # of the outputs that have none, as large as they are
    ctx.mark_non_differentiable(hidden, norm)
    ctx.save_for_backward(x, weight1, gamma, beta, weight2, hidden, norm, lengths)
    ctx.eps, ctx.activation = eps, activation


def _backward(ctx: Any, dout: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if dout is None:
        return (None,) * 10
    *tensors, lengths = ctx.saved_tensors
    need = list(ctx.needs_input_grad[:7])
    gradients = torch.ops.esi_fast.gelu_grn_mlp_backward(
        dout, *tensors, ctx.eps, ctx.activation, lengths, need
    )
    kept = [g if needed else None for g, needed in zip(gradients, need, strict=True)]
    return (*kept, None, None, None)


dispatch.register(
    "gelu_grn_mlp",
    "(Tensor x, Tensor weight1, Tensor bias1, Tensor gamma, Tensor beta, Tensor weight2,"
    " Tensor bias2, float eps, str activation, Tensor? lengths) -> (Tensor, Tensor, Tensor)",
    reference=reference.gelu_grn_mlp_forward,
    launch=launch_forward,
    fake=_forward_fake,
    check=reference.check_gelu_grn_mlp,
)
dispatch.register(
    "gelu_grn_mlp_backward",
    "(Tensor dout, Tensor x, Tensor weight1, Tensor gamma, Tensor beta, Tensor weight2,"
    " Tensor hidden, Tensor norm, float eps, str activation, Tensor? lengths, bool[] need)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=reference.gelu_grn_mlp_backward,
    launch=launch_backward,
    fake=_backward_fake,
)
dispatch.register_gradient("gelu_grn_mlp", _backward, _setup_context)


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
    approximate: reference.Approximate = "none",
) -> Tensor:
    """Linear layer, GELU, GRN, linear layer: keeps one hidden tensor for the backward, not four.

    Equivalent to:
        ```python
        h = F.linear(x, weight1, bias1)
        y = F.linear(gelu_grn(h, gamma, beta, eps=eps, lengths=lengths), weight2, bias2)
        ```

    Args:
        x: `(B, T, C)`; autocast casts it and the layers' parameters, as it does for `F.linear`.
        weight1: `(H, C)`, dtype of `x`, as the layers' other parameters.
        bias1: `(H,)`.
        gamma: `(H,)`, any floating dtype, as `beta`.
        beta: `(H,)`.
        weight2: `(D, H)`.
        bias2: `(D,)`.
        eps: as in `grn`.
        lengths: as in `grn`.
        approximate: "none" (error function) or "tanh", as in `F.gelu`.

    Returns:
        `(B, T, D)`, dtype of (the cast) `x`.

    Raises:
        TypeError: an argument of another type.
        ValueError: shapes, dtypes or devices that do not fit, or an unknown `approximate`.

    Determinism: that of torch's matrix products. Saved for backward: `x` and the parameters, no
    copy, the hidden layer before the GELU, and `B * H` norms. A frozen layer costs no
    product in the backward. Double backward, forward mode and gradients of `torch.func` raise:
    `reference` can do them.
    """
    activation = reference.activation_of(approximate)
    x, weight1, bias1, weight2, bias2 = (
        reference.autocast_input(t) for t in (x, weight1, bias1, weight2, bias2)
    )
    out: Tensor = dispatch.call(
        "gelu_grn_mlp", x, weight1, bias1, gamma, beta, weight2, bias2, eps, activation, lengths
    )[0]
    return out
