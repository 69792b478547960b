"""The operators in torch's other machinery: export, counters, `torch.func`, exchanged layers."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils.flop_counter import FlopCounterMode

from esi_fast import kernels

B, T, C = 2, 50, 8


def drawn_block() -> kernels.nn.ConvNeXtV2Block1d:
    torch.manual_seed(0)
    block = kernels.nn.ConvNeXtV2Block1d(C)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block


def test_an_exported_program_is_one_of_torchs_own_operators() -> None:
    torch.manual_seed(0)
    block = drawn_block()
    layers = nn.ModuleList(
        [kernels.nn.DepthwiseConv1d(C, 5, layout="BCT"), kernels.nn.GRN(C, activation="gelu_tanh")]
    )
    nn.init.normal_(layers[1].gamma)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.layers = block, layers

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            x = self.layers[0](x.transpose(1, 2)).transpose(1, 2)
            y: Tensor = self.layers[1](self.block(x, lengths), lengths)
            return y

    model = Model().eval()
    x, lengths = torch.randn(B, T, C), torch.tensor([T, 20])
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        model, (x, lengths), dynamic_shapes={"x": {0: batch}, "lengths": {0: batch}}
    )
    assert "esi_fast" in str(program.graph)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch about itself
        program = program.run_decompositions(kernels.decompositions())
    assert "esi_fast" not in str(program.graph)
    other, lengths = torch.randn(3, T, C), torch.tensor([1, 20, 50])
    torch.testing.assert_close(program.module()(other, lengths), model(other, lengths))


def counted(run: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def test_torch_counts_the_operations() -> None:
    block, x = drawn_block(), torch.randn(B, T, C, requires_grad=True)
    conv, products = 2 * B * T * C * 7, 2 * B * T * C * 4 * C * 2
    assert counted(lambda: block(x)) == conv + products
    y = block(x)
    # Twice the forward, and the convolution once more, which is not kept.
    assert counted(lambda: y.sum().backward()) == 3 * conv + 2 * products
    linear = nn.Sequential(nn.Linear(C, 4 * C), nn.Linear(4 * C, C))
    assert counted(lambda: linear(x)) == products
    block.requires_grad_(False)
    z = block(x)
    assert counted(lambda: z.sum().backward()) == 2 * conv + products
    weight = torch.randn(C, 1, 5, requires_grad=True)
    out = kernels.depthwise_conv1d(x, weight, padding=0)
    assert counted(lambda: out.sum().backward()) == 2 * 2 * B * (T - 4) * C * 5
    assert counted(lambda: kernels.depthwise_conv1d(x, weight, padding=2)) == 2 * B * T * C * 5


def test_a_gradient_of_functorch_is_refused_and_vmap_serves() -> None:
    x, one = torch.randn(B, T, C), torch.ones(C)
    with pytest.raises(NotImplementedError, match=r"grn has no torch\.func\.grad; the functions"):
        torch.func.grad(lambda x: kernels.grn(x, one, one).sum())(x)
    head = torch.randn(C)  # the gradient goes past the operator
    got = torch.func.grad(lambda head: (kernels.grn(x * 1.0, one, one) * head).sum())(head)
    torch.testing.assert_close(got, kernels.grn(x, one, one).sum((0, 1)))
    many = torch.stack([x, 2 * x])
    got = torch.func.vmap(lambda x: kernels.grn(x, one, one))(many)
    torch.testing.assert_close(got, kernels.grn(many.flatten(0, 1), one, one).view_as(many))


def test_the_reference_has_what_the_operators_refuse_where_a_channel_is_dead_too() -> None:
    x, one = torch.randn(B, T, C, dtype=torch.float64), torch.ones(C, dtype=torch.float64)
    x[:, :, 3] = 0
    tangent = torch.randn_like(x)
    tangent[:, :, 3] = 0  # where the norm has a derivative

    def grn(x: Tensor) -> Tensor:
        return kernels.reference.grn(x, one, one)

    _, got = torch.func.jvp(grn, (x,), (tangent,))
    step = 1e-6 * tangent
    torch.testing.assert_close(got, (grn(x + step) - grn(x - step)) / 2e-6)
    leaf = x.clone().requires_grad_()
    grn(leaf).square().sum().backward()
    grads = torch.func.grad(lambda x: grn(x).square().sum())(x)
    torch.testing.assert_close(leaf.grad, grads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_weights_gradient_has_the_strides_of_the_weight(dtype: torch.dtype) -> None:
    weight = torch.randn(C, 1, 7, dtype=dtype, requires_grad=True)
    kernels.depthwise_conv1d(torch.randn(B, T, C, dtype=dtype), weight, padding=3).sum().backward()
    assert weight.grad is not None
    assert weight.grad.stride() == weight.stride()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": [20, 3]}, "lengths must be a Tensor or None, got list"),
        ({"padding": "same"}, "padding must be an int, got str"),
        ({"padding": 3.0}, "padding must be an int, got float"),
        ({"weight": None}, "weight must be a Tensor, got NoneType"),
        ({"x": torch.zeros(B, T, C).numpy()}, "x must be a Tensor, got ndarray"),
        ({"x": [1.0], "layout": "BCT"}, "x must be a Tensor, got list"),
    ],
)
def test_an_argument_of_another_type_is_named(changes: dict[str, Any], message: str) -> None:
    arguments = {"x": torch.zeros(B, T, C), "weight": torch.zeros(C, 1, 7), "padding": 3}
    with pytest.raises(TypeError, match=message):
        kernels.depthwise_conv1d(**(arguments | changes))


def test_numbers_of_numpy_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    x, weight, one = torch.randn(B, T, C), torch.randn(C, 1, 7), torch.ones(C)
    y = kernels.depthwise_conv1d(x, weight, padding=numpy.int64(3))
    assert torch.equal(y, kernels.depthwise_conv1d(x, weight, padding=3))
    z = kernels.grn(x, one, one, eps=numpy.float32(0.5))
    assert torch.equal(z, kernels.grn(x, one, one, eps=0.5))


class LowRank(nn.Module):
    """A layer with an adapter beside it, as LoRA's are; it shows the parameters of the layer."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, 2, bias=False)
        self.up = nn.Linear(2, layer.out_features, bias=False)
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x) + self.up(self.down(x))
        return y


