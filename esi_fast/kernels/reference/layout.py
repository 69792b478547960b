"""What the operators of the reference share: dtypes, layouts, and positions past a record's end."""

from __future__ import annotations

import contextlib
from typing import Literal, get_args

import torch
from torch import Tensor

Layout = Literal["BTC", "BCT"]
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def compute_dtype(x: Tensor) -> torch.dtype:
    """Dtype of accumulation and statistics: float64 for float64 input, float32 otherwise."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype to which autocast casts a convolution's operands; None where it is off."""
    device = x.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def autocast_input(x: Tensor) -> Tensor:
    """`x` as autocast hands it to a convolution or linear layer; float64 stays what it is."""
    # What is no tensor goes on to the operator, which refuses it by its name.
    if isinstance(x, Tensor) and x.is_floating_point() and x.dtype != torch.float64:
        cast = autocast_dtype(x)
        return x if cast is None else x.to(cast)
    return x


def no_autocast(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Keeps autocast, where it is on, from casting what was brought to the compute dtype."""
    if autocast_dtype(x) is None:
        return contextlib.nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def check_layout(layout: str) -> None:
    """Raises ValueError for an unknown layout."""
    if layout not in get_args(Layout):
        raise ValueError(f"layout={layout!r} is unknown: use 'BTC' or 'BCT'")


def as_btc(x: Tensor, layout: Layout) -> Tensor:
    """The `(B, T, C)` view of `x`; raises ValueError for an unknown layout or too few axes."""
    check_layout(layout)
    if layout == "BTC" or not isinstance(x, Tensor):
        return x  # what is no tensor the operator refuses by its name
    if x.ndim != 3:
        raise ValueError(f"x must be a floating (B, C, T), got shape {tuple(x.shape)}")
    return x.transpose(1, 2)


def is_channels_first(x_BTC: Tensor) -> bool:
    """Whether a `(B, T, C)` view has time as its contiguous axis; outputs then get it as well."""
    return x_BTC.stride(1) == 1 and x_BTC.stride(2) != 1


def empty_like_layout(x_BTC: Tensor, num_time: int) -> Tensor:
    """An uninitialised `(B, num_time, C)` tensor, dense, with the contiguous axis of `x_BTC`."""
    num_batch, _, num_channels = x_BTC.shape
    if is_channels_first(x_BTC):
        return x_BTC.new_empty((num_batch, num_channels, num_time)).transpose(1, 2)
    return x_BTC.new_empty((num_batch, num_time, num_channels))


def dense(y_BTC: Tensor, channels_first: bool) -> Tensor:
    """`y_BTC` without gaps, with time as its contiguous axis where `channels_first`."""
    if channels_first:
        return y_BTC.transpose(1, 2).contiguous().transpose(1, 2)
    return y_BTC.contiguous()


def mask_time(x_BTC: Tensor, lengths: Tensor | None) -> Tensor:
    """`x_BTC` with zeros (whatever was there, NaN too) at the positions `t >= lengths[b]`."""
    if lengths is None:
        return x_BTC
    time = torch.arange(x_BTC.shape[1], device=x_BTC.device)
    return torch.where((time < lengths[:, None])[:, :, None], x_BTC, 0.0)


def check_signal(x_BTC: Tensor) -> None:
    """Raises ValueError unless `x_BTC` is a `(B, T, C)` of one of `DTYPES`."""
    if x_BTC.ndim != 3 or x_BTC.dtype not in DTYPES:
        raise ValueError(
            f"x must be a floating (B, T, C) of 16 to 64 bits, got {x_BTC.dtype} "
            f"of shape {tuple(x_BTC.shape)}"
        )


def check_parameter(
    x: Tensor, name: str, parameter: Tensor, shape: tuple[int, ...], like_x: bool = False
) -> None:
    """Raises ValueError unless it is of one of `DTYPES`, of this shape and on the device of `x`.

    Args:
        x: the signal.
        name: of the parameter.
        parameter: to be looked at.
        shape: wanted.
        like_x: whether it must have the dtype of `x` too.
    """
    if parameter.shape != shape:
        hint = ": flatten it" if parameter.shape[-1:] == shape else ""
        raise ValueError(f"{name} must be {shape}, got {tuple(parameter.shape)}{hint}")
    if parameter.device != x.device:
        raise ValueError(f"{name} is on {parameter.device}, x on {x.device}: move it there")
    if like_x and parameter.dtype != x.dtype:
        raise ValueError(f"{name} is {parameter.dtype}, x {x.dtype}: cast one of them")
    if parameter.dtype not in DTYPES:
        raise ValueError(f"{name} must be floating, of 16 to 64 bits, got {parameter.dtype}")


def check_lengths(x_BTC: Tensor, lengths: Tensor | None) -> None:
    """Raises ValueError unless `lengths` is None or an integer `(B,)` on the device of `x_BTC`."""
    if lengths is None:
        return
    if lengths.shape != x_BTC.shape[:1] or lengths.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"lengths must be int32 or int64 of shape ({x_BTC.shape[0]},), "
            f"got {lengths.dtype} of shape {tuple(lengths.shape)}"
        )
    if lengths.device != x_BTC.device:
        raise ValueError(f"lengths is on {lengths.device}, x on {x_BTC.device}: move it there")
