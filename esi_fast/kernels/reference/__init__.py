"""The plain-PyTorch twin of every operator: specification, CPU path, oracle of the tests.

The public functions (`depthwise_conv1d`, `grn`, `gelu_grn`, `depthwise_conv1d_layer_norm`,
`gelu_grn_mlp`) are differentiable by autograd, twice too, and say what the operators compute. The
`*_forward` and `*_backward` functions are what `torch.ops.esi_fast.*` runs on a CPU: the same
arithmetic with the gradients written out, which moves less memory.

Numerics: float32 accumulation and statistics for float32, bfloat16 and float16 input, float64 for
float64; one rounding to the dtype of `x` at the end. Parameters may be of another floating dtype
than `x`. Unlike the operators, these functions cast nothing for autocast.

Legend of the shapes: `B` batch, `T` time, `C` channels, `K` taps.
"""

from __future__ import annotations

from esi_fast.kernels.reference.conv import (
    check_depthwise_conv1d,
    check_depthwise_conv1d_layer_norm,
    depthwise_conv1d,
    depthwise_conv1d_backward,
    depthwise_conv1d_forward,
    depthwise_conv1d_layer_norm,
    depthwise_conv1d_layer_norm_backward,
    depthwise_conv1d_layer_norm_forward,
    output_length,
    output_lengths,
)
from esi_fast.kernels.reference.layout import (
    Layout,
    as_btc,
    autocast_dtype,
    autocast_input,
    check_layout,
    check_lengths,
    check_signal,
    compute_dtype,
    empty_like_layout,
    is_channels_first,
    mask_time,
    no_autocast,
)
from esi_fast.kernels.reference.mlp import (
    check_gelu_grn_mlp,
    gelu_grn_mlp,
    gelu_grn_mlp_backward,
    gelu_grn_mlp_forward,
    mlp_gradients,
)
from esi_fast.kernels.reference.normalization import (
    Activation,
    Approximate,
    GRNGradients,
    activate,
    activation_of,
    check_activation,
    check_grn,
    gelu_grn,
    grn,
    grn_backward,
    grn_forward,
    grn_gradients,
    grn_scale,
)

__all__ = [
    "Activation",
    "Approximate",
    "GRNGradients",
    "Layout",
    "activate",
    "activation_of",
    "as_btc",
    "autocast_dtype",
    "autocast_input",
    "check_activation",
    "check_depthwise_conv1d",
    "check_depthwise_conv1d_layer_norm",
    "check_gelu_grn_mlp",
    "check_grn",
    "check_layout",
    "check_lengths",
    "check_signal",
    "compute_dtype",
    "depthwise_conv1d",
    "depthwise_conv1d_backward",
    "depthwise_conv1d_forward",
    "depthwise_conv1d_layer_norm",
    "depthwise_conv1d_layer_norm_backward",
    "depthwise_conv1d_layer_norm_forward",
    "empty_like_layout",
    "gelu_grn",
    "gelu_grn_mlp",
    "gelu_grn_mlp_backward",
    "gelu_grn_mlp_forward",
    "grn",
    "grn_backward",
    "grn_forward",
    "grn_gradients",
    "grn_scale",
    "is_channels_first",
    "mask_time",
    "mlp_gradients",
    "no_autocast",
    "output_length",
    "output_lengths",
]
