"""The pointwise half of a ConvNeXt V2 block: two linear layers with GELU and GRN between them.

Its largest tensors are four times as wide as the block. Of them only the input of the GELU is kept:
the pass of the backward that makes its gradient also makes the second layer's input again, and the
sums that are the gradient of the first layer's bias.
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
) -> tuple[Tensor, ...]:
    """Gradients of x, weight1, bias1, gamma, beta, weight2, bias2."""
    dout, x = reference.mask_time(dout, lengths), reference.mask_time(x, lengths)
    dy = torch.matmul(dout, weight2)
    dhidden, dgamma, dbeta, y, dbias1 = launch_grn_backward(
        dy, hidden, gamma, norm, eps, activation, lengths, beta=beta
    )
    return reference.mlp_gradients(
        dout, x, weight1, y, dhidden, dbias1.to(weight1.dtype), dgamma, dbeta
    )


def _forward_fake(
    x: Tensor, weight1: Tensor, bias1: Tensor, gamma: Tensor, beta: Tensor, weight2: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    num_hidden = weight1.shape[0]
    norm = x.new_empty((x.shape[0], num_hidden), dtype=reference.compute_dtype(x))
    hidden = x.new_empty((*x.shape[:2], num_hidden))
    return x.new_empty((*x.shape[:2], weight2.shape[0])), hidden, norm


def _backward_fake(
    dout: Tensor, x: Tensor, weight1: Tensor, gamma: Tensor, beta: Tensor, weight2: Tensor, *_: Any
) -> tuple[Tensor, ...]:
    return (
        x.new_empty(x.shape),
        weight1.new_empty(weight1.shape),
        weight1.new_empty(weight1.shape[0]),
        torch.empty_like(gamma),
        torch.empty_like(gamma),
        weight2.new_empty(weight2.shape),
        dout.new_empty(dout.shape[2]),
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
    gradients = torch.ops.esi_fast.gelu_grn_mlp_backward(
        dout, *tensors, ctx.eps, ctx.activation, lengths
    )
    return (*gradients, None, None, None)


dispatch.register(
    "gelu_grn_mlp",
    "(Tensor x, Tensor weight1, Tensor bias1, Tensor gamma, Tensor beta, Tensor weight2,"
    " Tensor bias2, float eps, str activation, Tensor? lengths) -> (Tensor, Tensor, Tensor)",
    reference=reference.gelu_grn_mlp_forward,
    launch=launch_forward,
    fake=_forward_fake,
)
dispatch.register(
    "gelu_grn_mlp_backward",
    "(Tensor dout, Tensor x, Tensor weight1, Tensor gamma, Tensor beta, Tensor weight2,"
    " Tensor hidden, Tensor norm, float eps, str activation, Tensor? lengths)"
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
    approximate: Literal["none", "tanh"] = "none",
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
        ValueError: shapes that do not fit, or an unknown `approximate`.

    Determinism: that of torch's matrix products. Saved for backward: `x` and the parameters, no
    copy, the hidden layer before the GELU, and `B * H` norms. Double backward raises
    NotImplementedError.
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate={approximate!r} is unknown: use 'none' or 'tanh'")
    reference.check_gelu_grn_mlp(x, weight1, bias1, gamma, beta, weight2, bias2, lengths)
    cast = reference.autocast_dtype(x)
    if cast is not None and x.dtype != torch.float64:
        x, weight1, bias1, weight2, bias2 = (
            t.to(cast) for t in (x, weight1, bias1, weight2, bias2)
        )
    activation = "gelu" if approximate == "none" else "gelu_tanh"
    out: Tensor = torch.ops.esi_fast.gelu_grn_mlp(
        x, weight1, bias1, gamma, beta, weight2, bias2, eps, activation, lengths
    )[0]
    return out
