"""The reference against PyTorch's convolution, transformers' GRN, and each record run alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted import normalize
from torch import Tensor

from esi_fast.kernels import reference

SETTINGS = settings(max_examples=25, deadline=None, derandomize=True)


def gradients(output: Tensor, inputs: list[Tensor], dy: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(output, inputs, dy)


@st.composite
def convolutions(draw: st.DrawFn) -> dict[str, int]:
    taps = draw(st.integers(1, 9))
    padding = draw(st.integers(0, 9))
    shortest = max(1, taps - 2 * padding)
    return {
        "B": draw(st.integers(1, 3)),
        "T": draw(st.integers(shortest, shortest + 20)),
        "C": draw(st.sampled_from([1, 2, 3, 17, 40])),
        "K": taps,
        "padding": padding,
    }


@SETTINGS
@given(convolutions(), st.sampled_from(["BTC", "BCT"]), st.booleans())
def test_depthwise_conv1d_is_torch_conv1d(
    shape: dict[str, int], layout: str, has_bias: bool
) -> None:
    B, T, C, K, padding = shape.values()
    torch.manual_seed(0)
    x = torch.randn((B, T, C) if layout == "BTC" else (B, C, T), dtype=torch.float64)
    inputs = [x.requires_grad_(), torch.randn(C, 1, K, dtype=torch.float64, requires_grad=True)]
    if has_bias:
        inputs.append(torch.randn(C, dtype=torch.float64, requires_grad=True))
    y = reference.depthwise_conv1d(*inputs, padding=padding, layout=layout)
    x_BCT = x if layout == "BCT" else x.transpose(1, 2)
    expected = F.conv1d(x_BCT, *inputs[1:], padding=padding, groups=C)
    expected = expected if layout == "BCT" else expected.transpose(1, 2)
    torch.testing.assert_close(y, expected)
    dy = torch.randn_like(y)
    for actual, wanted in zip(
        gradients(y, inputs, dy), gradients(expected, inputs, dy), strict=True
    ):
        torch.testing.assert_close(actual, wanted)


@SETTINGS
@given(convolutions(), st.booleans(), st.booleans())
def test_written_out_gradient_of_the_convolution_is_that_of_autograd(
    shape: dict[str, int], transposed: bool, with_lengths: bool
) -> None:
    B, T, C, K, padding = shape.values()
    torch.manual_seed(0)
    x = torch.randn(B, T, C, dtype=torch.float64)
    if transposed:
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    inputs = [x.requires_grad_(), torch.randn(C, 1, K, dtype=torch.float64, requires_grad=True)]
    inputs.append(torch.randn(C, dtype=torch.float64, requires_grad=True))
    lengths = torch.randint(0, T + 1, (B,)) if with_lengths else None
    y = reference.depthwise_conv1d(*inputs, padding=padding, lengths=lengths)
    dy = torch.randn_like(y)
    with torch.no_grad():
        written = reference.depthwise_conv1d_backward(
            dy, x, inputs[1], x.dtype, padding, lengths, (True, True, True)
        )
    for actual, wanted in zip(written, gradients(y, inputs, dy), strict=True):
        torch.testing.assert_close(actual, wanted)


def test_a_record_with_a_length_is_the_record_alone() -> None:
    torch.manual_seed(0)
    B, T, C = 4, 21, 6
    lengths = torch.tensor([21, 9, 2, 0])
    x = torch.randn(B, T, C, dtype=torch.float64)
    for b, end in enumerate(lengths.tolist()):
        x[b, end:] = float("nan")  # must not reach values, sums or gradients
    x.requires_grad_()
    weight, bias, gamma, beta = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((C, 1, 5), (C,), (C,), (C,))
    )
    parameters = [weight, bias, gamma, beta]
    y = reference.depthwise_conv1d(x, weight, bias, padding=2, lengths=lengths)
    z = reference.gelu_grn(y, gamma, beta, lengths=lengths)
    dz = torch.randn_like(z)
    dx, *dparameters = gradients(z, [x, *parameters], dz)
    totals = [torch.zeros_like(p) for p in parameters]
    for b, end in enumerate(lengths.tolist()):
        assert torch.equal(z[b, end:], torch.zeros(T - end, C, dtype=torch.float64))
        assert torch.equal(dx[b, end:], torch.zeros(T - end, C, dtype=torch.float64))
        if end == 0:
            continue
        alone = x.detach()[b : b + 1, :end].requires_grad_()
        alone_y = reference.depthwise_conv1d(alone, weight, bias, padding=2)
        alone_z = reference.gelu_grn(alone_y, gamma, beta)
        torch.testing.assert_close(z[b : b + 1, :end], alone_z)
        alone_dx, *rest = gradients(alone_z, [alone, *parameters], dz[b : b + 1, :end])
        torch.testing.assert_close(dx[b : b + 1, :end], alone_dx)
        totals = [total + part for total, part in zip(totals, rest, strict=True)]
    for actual, wanted in zip(dparameters, totals, strict=True):
        torch.testing.assert_close(actual, wanted)


def test_a_length_shortens_the_output_of_an_unpadded_convolution() -> None:
    x, weight = torch.ones(2, 10, 1), torch.ones(1, 1, 3)
    y = reference.depthwise_conv1d(x, weight, padding=0, lengths=torch.tensor([10, 5]))
    assert y[:, :, 0].tolist() == [[3.0] * 8, [3.0] * 3 + [0.0] * 5]


@pytest.mark.parametrize("activation", ["none", "gelu", "gelu_tanh"])
def test_grn_is_that_of_transformers(activation: str) -> None:
    from transformers.models.convnextv2.modeling_convnextv2 import ConvNextV2GRN

    torch.manual_seed(0)
    B, T, C = 3, 50, 40
    theirs = ConvNextV2GRN(C).double()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(B, T, C, dtype=torch.float64, requires_grad=True)
    inputs = [x, *theirs.parameters()]
    gamma, beta = theirs.weight.flatten(), theirs.bias.flatten()
    if activation == "none":
        a, y = x, reference.grn(x, gamma, beta)
    else:
        approximate = "tanh" if activation == "gelu_tanh" else "none"
        a = F.gelu(x, approximate=approximate)
        y = reference.gelu_grn(x, gamma, beta, approximate=approximate)
    expected = theirs(a.unsqueeze(2)).squeeze(2)  # a T x 1 image
    torch.testing.assert_close(y, expected)
    dy = torch.randn_like(y)
    for actual, wanted in zip(
        gradients(y, inputs, dy), gradients(expected, inputs, dy), strict=True
    ):
        torch.testing.assert_close(actual, wanted)


@SETTINGS
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 20), st.sampled_from([1, 2, 3, 17, 40])),
    st.sampled_from(["none", "gelu", "gelu_tanh"]),
    st.booleans(),
    st.booleans(),
)
def test_written_out_gradient_of_grn_is_that_of_autograd(
    shape: tuple[int, int, int], activation: str, with_lengths: bool, transposed: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    x[0, :, 0] = 0.0  # a dead channel
    if transposed:
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    lengths = torch.randint(0, shape[1] + 1, shape[:1]) if with_lengths else None
    gamma, beta = torch.randn(2, shape[2], dtype=torch.float64)
    inputs = [x.requires_grad_(), gamma.requires_grad_(), beta.requires_grad_()]
    y = normalize(*inputs, 1e-6, activation, lengths)
    dy = torch.randn_like(y)
    with torch.no_grad():
        written_y, norm = reference.grn_forward(*inputs, 1e-6, activation, lengths)
        torch.testing.assert_close(written_y, y)
        written = reference.grn_backward(dy, x, gamma, x.dtype, norm, 1e-6, activation, lengths)
    for actual, wanted in zip(written, gradients(y, inputs, dy), strict=True):
        torch.testing.assert_close(actual, wanted)


def test_a_dead_record_and_a_dead_channel_have_finite_gradients() -> None:
    x = torch.zeros(2, 5, 3)
    x[1, :, :2] = 1.0
    x.requires_grad_()
    gamma, beta = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    y = reference.grn(x, gamma, beta)
    assert torch.equal(y[0], torch.ones(5, 3))
    dx, dgamma, dbeta = gradients(y, [x, gamma, beta], torch.ones_like(y))
    assert torch.equal(dx[0], torch.ones(5, 3))  # s = 1, and nothing through a norm of zero
    assert torch.equal(dx[1, :, 2], torch.ones(5))
    assert dgamma.isfinite().all()
    assert torch.equal(dbeta, torch.full((3,), 10.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_once(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 30, 8, dtype=dtype), torch.randn(8, 1, 7)
    gamma, beta = torch.randn(8), torch.randn(8)
    y = reference.depthwise_conv1d(x, weight, padding=3)
    assert torch.equal(y, reference.depthwise_conv1d(x.float(), weight, padding=3).to(dtype))
    y = reference.gelu_grn(x, gamma, beta)
    assert torch.equal(y, reference.gelu_grn(x.float(), gamma, beta).to(dtype))


def test_the_reference_can_be_differentiated_twice() -> None:
    torch.manual_seed(0)
    x, weight, gamma, beta = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((1, 4, 3), (3, 1, 3), (3,), (3,))
    )

    def block(x: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return reference.gelu_grn(
            reference.depthwise_conv1d(x, weight, padding=1), gamma, beta, approximate="tanh"
        )

    assert torch.autograd.gradgradcheck(block, (x, weight, gamma, beta), fast_mode=True)


def test_conv_and_layer_norm_are_those_of_torch() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 20, 8, dtype=torch.float64)
    weight, bias = torch.randn(8, 1, 7, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    norm = torch.nn.LayerNorm(8, eps=1e-3, dtype=torch.float64)
    torch.nn.init.normal_(norm.weight)
    expected = norm(F.conv1d(x.transpose(1, 2), weight, bias, padding=3, groups=8).transpose(1, 2))
    y = reference.depthwise_conv1d_layer_norm(x, weight, bias, norm.weight, norm.bias, eps=1e-3)
    torch.testing.assert_close(y, expected)
