"""ConvNeXt V2 weights under other projects' names."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import esi_fast as ef
from esi_fast.models.convert import convnextv2_from_2d

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """An encoder with a head; nothing in it is zero or one."""
    torch.manual_seed(0)
    encoder = ef.create_model("convnextv2_zepto", num_classes=3)
    return {name: torch.randn_like(value) for name, value in encoder.state_dict().items()}


def timm(state: State) -> State:
    """timm's names, as of version 1.0."""
    renamed = {}
    for name, value in state.items():
        name = re.sub(r"^downsample_layers\.0\.", "stem.", name)
        name = re.sub(r"^downsample_layers\.(\d)\.", r"stages.\1.downsample.", name)
        name = re.sub(r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2.", name)
        name = name.replace(".dwconv.", ".conv_dw.")
        name = re.sub(r"\.pwconv([12])\.", r".mlp.fc\1.", name)
        name = name.replace(".grn.gamma", ".mlp.grn.weight").replace(".grn.beta", ".mlp.grn.bias")
        name = re.sub(r"^norm\.", "head.norm.", name)
        renamed[re.sub(r"^head\.(weight|bias)", r"head.fc.\1", name)] = value
    return renamed


def fair(state: State) -> State:
    """FAIR's names, with the four dimensions of its GRN."""
    return {
        name: value[None, None, None] if ".grn." in name else value for name, value in state.items()
    }


def rows(state: State) -> State:
    """Kernels 1 high, as on an image of height 1."""
    return {name: x.unsqueeze(2) if x.ndim == 3 else x for name, x in state.items()}


def columns(state: State) -> State:
    """Kernels 1 wide; linear layers as 1 x 1 convolutions (timm's ``conv_mlp``)."""
    return {
        name: x.unsqueeze(3)
        if x.ndim == 3
        else x[..., None, None]
        if re.search(r"fc[12]\.weight|pwconv[12]\.weight", name)
        else x
        for name, x in state.items()
    }


@pytest.mark.parametrize("names", [timm, fair])
@pytest.mark.parametrize("shapes", [dict, rows, columns])
def test_names_and_shapes_come_back(
    names: Callable[[State], State], shapes: Callable[[State], State], state: State
) -> None:
    given = {f"module.{name}": value for name, value in shapes(names(state)).items()}
    converted = convnextv2_from_2d(given)
    assert converted.keys() == state.keys()
    assert all(torch.equal(converted[name], value) for name, value in state.items())
    encoder = ef.create_model("convnextv2_zepto", num_classes=3)
    encoder.load_state_dict(converted)


def test_a_kernel_of_a_row_computes_what_it_did_on_an_image(state: State) -> None:
    """The stem and its norm, by torch's two-dimensional convolution."""
    given = rows(timm(state))
    encoder = ef.create_model("convnextv2_zepto", num_classes=3)
    encoder.load_state_dict(convnextv2_from_2d(given))
    x_BLT = torch.randn(2, 12, 64)
    image = torch.nn.functional.conv2d(
        x_BLT.unsqueeze(2), given["stem.0.weight"], given["stem.0.bias"], stride=(1, 4)
    )
    expected = torch.nn.functional.layer_norm(
        image[:, :, 0].transpose(1, 2),
        (24,),
        given["stem.1.weight"],
        given["stem.1.bias"],
        eps=1e-6,
    )
    torch.testing.assert_close(encoder.downsample_layers[0](x_BLT.transpose(1, 2)), expected)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("stem.0.weight", (24, 12, 4, 4), "a kernel of 4 x 4: weights of a model of images do not"),
        ("stages.0.0.dwconv.weight", (24, 1, 7, 7), "a kernel of 7 x 7"),
        ("stages.0.0.dwconv.weight", (24, 7), "3 dimension"),
        ("stages.0.0.pwconv1.weight", (96, 24, 3), "2 dimension"),
        ("stages.0.0.grn.gamma", (2, 96), "1 dimension"),
        ("downsample_layers.1.0.weight", (1, 24, 1), "a norm over time.*load_original"),
        ("norm_pre.weight", (192,), "normalises before the mean over time"),
        ("stages.0.0.gamma", (24,), "no name of a ConvNeXt V2"),
        ("layer1.0.conv1.weight", (64, 64, 3, 3), "no name of a ConvNeXt V2"),
    ],
)
def test_what_has_no_place_in_one_dimension_is_named(
    name: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        convnextv2_from_2d({name: torch.zeros(shape)})
    assert str(raised.value).startswith(name)


def test_a_weight_under_two_names_is_refused(state: State) -> None:
    with pytest.raises(ValueError, match="is there twice"):
        convnextv2_from_2d(timm(state) | fair(state))
