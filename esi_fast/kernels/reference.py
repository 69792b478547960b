"""The plain-PyTorch twin of every operator: specification, CPU path, oracle of the tests.

The public functions (`depthwise_conv1d`, `grn`, `gelu_grn`, `depthwise_conv1d_layer_norm`) are
differentiable by autograd, twice too, and say what the operators compute. The `*_forward` and
`*_backward` functions are what `torch.ops.esi_fast.*` runs on a CPU: the same arithmetic with the
gradients written out, which moves less memory.

Numerics: float32 accumulation and statistics for float32, bfloat16 and float16 input, float64 for
float64; one rounding to the dtype of `x` at the end. Parameters may be of another floating dtype
than `x`.

Legend of the shapes: `B` batch, `T` time, `C` channels, `K` taps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Layout = Literal["BTC", "BCT"]
Activation = Literal["none", "gelu", "gelu_tanh"]


def compute_dtype(x: Tensor) -> torch.dtype:
    """Dtype of accumulation and statistics: float64 for float64 input, float32 otherwise."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype to which autocast casts a convolution's operands; None where it is off."""
    device = x.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def no_autocast(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Keeps autocast, where it is on, from casting what was brought to the compute dtype."""
    if autocast_dtype(x) is None:
        return contextlib.nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def is_channels_first(x_BTC: Tensor) -> bool:
    """Whether a `(B, T, C)` view has time as its contiguous axis; outputs then get it as well."""
    return x_BTC.stride(1) == 1 and x_BTC.stride(2) != 1


def empty_like_layout(x_BTC: Tensor, num_time: int) -> Tensor:
    """An uninitialised `(B, num_time, C)` tensor, dense, with the contiguous axis of `x_BTC`."""
    num_batch, _, num_channels = x_BTC.shape
    if is_channels_first(x_BTC):
        return x_BTC.new_empty((num_batch, num_channels, num_time)).transpose(1, 2)
    return x_BTC.new_empty((num_batch, num_time, num_channels))


def _dense(y_BTC: Tensor, channels_first: bool) -> Tensor:
    if channels_first:
        return y_BTC.transpose(1, 2).contiguous().transpose(1, 2)
    return y_BTC.contiguous()


def mask_time(x_BTC: Tensor, lengths: Tensor | None) -> Tensor:
    """`x_BTC` with zeros (whatever was there, NaN too) at the positions `t >= lengths[b]`."""
    if lengths is None:
        return x_BTC
    time = torch.arange(x_BTC.shape[1], device=x_BTC.device)
    return torch.where((time < lengths[:, None])[:, :, None], x_BTC, 0.0)


def check_lengths(x_BTC: Tensor, lengths: Tensor | None) -> None:
    """Raises ValueError unless `lengths` is None or an integer `(B,)` on the device of `x_BTC`."""
    if lengths is None:
        return
    if not isinstance(lengths, Tensor):
        raise ValueError(f"lengths must be a tensor, got {type(lengths).__name__}")
    if lengths.shape != x_BTC.shape[:1] or lengths.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"lengths must be int32 or int64 of shape ({x_BTC.shape[0]},), "
            f"got {lengths.dtype} of shape {tuple(lengths.shape)}"
        )
    if lengths.device != x_BTC.device:
        raise ValueError(f"lengths is on {lengths.device}, x on {x_BTC.device}: move it there")


# ---------------------------------------------------------------------------- depthwise convolution


def output_length(num_time: int, num_taps: int, padding: int) -> int:
    """Number of output samples, `T + 2 * padding - (K - 1)`; raises ValueError if there is none."""
    num_out = num_time + 2 * padding - (num_taps - 1)
    if padding < 0 or num_out < 1:
        raise ValueError(
            f"padding={padding} leaves no output for T={num_time} and K={num_taps}: "
            f"use padding >= {max(0, (num_taps - num_time + 1) // 2)}"
        )
    return num_out


def output_lengths(lengths: Tensor | None, num_taps: int, padding: int) -> Tensor | None:
    """Valid output samples of each record, as if it were convolved alone; may be <= 0 (none)."""
    return None if lengths is None else lengths + (2 * padding - (num_taps - 1))


def check_depthwise_conv1d(
    x_BTC: Tensor, weight: Tensor, bias: Tensor | None, padding: int, lengths: Tensor | None
) -> None:
    """Raises ValueError unless the arguments fit together; `x_BTC` is `(B, T, C)`."""
    if x_BTC.ndim != 3 or not x_BTC.is_floating_point():
        raise ValueError(
            f"x must be a floating (B, T, C), got {x_BTC.dtype} of shape {tuple(x_BTC.shape)}"
        )
    num_channels = x_BTC.shape[2]
    if 0 in x_BTC.shape[1:]:
        raise ValueError(f"x has no sample or no channel: its shape is {tuple(x_BTC.shape)}")
    if weight.ndim != 3 or weight.shape[0] != num_channels or weight.shape[1] != 1:
        raise ValueError(
            f"weight must be ({num_channels}, 1, K) as nn.Conv1d's, got {tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != (num_channels,):
        raise ValueError(f"bias must be ({num_channels},), got {tuple(bias.shape)}")
    check_lengths(x_BTC, lengths)
    output_length(x_BTC.shape[1], weight.shape[2], padding)


def depthwise_conv1d_forward(
    x_BTC: Tensor, weight: Tensor, bias: Tensor | None, padding: int, lengths: Tensor | None
) -> Tensor:
    """Convolves a `(B, T, C)` view in any strides -> `(B, T_out, C)`, dtype of `x_BTC`."""
    acc = compute_dtype(x_BTC)
    num_channels, _, num_taps = weight.shape
    channels_first = is_channels_first(x_BTC)
    x = _dense(mask_time(x_BTC, lengths).to(acc), channels_first)
    w = weight.to(acc)
    b = None if bias is None else bias.to(acc)
    with no_autocast(x):
        if channels_first:
            y = F.conv1d(x.transpose(1, 2), w, b, padding=padding, groups=num_channels)
        else:  # as an image: 2 to 16 times as fast on one core as conv1d on the transposed view
            image = _as_image(x)
            y = F.conv2d(image, w.unsqueeze(2), b, padding=(0, padding), groups=num_channels)
            y = y.squeeze(2)
    y = y.transpose(1, 2)
    y = mask_time(y, output_lengths(lengths, num_taps, padding))
    return _dense(y.to(x_BTC.dtype), channels_first)


def _as_image(x_BTC: Tensor) -> Tensor:
    """`(B, T, C)` as the image `(B, C, 1, T)`: a channels-last view, no copy."""
    return x_BTC.transpose(1, 2).unsqueeze(2)


def depthwise_conv1d_backward(
    dy_BTC: Tensor,
    x_BTC: Tensor,
    weight: Tensor,
    padding: int,
    lengths: Tensor | None,
    need: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias where `need` asks for them, an empty tensor elsewhere."""
    acc = compute_dtype(x_BTC)
    num_taps = weight.shape[2]
    dy = mask_time(dy_BTC, output_lengths(lengths, num_taps, padding)).to(acc).contiguous()
    x = mask_time(x_BTC, lengths).to(acc).contiguous()
    dx, dweight, dbias = x_BTC.new_empty(0), weight.new_empty(0), weight.new_empty(0)
    # One call for each gradient: asked for all of them, oneDNN takes twice the time.
    if need[0]:
        dx_image, dweight_image = _image_gradients(dy, x, weight.to(acc), padding, True)
        dx = mask_time(dx_image.squeeze(2).transpose(1, 2), lengths).to(x_BTC.dtype)
        dx = _dense(dx, is_channels_first(x_BTC))
    if need[1]:
        _, dweight_image = _image_gradients(dy, x, weight.to(acc), padding, False)
        dweight = dweight_image.squeeze(2).to(weight.dtype).contiguous()
    if need[2]:
        dbias = dy.sum((0, 1)).to(weight.dtype)
    return dx, dweight, dbias


def _image_gradients(
    dy: Tensor, x: Tensor, weight: Tensor, padding: int, of_input: bool
) -> tuple[Tensor, Tensor]:
    num_channels = weight.shape[0]
    dx, dweight, _ = torch.ops.aten.convolution_backward(
        _as_image(dy), _as_image(x), weight.unsqueeze(2), [num_channels],
        [1, 1], [0, padding], [1, 1], False, [0, 0], num_channels, [of_input, not of_input, False],
    )  # fmt: skip
    return dx, dweight


def depthwise_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    padding: int,
    lengths: Tensor | None = None,
    layout: Layout = "BTC",
) -> Tensor:
    """The specification of `esi_fast.kernels.depthwise_conv1d`, with the same arguments."""
    x_BTC = x if layout == "BTC" else x.transpose(1, 2)
    check_depthwise_conv1d(x_BTC, weight, bias, padding, lengths)
    y_BTC = depthwise_conv1d_forward(x_BTC, weight, bias, padding, lengths)
    return y_BTC if layout == "BTC" else y_BTC.transpose(1, 2)


