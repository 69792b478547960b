"""Depthwise convolution over time, alone and with the LayerNorm over channels that follows it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from esi_fast.kernels.reference.layout import (
    Layout,
    as_btc,
    check_lengths,
    check_parameter,
    check_signal,
    compute_dtype,
    dense,
    is_channels_first,
    mask_time,
    no_autocast,
)


def output_length(num_time: int, num_taps: int, padding: int) -> int:
    """Number of output samples, `T + 2 * padding - (K - 1)`; raises ValueError if there is none."""
    num_out = num_time + 2 * padding - (num_taps - 1)
    if padding < 0 or num_out < 1:
        raise ValueError(
            f"padding={padding} leaves no output for T={num_time} and K={num_taps}: "
            f"use padding >= {max(0, (num_taps - num_time + 1) // 2)}"
        )
    return num_out


def output_lengths(
    lengths: Tensor | None, num_time: int, num_taps: int, padding: int
) -> Tensor | None:
    """Valid output samples of each record, as if it were convolved alone; may be <= 0 (none)."""
    if lengths is None:
        return None
    return lengths.clamp(0, num_time) + (2 * padding - (num_taps - 1))


def check_depthwise_conv1d(
    x_BTC: Tensor, weight: Tensor, bias: Tensor | None, padding: int, lengths: Tensor | None
) -> None:
    """Raises ValueError unless the arguments fit together; `x_BTC` is `(B, T, C)`."""
    check_signal(x_BTC)
    num_channels = x_BTC.shape[2]
    if 0 in x_BTC.shape[1:]:
        raise ValueError(f"x has no sample or no channel: its shape is {tuple(x_BTC.shape)}")
    if weight.ndim != 3 or weight.shape[:2] != (num_channels, 1) or weight.shape[2] == 0:
        raise ValueError(
            f"weight must be ({num_channels}, 1, K) as nn.Conv1d's, got {tuple(weight.shape)}"
        )
    check_parameter(x_BTC, "weight", weight, tuple(weight.shape))
    if bias is not None:
        check_parameter(x_BTC, "bias", bias, (num_channels,))
    check_lengths(x_BTC, lengths)
    output_length(x_BTC.shape[1], weight.shape[2], padding)


def depthwise_conv1d_forward(
    x_BTC: Tensor, weight: Tensor, bias: Tensor | None, padding: int, lengths: Tensor | None
) -> Tensor:
    """Convolves a `(B, T, C)` view in any strides -> `(B, T_out, C)`, dtype of `x_BTC`."""
    acc = compute_dtype(x_BTC)
    num_channels, _, num_taps = weight.shape
    channels_first = is_channels_first(x_BTC)
    x = dense(mask_time(x_BTC, lengths).to(acc), channels_first)
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
    y = mask_time(y, output_lengths(lengths, x_BTC.shape[1], num_taps, padding))
    return dense(y.to(x_BTC.dtype), channels_first)


def _as_image(x_BTC: Tensor) -> Tensor:
    """`(B, T, C)` as the image `(B, C, 1, T)`: a channels-last view, no copy."""
    return x_BTC.transpose(1, 2).unsqueeze(2)


def depthwise_conv1d_backward(
    dy_BTC: Tensor,
    x_BTC: Tensor,
    weight: Tensor,
    bias_dtype: torch.dtype,
    padding: int,
    lengths: Tensor | None,
    need: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias where `need` asks for them, an empty tensor elsewhere."""
    acc = compute_dtype(x_BTC)
    num_taps = weight.shape[2]
    valid = output_lengths(lengths, x_BTC.shape[1], num_taps, padding)
    dy = mask_time(dy_BTC, valid).to(acc).contiguous()
    x = mask_time(x_BTC, lengths).to(acc).contiguous()
    dx, dweight = x_BTC.new_empty(0), weight.new_empty(0)
    dbias = weight.new_empty(0, dtype=bias_dtype)
    # One call for each gradient: asked for all of them, oneDNN takes twice the time.
    if need[0]:
        dx_image, dweight_image = _image_gradients(dy, x, weight.to(acc), padding, True)
        dx = mask_time(dx_image.squeeze(2).transpose(1, 2), lengths).to(x_BTC.dtype)
        dx = dense(dx, is_channels_first(x_BTC))
    if need[1]:
        _, dweight_image = _image_gradients(dy, x, weight.to(acc), padding, False)
        # Anew from the flat view: torch takes any stride of an axis of one for contiguous.
        dweight = dweight_image.to(weight.dtype).reshape(-1).view(weight.shape)
    if need[2]:
        dbias = dy.sum((0, 1)).to(bias_dtype)
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
    x_BTC = as_btc(x, layout)
    check_depthwise_conv1d(x_BTC, weight, bias, padding, lengths)
    y_BTC = depthwise_conv1d_forward(x_BTC, weight, bias, padding, lengths)
    return y_BTC if layout == "BTC" else y_BTC.transpose(1, 2)


def check_depthwise_conv1d_layer_norm(
    x_BTC: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ln_weight: Tensor,
    ln_bias: Tensor,
    eps: float,
    lengths: Tensor | None,
) -> None:
    """Raises ValueError unless the arguments fit together and K is odd."""
    num_taps = weight.shape[2] if weight.ndim == 3 else 1  # which is refused below
    check_depthwise_conv1d(x_BTC, weight, bias, num_taps // 2, lengths)
    if num_taps % 2 == 0:
        raise ValueError(f"weight has {num_taps} taps: an odd number keeps the length")
    for name, parameter in (("ln_weight", ln_weight), ("ln_bias", ln_bias)):
        check_parameter(x_BTC, name, parameter, tuple(x_BTC.shape[2:]))


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
    ln_bias_dtype: torch.dtype,
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
    rstd = mask_time(rstd_BT.unsqueeze(2), lengths)  # without eps, infinite past the length
    dz, dln_weight, dln_bias = torch.ops.aten.native_layer_norm_backward(
        mask_time(dy_BTC, lengths).to(acc).contiguous(), z, ln_weight.shape, mean_BT.unsqueeze(2),
        rstd, ln_weight.to(acc), torch.zeros_like(ln_weight, dtype=acc), [True, True, True],
    )  # fmt: skip
    bias_dtype = weight.dtype if bias is None else bias.dtype
    gradients = depthwise_conv1d_backward(dz, x, weight, bias_dtype, padding, lengths, need)
    dx, dweight, dbias = gradients
    ln_gradients = dln_weight.to(ln_weight.dtype), dln_bias.to(ln_bias_dtype)
    return dx.to(x_BTC.dtype), dweight, dbias, *ln_gradients


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
    check_depthwise_conv1d_layer_norm(x, weight, bias, ln_weight, ln_bias, eps, lengths)
    return depthwise_conv1d_layer_norm_forward(x, weight, bias, ln_weight, ln_bias, eps, lengths)[0]
