"""The operator as users call it: against the reference, and the contracts of torch.library."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted import TOLERANCE
from torch import Tensor

from esi_fast import kernels


def strided(x: Tensor, how: str) -> Tensor:
    """The same (B, T, C) values in other strides, as a leaf."""
    if how == "transposed":
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    elif how == "sliced":
        wide = torch.zeros(x.shape[0], x.shape[1] + 2, x.shape[2] + 3, dtype=x.dtype)
        wide[:, 1:-1, 2:-1] = x
        x = wide[:, 1:-1, 2:-1]
    return x.detach().requires_grad_()


def parameters(C: int, K: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    weight = torch.randn(C, 1, K, dtype=dtype, requires_grad=True)
    return weight, torch.randn(C, dtype=dtype, requires_grad=True)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 20), st.sampled_from([1, 2, 3, 17, 40])),
    st.sampled_from([1, 3, 4, 7]),
    st.sampled_from(["dense", "transposed", "sliced"]),
    st.booleans(),
)
def test_values_and_gradients_are_those_of_the_reference(
    shape: tuple[int, int, int], K: int, strides: str, with_lengths: bool
) -> None:
    torch.manual_seed(0)
    x = strided(torch.randn(shape, dtype=torch.float64), strides)
    weight, bias = parameters(shape[2], K)
    lengths = torch.randint(0, shape[1] + 1, shape[:1]) if with_lengths else None
    results = []
    for function in (kernels.depthwise_conv1d, kernels.reference.depthwise_conv1d):
        y = function(x, weight, bias, padding=K // 2, lengths=lengths)
        dy = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape)
        results.append((y, *torch.autograd.grad(y, [x, weight, bias], dy)))
    for actual, wanted in zip(*results, strict=True):
        torch.testing.assert_close(actual, wanted)


@pytest.mark.parametrize("layout", ["BTC", "BCT"])
def test_output_has_the_layout_of_the_input(layout: kernels.reference.Layout) -> None:
    weight, bias = parameters(6, 5)
    x = torch.randn((2, 9, 6) if layout == "BTC" else (2, 6, 9), dtype=torch.float64)
    y = kernels.depthwise_conv1d(x, weight, bias, padding=2, layout=layout)
    assert y.is_contiguous()
    expected = kernels.reference.depthwise_conv1d(x, weight, bias, padding=2, layout=layout)
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize(("shape", "K", "fast"), [((1, 5, 4), 3, False), ((2, 13, 10), 7, True)])
def test_gradcheck(shape: tuple[int, int, int], K: int, fast: bool) -> None:
    torch.manual_seed(0)
    x = strided(torch.randn(shape, dtype=torch.float64), "dense")
    weight, bias = parameters(shape[2], K)

    def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return kernels.depthwise_conv1d(x, weight, bias, padding=K // 2)

    assert torch.autograd.gradcheck(convolve, (x, weight, bias), fast_mode=fast)


@pytest.mark.parametrize("strides", ["dense", "transposed", "sliced"])
def test_opcheck(strides: str) -> None:
    x = strided(torch.randn(2, 9, 4), strides)
    weight, bias = parameters(4, 3, torch.float32)
    if strides == "sliced":
        weight.requires_grad_(False)
    lengths = torch.tensor([9, 4]) if strides == "dense" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.library.opcheck(
            torch.ops.esi_fast.depthwise_conv1d.default, (x, weight, bias, 1, lengths)
        )
        torch.library.opcheck(
            torch.ops.esi_fast.depthwise_conv1d_backward.default,
            (
                *(x.detach(), x.detach(), weight.detach(), torch.float64, 1, lengths),
                [True, False, True],
            ),
        )


def test_compiles_as_one_graph() -> None:
    def block(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return kernels.depthwise_conv1d(x * 2, weight, bias, padding=3).sin()

    compiled = torch.compile(block, fullgraph=True, backend="aot_eager", dynamic=True)
    weight, bias = parameters(6, 7)
    for T in (11, 20):
        x = torch.randn(2, T, 6, dtype=torch.float64, requires_grad=True)
        results = []
        for function in (compiled, block):
            y = function(x, weight, bias)
            results.append((y, *torch.autograd.grad(y.sum(), [x, weight, bias])))
        for actual, wanted in zip(*results, strict=True):
            torch.testing.assert_close(actual, wanted)


def test_autocast_casts_the_input_and_leaves_the_parameters() -> None:
    x = torch.randn(2, 9, 4, requires_grad=True)
    weight, bias = parameters(4, 3, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = kernels.depthwise_conv1d(x, weight, bias, padding=1)
        assert kernels.depthwise_conv1d(x.double(), weight, padding=1).dtype == torch.float64
    assert y.dtype == torch.bfloat16
    expected = kernels.reference.depthwise_conv1d(x.bfloat16(), weight, bias, padding=1)
    assert torch.equal(y, expected)
    y.sum().backward()
    for tensor in (x, weight, bias):
        assert tensor.grad is not None
        assert tensor.grad.dtype == torch.float32


def test_only_the_needed_gradients_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    original = kernels.reference.conv._image_gradients

    def spy(*args: object) -> tuple[Tensor, Tensor]:
        asked.append("input" if args[-1] else "weight")
        return original(*args)

    monkeypatch.setattr(kernels.reference.conv, "_image_gradients", spy)
    weight, bias = parameters(4, 3)
    x = torch.randn(2, 9, 4, dtype=torch.float64)
    kernels.depthwise_conv1d(x, weight, bias, padding=1).sum().backward()
    assert asked == ["weight"]
    kernels.depthwise_conv1d(
        x.requires_grad_(), weight.detach(), bias.detach(), padding=1
    ).sum().backward()
    assert asked == ["weight", "input"]


def test_saves_nothing_but_its_inputs() -> None:
    saved = []
    x = torch.randn(2, 9, 4, dtype=torch.float64, requires_grad=True)
    weight, bias = parameters(4, 3)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        kernels.depthwise_conv1d(x, weight, bias, padding=1)
    assert {t.data_ptr() for t in saved} == {x.data_ptr(), weight.data_ptr()}


def test_double_backward_says_that_there_is_none() -> None:
    x = torch.randn(2, 9, 4, dtype=torch.float64, requires_grad=True)
    weight, _ = parameters(4, 3)
    y = kernels.depthwise_conv1d(x, weight, padding=1)
    (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"depthwise_conv1d has no double backward"):
        dx.sum().backward()


def test_an_empty_batch() -> None:
    x = torch.randn(0, 9, 4, dtype=torch.float64, requires_grad=True)
    weight, bias = parameters(4, 3)
    y = kernels.depthwise_conv1d(x, weight, bias, padding=1)
    assert y.shape == (0, 9, 4)
    y.sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.zeros_like(weight))


def test_lengths_outside_the_record_are_its_ends() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(3, 9, 4), torch.randn(4, 1, 3)
    for dtype in (torch.int32, torch.int64):
        info = torch.iinfo(dtype)
        for padding in (0, 1, 5):
            wrong = torch.tensor([info.max, info.min, 10], dtype=dtype)
            right = torch.tensor([9, 0, 9])
            y, wanted = (
                kernels.depthwise_conv1d(x, weight, padding=padding, lengths=lengths)
                for lengths in (wrong, right)
            )
            assert torch.equal(y, wanted)


def test_the_gradient_of_a_bias_has_its_own_dtype() -> None:
    x = torch.ones(1, 257, 4, dtype=torch.bfloat16)  # 257 is no bfloat16
    weight, bias = torch.ones(4, 1, 3, dtype=torch.bfloat16), torch.zeros(4, requires_grad=True)
    one = torch.ones(4, dtype=torch.bfloat16)
    for y in (
        kernels.depthwise_conv1d(x, weight, bias, padding=1),
        kernels.grn(x, one, bias),
        kernels.depthwise_conv1d_layer_norm(x, weight, None, one, bias),
    ):
        (gradient,) = torch.autograd.grad(y, bias, torch.ones_like(y))
        assert torch.equal(gradient, torch.full((4,), 257.0))


def test_forward_mode_is_refused_not_zero() -> None:
    x, weight, bias = torch.randn(1, 9, 4), torch.randn(4, 1, 3), torch.randn(4)
    functions = (
        lambda m, x: m.depthwise_conv1d(x, weight, padding=1),
        lambda m, x: m.gelu_grn(x, bias, bias),
        lambda m, x: m.depthwise_conv1d_layer_norm(x, weight, bias, bias, bias),
    )
    for function in functions:
        with pytest.raises(NotImplementedError, match=r"no forward mode; .*reference have one"):
            torch.func.jvp(lambda x: function(kernels, x), (x,), (torch.ones_like(x),))  # noqa: B023
        _, tangent = torch.func.jvp(
            lambda x: function(kernels.reference, x),  # noqa: B023
            (x,),
            (torch.ones_like(x),),
        )
        assert tangent.abs().max() > 0.1


def test_nothing_past_the_length_reaches_a_sum_without_eps() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 9, 5, requires_grad=True), torch.randn(5, 1, 3, requires_grad=True)
    one = torch.ones(5, requires_grad=True)
    y = kernels.depthwise_conv1d_layer_norm(
        x, weight, None, one, one, eps=0.0, lengths=torch.tensor([4])
    )
    for gradient in torch.autograd.grad(y.square().sum(), (x, weight, one)):
        assert gradient.isfinite().all()


def test_layer_norm_follows() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 9, 4, dtype=torch.float64)
    weight, bias = parameters(4, 7)
    ln_weight, ln_bias = torch.randn(2, 4, dtype=torch.float64)
    args = (x, weight, bias, ln_weight, ln_bias)
    torch.testing.assert_close(
        kernels.depthwise_conv1d_layer_norm(*args, eps=1e-3),
        kernels.reference.depthwise_conv1d_layer_norm(*args, eps=1e-3),
    )
    with pytest.raises(ValueError, match="4 taps"):
        kernels.depthwise_conv1d_layer_norm(x, torch.randn(4, 1, 4), None, ln_weight, ln_bias)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"x": torch.zeros(9, 4)},
            r"x must be a floating .*, got torch.float32 of shape \(9, 4\)",
        ),
        ({"x": torch.zeros(2, 9, 4, dtype=torch.int64)}, "got torch.int64"),
        ({"x": torch.zeros(2, 9, 4, dtype=torch.float8_e5m2)}, "got torch.float8_e5m2"),
        ({"weight": torch.zeros(3, 1, 3)}, r"weight must be \(4, 1, K\) as nn.Conv1d's"),
        ({"weight": torch.zeros(4, 3)}, r"weight must be \(4, 1, K\).*got \(4, 3\)"),
        ({"weight": torch.zeros(())}, r"weight must be \(4, 1, K\).*got \(\)"),
        ({"weight": torch.zeros(4, 1, 0)}, r"weight must be \(4, 1, K\)"),
        (
            {"weight": torch.zeros(4, 1, 3).long()},
            "weight must be floating, .* got torch.int64",
        ),
        ({"weight": torch.zeros(4, 1, 3, device="meta")}, "weight is on meta, x on cpu"),
        ({"x": torch.zeros(9), "layout": "BCT"}, r"x must be a floating \(B, C, T\)"),
        ({"bias": torch.zeros(3)}, r"bias must be \(4,\), got \(3,\)"),
        ({"padding": -1}, "padding=-1"),
        ({"weight": torch.zeros(4, 1, 12), "padding": 1}, r"T=9 and K=12: use padding >= 2"),
        ({"lengths": torch.tensor([1.0, 2.0])}, "lengths must be int32 or int64"),
        ({"lengths": torch.tensor([1])}, r"lengths must be .* of shape \(2,\)"),
        ({"layout": "TBC"}, "layout='TBC' is unknown"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    arguments = {"x": torch.zeros(2, 9, 4), "weight": torch.zeros(4, 1, 3), "padding": 1}
    with pytest.raises(ValueError, match=message):
        kernels.depthwise_conv1d(**(arguments | changes))


@pytest.mark.gpu
@pytest.mark.parametrize("layout", ["BTC", "BCT"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_triton_on_a_gpu(dtype: torch.dtype, layout: kernels.reference.Layout) -> None:
    tolerance = TOLERANCE[dtype]
    torch.manual_seed(0)
    x = torch.randn((5, 313, 130) if layout == "BTC" else (5, 130, 313), dtype=dtype)
    weight, bias, lengths = (
        torch.randn(130, 1, 7),
        torch.randn(130),
        torch.tensor([313, 0, 9, 100, 77]),
    )
    results = []
    for device, cast in (("cpu", torch.float64), ("cuda", dtype), ("cuda", dtype)):
        leaves = [t.to(device, t.dtype if t is not x else cast) for t in (x, weight, bias)]
        leaves = [t.detach().requires_grad_() for t in leaves]
        y = kernels.depthwise_conv1d(*leaves, padding=3, lengths=lengths.to(device), layout=layout)
        dy = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape)
        gradients = torch.autograd.grad(y, leaves, dy.to(device, y.dtype))
        results.append([t.cpu() for t in (y.detach(), *gradients)])
    expected, first, second = results
    for actual, again, wanted in zip(first, second, expected, strict=True):
        assert torch.equal(actual, again)
        scale = wanted.abs().max().item()
        torch.testing.assert_close(
            actual.double(), wanted.double(), rtol=tolerance, atol=tolerance * scale
        )