def test_a_blocks_exchanged_layers_are_called() -> None:
    block, x = drawn_block(), torch.randn(B, T, C)
    lengths = torch.tensor([T, 20])
    expected = block(x, lengths)
    merged = copy.deepcopy(block)
    block.pwconv1 = LowRank(block.pwconv1)  # type: ignore[assignment]
    with torch.no_grad():
        merged.pwconv1.weight += block.pwconv1.up.weight @ block.pwconv1.down.weight
    y = block(x, lengths)
    torch.testing.assert_close(y, merged(x, lengths))
    assert not torch.allclose(y, expected)
    y.sum().backward()
    assert block.pwconv1.up.weight.grad is not None
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, lengths), y)


def test_a_blocks_hooks_run_and_its_settings_count() -> None:
    block, x = drawn_block(), torch.randn(B, T, C)
    expected = block(x)
    seen: list[str] = []
    for name in ("dwconv", "norm", "pwconv1", "grn", "pwconv2"):
        for register in ("register_forward_hook", "register_forward_pre_hook"):
            handle = getattr(block.get_submodule(name), register)(
                lambda *_, name=name: seen.append(name)
            )
            torch.testing.assert_close(block(x), expected)
            assert seen.pop() == name
            handle.remove()
    plain = block.pwconv1.forward
    block.pwconv1.forward = lambda x: 2 * plain(x)  # type: ignore[method-assign]
    assert not torch.allclose(block(x), expected)
    del block.pwconv1.forward
    torch.testing.assert_close(block(x), expected)
    prune.random_unstructured(block.pwconv2, "weight", 0.5)
    for _ in range(2):  # its hook makes the weight anew for each call
        y = block(x)
        y.sum().backward()
    assert not torch.allclose(y, expected)
    other = drawn_block()
    other.grn.activation = "gelu_tanh"
    assert 1e-6 < (other(x) - expected).abs().max() < 0.05
    other.grn.activation = "none"
    assert (other(x) - expected).abs().max() > 0.05
    other = drawn_block()
    other.norm = nn.LayerNorm(C, elementwise_affine=False)
    plain = drawn_block()
    nn.init.ones_(plain.norm.weight)
    nn.init.zeros_(plain.norm.bias)
    plain.norm.eps = other.norm.eps
    torch.testing.assert_close(other(x), plain(x))


def test_a_parametrized_block_keeps_its_joined_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    block, x = drawn_block(), torch.randn(B, T, C)
    expected = block(x)
    parametrizations.weight_norm(block.pwconv1)
    monkeypatch.setattr(block, "_one_by_one", None)
    torch.testing.assert_close(block(x), expected)
