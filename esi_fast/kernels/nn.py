"""Drop-in modules over the operators; tensors are `(B, T, C)` unless a layout says otherwise.

Checkpoints of `torch.nn.Conv1d` (depthwise), of timm's and Hugging Face's GRN (`weight`, `bias`)
and of Facebook's (`gamma`, `beta`, four-dimensional) load unchanged.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from esi_fast.kernels import reference
from esi_fast.kernels.depthwise_conv1d import depthwise_conv1d
from esi_fast.kernels.depthwise_conv1d_layer_norm import depthwise_conv1d_layer_norm
from esi_fast.kernels.gelu_grn_mlp import gelu_grn_mlp
from esi_fast.kernels.grn import gelu_grn, grn
from esi_fast.kernels.reference import Activation, Layout


class DepthwiseConv1d(nn.Module):
    """A depthwise 1D convolution, channels-last by default; its state dict is that of `nn.Conv1d`.

    Equivalent to: `nn.Conv1d(channels, channels, kernel_size, padding=padding, groups=channels)` on
    the transposed input.

    Args:
        channels: `C`.
        kernel_size: `K`, taps.
        padding: zeros on both sides; None keeps the length, which asks for an odd `kernel_size`.
        bias: whether to add a bias.
        layout: "BTC" (channels-last) or "BCT", of input and output alike.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: `padding=None` with an even `kernel_size`, an unknown layout, no tap, or a
            negative padding.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        *,
        padding: int | None = None,
        bias: bool = True,
        layout: Layout = "BTC",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(kernel_size, int) or kernel_size < 1:
            raise ValueError(f"kernel_size={kernel_size!r} must be a count of taps")
        if padding is None and kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size} is even: give padding explicitly")
        if padding is not None and (not isinstance(padding, int) or padding < 0):
            raise ValueError(f"padding={padding!r} must be a count of samples, or None")
        reference.check_layout(layout)
        self.padding = kernel_size // 2 if padding is None else padding
        self.layout = layout
        weight = torch.empty(channels, 1, kernel_size, device=device, dtype=dtype)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(weight.new_empty(channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the parameters from U(-1/sqrt(K), 1/sqrt(K)), as `nn.Conv1d` does."""
        bound = 1 / math.sqrt(self.weight.shape[2])
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`x` in the module's layout -> the same layout; `lengths` as in `depthwise_conv1d`."""
        return depthwise_conv1d(
            x, self.weight, self.bias, padding=self.padding, lengths=lengths, layout=self.layout
        )

    def extra_repr(self) -> str:
        """The arguments, for `print(model)`."""
        channels, _, kernel_size = self.weight.shape
        return (
            f"{channels}, kernel_size={kernel_size}, padding={self.padding}, "
            f"bias={self.bias is not None}, layout={self.layout}"
        )


class GRN(nn.Module):
    """Global response normalisation (ConvNeXt V2, Woo et al. 2023, section 3.2) over time.

    `gamma` and `beta`, `(C,)`, start at zero: the module starts as the identity (after the
    activation).

    Args:
        channels: `C`.
        eps: added to the mean of the norms.
        activation: applied to the input in the same pass: "none", "gelu" (erf) or "gelu_tanh".
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: an unknown activation.
    """

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-6,
        activation: Activation = "none",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        reference.check_activation(activation)
        self.eps = eps
        self.activation = activation
        self.gamma = nn.Parameter(torch.empty(channels, device=device, dtype=dtype))
        self.beta = nn.Parameter(torch.empty(channels, device=device, dtype=dtype))
        self.reset_parameters()
        self.register_load_state_dict_pre_hook(_accept_other_grn)  # type: ignore[no-untyped-call]

    def reset_parameters(self) -> None:
        """Sets both parameters to zero."""
        nn.init.zeros_(self.gamma)
        nn.init.zeros_(self.beta)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`(B, T, C)` -> `(B, T, C)`; `lengths` as in `grn`."""
        if self.activation == "none":
            return grn(x, self.gamma, self.beta, eps=self.eps, lengths=lengths)
        return gelu_grn(
            x,
            self.gamma,
            self.beta,
            eps=self.eps,
            lengths=lengths,
            approximate="tanh" if self.activation == "gelu_tanh" else "none",
        )

    def extra_repr(self) -> str:
        """The arguments, for `print(model)`."""
        return f"{self.gamma.shape[0]}, eps={self.eps}, activation={self.activation}"


def _accept_other_grn(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object
) -> None:
    """Renames timm's and Hugging Face's keys, flattens the four-dimensional parameters."""
    for ours, theirs in (("gamma", "weight"), ("beta", "bias")):
        if prefix + theirs in state_dict and prefix + ours not in state_dict:
            state_dict[prefix + ours] = state_dict.pop(prefix + theirs)
        saved = state_dict.get(prefix + ours)
        if isinstance(saved, Tensor) and saved.shape[:-1].numel() == 1:
            state_dict[prefix + ours] = saved.flatten()  # torch refuses what is left as it was


# What the joined operators stand for.
_CALLED = (
    ("dwconv", DepthwiseConv1d.forward), ("norm", nn.LayerNorm.forward),
    ("pwconv1", nn.Linear.forward), ("grn", GRN.forward), ("pwconv2", nn.Linear.forward),
)  # fmt: skip


class ConvNeXtV2Block1d(nn.Module):
    """A ConvNeXt V2 block (Woo et al. 2023, figure 5) on `(B, T, C)`, channels-last throughout.

    Depthwise convolution, LayerNorm (eps 1e-6), Linear to 4C, GELU and GRN in one operator, Linear
    to C, drop path, residual. Parameters: `dwconv`, `norm`, `pwconv1`, `grn.gamma`, `grn.beta`,
    `pwconv2`. The linear layers keep PyTorch's initialisation: the model that stacks the blocks
    draws its own.

    The operators join the layers, which then hold the parameters and are not called. Where one of
    them was exchanged, hooked or set otherwise (LoRA, pruning, sharding, another activation), they
    are called one by one, as they are; with `lengths` the convolution and the GRN must take them.

    Args:
        dim: `C`.
        drop_path: probability that training drops the branch of a record (stochastic depth).
        kernel_size: odd number of taps.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: `drop_path` outside [0, 1), or an even `kernel_size`.
    """

    def __init__(
        self,
        dim: int,
        drop_path: float = 0.0,
        kernel_size: int = 7,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 <= drop_path < 1.0:
            raise ValueError(f"drop_path={drop_path} must lie in [0, 1)")
        self.drop_path = drop_path
        self.dwconv = DepthwiseConv1d(dim, kernel_size, device=device, dtype=dtype)
        self.norm = nn.LayerNorm(dim, eps=1e-6, device=device, dtype=dtype)
        self.pwconv1 = nn.Linear(dim, 4 * dim, device=device, dtype=dtype)
        self.grn = GRN(4 * dim, activation="gelu", device=device, dtype=dtype)
        self.pwconv2 = nn.Linear(4 * dim, dim, device=device, dtype=dtype)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`(B, T, C)` -> `(B, T, C)`; `lengths` as in `grn`."""
        y = self._joined(x, lengths) if self._is_as_made() else self._one_by_one(x, lengths)
        if self.training and self.drop_path > 0.0:
            keep = 1.0 - self.drop_path
            y = y * (y.new_empty(y.shape[0], 1, 1).bernoulli_(keep) / keep)
        return reference.mask_time(x + y, lengths)

    def _is_as_made(self) -> bool:
        """Whether calling the layers would do what the operators that join them do."""
        for name, forward in _CALLED:
            layer: Any = self._modules[name]
            if (
                # A subclass that keeps its parameters otherwise (parametrizations) is as good.
                type(layer).forward is not forward or "forward" in vars(layer)
                or layer._forward_hooks or layer._forward_pre_hooks
                or layer._backward_hooks or layer._backward_pre_hooks
                or any(value is None for value in layer._parameters.values())
            ):  # fmt: skip
                return False
        dwconv, grn = self.dwconv, self.grn
        return (
            dwconv.layout == "BTC"
            and 2 * dwconv.padding + 1 == dwconv.weight.shape[2]
            and grn.activation == "gelu"
        )

    def _joined(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        y = depthwise_conv1d_layer_norm(
            x,
            self.dwconv.weight,
            self.dwconv.bias,
            self.norm.weight,
            self.norm.bias,
            eps=self.norm.eps,
            lengths=lengths,
        )
        return gelu_grn_mlp(
            y,
            self.pwconv1.weight,
            self.pwconv1.bias,
            self.grn.gamma,
            self.grn.beta,
            self.pwconv2.weight,
            self.pwconv2.bias,
            eps=self.grn.eps,
            lengths=lengths,
        )

    def _one_by_one(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        past_the_end = () if lengths is None else (lengths,)
        y = self.norm(self.dwconv(x, *past_the_end))
        y = self.grn(self.pwconv1(y), *past_the_end)
        return self.pwconv2(y)