def check_depthwise_conv1d_layer_norm(
    x_BTC: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ln_weight: Tensor,
    ln_bias: Tensor,
    lengths: Tensor | None,
) -> None:
    """Raises ValueError unless the arguments fit together and K is odd."""
    if weight.shape[-1] % 2 == 0:
        raise ValueError(f"weight has {weight.shape[-1]} taps: an odd number keeps the length")
    check_depthwise_conv1d(x_BTC, weight, bias, weight.shape[-1] // 2, lengths)
    for name, parameter in (("ln_weight", ln_weight), ("ln_bias", ln_bias)):
        if parameter.shape != x_BTC.shape[2:]:
            raise ValueError(f"{name} must be ({x_BTC.shape[2]},), got {tuple(parameter.shape)}")


def depthwise_conv1d_layer_norm_forward(
    x_BTC: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ln_weight: Tensor,
    ln_bias: Tensor,
    eps: float,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Convolution and LayerNorm -> `y` (B, T, C), dense; mean and rstd (B, T) of the former."""
    acc = compute_dtype(x_BTC)
    z = depthwise_conv1d_forward(x_BTC.to(acc), weight, bias, weight.shape[2] // 2, lengths)
    y, mean, rstd = torch.native_layer_norm(
        z.contiguous(), ln_weight.shape, ln_weight.to(acc), ln_bias.to(acc), eps
    )
    y = mask_time(y, lengths).to(x_BTC.dtype).contiguous()
    return y, mean.squeeze(2), rstd.squeeze(2)


def depthwise_conv1d_layer_norm_backward(
    dy_BTC: Tensor,
    x_BTC: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ln_weight: Tensor,
    mean_BT: Tensor,
    rstd_BT: Tensor,
    lengths: Tensor | None,
    need: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias where `need` asks for them; of ln_weight and ln_bias."""
    acc = compute_dtype(x_BTC)
    padding = weight.shape[2] // 2
    x = x_BTC.to(acc)
    z = depthwise_conv1d_forward(x, weight, bias, padding, lengths).contiguous()
    dz, dln_weight, dln_bias = torch.ops.aten.native_layer_norm_backward(
        mask_time(dy_BTC, lengths).to(acc).contiguous(), z, ln_weight.shape, mean_BT.unsqueeze(2),
        rstd_BT.unsqueeze(2), ln_weight.to(acc), torch.zeros_like(ln_weight, dtype=acc),
        [True, True, True],
    )  # fmt: skip
    dx, dweight, dbias = depthwise_conv1d_backward(dz, x, weight, padding, lengths, need)
    dtype = ln_weight.dtype
    return dx.to(x_BTC.dtype), dweight, dbias, dln_weight.to(dtype), dln_bias.to(dtype)


def depthwise_conv1d_layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ln_weight: Tensor,
    ln_bias: Tensor,
    *,
    eps: float = 1e-6,
    lengths: Tensor | None = None,
) -> Tensor:
    """The specification of `kernels.depthwise_conv1d_layer_norm`, with the same arguments."""
    check_depthwise_conv1d_layer_norm(x, weight, bias, ln_weight, ln_bias, lengths)
    return depthwise_conv1d_layer_norm_forward(x, weight, bias, ln_weight, ln_bias, eps, lengths)[0]


# -------------------------------------------------------------- global response normalisation (GRN)


def check_grn(x_BTC: Tensor, gamma: Tensor, beta: Tensor, lengths: Tensor | None) -> None:
    """Raises ValueError unless `x_BTC` is a floating `(B, T, C)` and `gamma`, `beta` are `(C,)`."""
    if x_BTC.ndim != 3 or not x_BTC.is_floating_point():
        raise ValueError(
            f"x must be a floating (B, T, C), got {x_BTC.dtype} of shape {tuple(x_BTC.shape)}"
        )
    for name, parameter in (("gamma", gamma), ("beta", beta)):
        if parameter.shape != x_BTC.shape[2:]:
            raise ValueError(
                f"{name} must be ({x_BTC.shape[2]},), got {tuple(parameter.shape)}: flatten it"
            )
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
    acc = compute_dtype(x_BTC)
    a = activate(mask_time(x_BTC, lengths).to(acc), activation)
    norm = torch.linalg.vector_norm(a, dim=1)
    y = torch.addcmul(beta.to(acc), a, grn_scale(norm, gamma, eps).unsqueeze(1))
    return _dense(mask_time(y, lengths).to(x_BTC.dtype), is_channels_first(x_BTC)), norm


def grn_backward(
    dy_BTC: Tensor,
    x_BTC: Tensor,
    gamma: Tensor,
    norm_BC: Tensor,
    eps: float,
    activation: Activation,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x (like `x_BTC`), gamma and beta (dtype of `gamma`).

    One thread, (16, 250, C), float32, forward and backward against autograd through `gelu_grn`, ms:
    C=640 20 / 46, C=1280 44 / 87; (16, 31, 1280) 6.9 / 10.5. Storing GELU's output instead of
    computing it again would gain 5 to 15 % and double what is kept.
    """
    acc = compute_dtype(x_BTC)
    x = mask_time(x_BTC, lengths).to(acc)
    dy = mask_time(dy_BTC, lengths).to(acc)
    a = activate(x, activation)
    product = dy * a
    gradients = grn_gradients(norm_BC, product.sum(1), gamma, eps)
    dx = torch.mul(a, gradients.ratio.unsqueeze(1), out=product)
    dx.addcmul_(dy, gradients.scale.unsqueeze(1))
    if activation != "none":
        approximate = "tanh" if activation == "gelu_tanh" else "none"
        dx = torch.ops.aten.gelu_backward(dx, x, approximate=approximate)
    dx = _dense(dx.to(x_BTC.dtype), is_channels_first(x_BTC))
    return dx, gradients.dgamma.to(gamma.dtype), dy.sum((0, 1)).to(gamma.dtype)


def grn(
    x: Tensor, gamma: Tensor, beta: Tensor, *, eps: float = 1e-6, lengths: Tensor | None = None
) -> Tensor:
    """The specification of `esi_fast.kernels.grn`, with the same arguments."""
    check_grn(x, gamma, beta, lengths)
    return grn_forward(x, gamma, beta, eps, "none", lengths)[0]


def gelu_grn(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    eps: float = 1e-6,
    lengths: Tensor | None = None,
    approximate: Literal["none", "tanh"] = "none",
) -> Tensor:
    """The specification of `esi_fast.kernels.gelu_grn`, with the same arguments."""
    check_grn(x, gamma, beta, lengths)
    activation: Activation = "gelu_tanh" if approximate == "tanh" else "gelu"
    return grn_forward(x, gamma, beta, eps, activation, lengths)[0]


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
    hidden = F.linear(mask_time(x_BTC, lengths), weight1, bias1)
    y, norm = grn_forward(hidden, gamma, beta, eps, activation, lengths)
    return mask_time(F.linear(y, weight2, bias2), lengths), hidden, norm


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
    dhidden, dgamma, dbeta = grn_backward(dy, hidden, gamma, norm, eps, activation, lengths)
    y = grn_forward(hidden, gamma, beta, eps, activation, lengths)[0]
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
