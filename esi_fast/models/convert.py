"""ConvNeXt V2 weights under timm's or FAIR's names, for the encoders of ``create_model``.

Names: timm's ``convnextv2_*`` and the published ConvNeXt V2 (Woo et al., CVPR 2023).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# timm's name -> FAIR's, which is ours; the first that fits the whole name.
_TIMM = (
    (r"stem\.([01])\.(\w+)", r"downsample_layers.0.\1.\2"),
    (r"stages\.(\d+)\.downsample\.([01])\.(\w+)", r"downsample_layers.\1.\2.\3"),
    (r"stages\.(\d+)\.blocks\.(\d+)\.conv_dw\.(\w+)", r"stages.\1.\2.dwconv.\3"),
    (r"stages\.(\d+)\.blocks\.(\d+)\.norm\.(\w+)", r"stages.\1.\2.norm.\3"),
    (r"stages\.(\d+)\.blocks\.(\d+)\.mlp\.fc([12])\.(\w+)", r"stages.\1.\2.pwconv\3.\4"),
    (r"stages\.(\d+)\.blocks\.(\d+)\.mlp\.grn\.weight", r"stages.\1.\2.grn.gamma"),
    (r"stages\.(\d+)\.blocks\.(\d+)\.mlp\.grn\.bias", r"stages.\1.\2.grn.beta"),
    (r"head\.norm\.(\w+)", r"norm.\1"),
    (r"head\.fc\.(\w+)", r"head.\1"),
)
_OURS = re.compile(
    r"downsample_layers\.\d\.[01]\.(weight|bias)|(norm|head)\.(weight|bias)"
    r"|stages\.\d\.\d+\.((dwconv|norm|pwconv1|pwconv2)\.(weight|bias)|grn\.(gamma|beta))"
)
_CONVOLUTION = re.compile(r"downsample_layers\.(0\.0|[123]\.1)\.weight|.*\.dwconv\.weight")


def convnextv2_from_2d(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ConvNeXt V2 state dict under timm's or FAIR's names -> one for ``create_model``'s encoders.

    Weights of one-dimensional models load as they are; so do those of two-dimensional models whose
    kernels are one row or one column, as for an image of height 1. With a head, create the model
    with ``num_classes``. timm's 1 x 1 convolutions become linear layers, and GRN's parameters
    ``(C,)``. A prefix ``module.`` is dropped.

    Args:
        state_dict: tensors by name, of any dtype.

    Returns:
        Tensors by our names: views of those given.

    Raises:
        ValueError: a kernel has a height and a width; a name belongs to no ConvNeXt V2, or to one
            that computes something else; a shape has no place in one dimension.
    """
    converted: dict[str, Tensor] = {}
    for full_name, value in state_dict.items():
        name = full_name.removeprefix("module.")
        ours = _our_name(name)
        if ours in converted:
            raise ValueError(f"{name} is there twice, under timm's name and FAIR's")
        converted[ours] = _our_shape(name, ours, value)
    return converted


def _our_name(name: str) -> str:
    for pattern, replacement in _TIMM:
        if match := re.fullmatch(pattern, name):
            name = match.expand(replacement)
            break
    if name.startswith("norm_pre."):
        raise ValueError(
            f"{name} normalises before the mean over time (timm's head_norm_first); the encoders "
            "here do so after it, and its weights would give other outputs"
        )
    if not _OURS.fullmatch(name):
        raise ValueError(f"{name} is no name of a ConvNeXt V2, neither timm's nor FAIR's")
    return name


def _our_shape(name: str, ours: str, value: Tensor) -> Tensor:
    shape = tuple(value.shape)
    if _CONVOLUTION.fullmatch(ours):
        if value.ndim == 4 and 1 in shape[2:]:
            return value.squeeze(2) if shape[2] == 1 else value.squeeze(3)
        if value.ndim == 4:
            raise ValueError(
                f"{name} has a kernel of {shape[2]} x {shape[3]}: weights of a model of images do "
                "not fit one dimension, only those of T x 1 or 1 x T kernels do"
            )
        num_dims = 3
    elif ".grn." in ours:
        value, num_dims = value.flatten() if value.shape[:-1].numel() == 1 else value, 1
    elif ours.endswith((".pwconv1.weight", ".pwconv2.weight", "head.weight")):
        value, num_dims = value.flatten(1) if shape[2:] in ((1,), (1, 1)) else value, 2
    else:
        num_dims = 1
    if ours.startswith("downsample_layers.") and num_dims == 1 and value.ndim == 3:
        raise ValueError(
            f"{name} is {shape}: a norm over time, as the published ESI has; see load_original"
        )
    if value.ndim != num_dims:
        raise ValueError(f"{name} is {shape}, where {num_dims} dimension(s) belong")
    return value
