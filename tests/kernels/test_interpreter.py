"""The Triton kernels in Triton's interpreter against the float64 reference, with all gradients.

TRITON_INTERPRET must be set before the kernels are imported, so the one test here runs the `case_*`
functions of this file in a process of their own. The interpreter's cost is 10 to 30 ms a program,
whatever its size: large tiles, small shapes. Every buffer that the launchers allocate is filled
with NaN, so that an element left out cannot pass, and lies between two canaries, so that an element
too many cannot pass either.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest
import torch
from interpreted import Canaries, assert_close, gradients, normalize, run_cases, strided

import esi_fast.kernels


def test_kernels_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    run_cases(__file__, interpreted=True)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fills what the launchers allocate with NaN, and watches what lies beside it."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    canaries = Canaries()
    # A function, which becomes a method.
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda like, *a, **k: canaries(like, *a, **k))
    try:
        assert torch.zeros(1).new_empty(7).isnan().all()
        yield
        assert len(canaries.buffers) > 1
        assert canaries.live()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("place", [-1, 7])
def case_a_write_beside_a_buffer_is_seen(place):
    canaries = Canaries()
    buffer = canaries(torch.zeros(1), 7)
    assert canaries.live()
    buffer.fill_(0.0)
    assert canaries.live()
    outside = buffer.as_strided((1,), (1,), buffer.storage_offset() + place)
    outside.fill_(0.0)
    assert not canaries.live()


# B, T, C, K, padding, bias, lengths, strides, dtype
CONVOLUTIONS = [
    (2, 33, 40, 7, 3, True, None, "dense", torch.float64),
    (1, 1, 1, 7, 3, True, None, "dense", torch.float64),
    (3, 5, 3, 3, 1, False, None, "dense", torch.float64),
    (1, 65, 96, 7, 3, True, None, "dense", torch.float64),
    (2, 7, 130, 5, 2, True, None, "sliced", torch.float64),
    (2, 33, 3, 1, 0, True, None, "dense", torch.float64),
    (2, 9, 5, 7, 0, True, None, "dense", torch.float64),  # fewer outputs than inputs
    (2, 1, 3, 7, 6, True, None, "dense", torch.float64),  # more outputs than inputs
    (1, 5, 3, 3, 5, True, None, "dense", torch.float64),  # outputs that see padding only
    (2, 30, 3, 1, 4, True, None, "dense", torch.float64),  # outputs fill one tile more than inputs
    (1, 40, 3, 31, 15, True, None, "dense", torch.float64),
    (2, 10, 5, 4, 2, True, None, "dense", torch.float64),  # an even number of taps
    (4, 33, 40, 7, 3, True, [33, 0, 17, 2**31], "dense", torch.float64),
    (3, 33, 5, 7, 0, True, [33, 3, 8], "sliced", torch.float64),
    (2, 65, 3, 7, 3, True, [64, 31], "transposed", torch.float64),
    (2, 33, 96, 7, 3, True, None, "transposed", torch.float32),
    (2, 33, 40, 7, 3, True, [33, 20], "dense", torch.float32),
    (2, 33, 40, 7, 3, True, None, "dense", torch.float16),
    (2, 33, 40, 7, 3, True, None, "dense", torch.bfloat16),
]


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(
    ("B", "T", "C", "K", "padding", "has_bias", "lengths", "strides", "dtype"), CONVOLUTIONS
)
def case_depthwise_conv1d(B, T, C, K, padding, has_bias, lengths, strides, dtype):
    module = importlib.import_module("esi_fast.kernels.depthwise_conv1d")
    torch.manual_seed(0)
    x = torch.randn(B, T, C, dtype=dtype)
    weight = torch.randn(C, 1, K, dtype=dtype)
    bias = torch.randn(C, dtype=dtype) if has_bias else None
    num_out = T + 2 * padding - (K - 1)
    dy = torch.randn(B, num_out, C, dtype=dtype)
    ends = None if lengths is None else torch.tensor(lengths)
    for b, end in enumerate(lengths or []):  # what lies past the end must not be read
        x[b, end:] = float("nan")
        dy[b, max(0, end + 2 * padding - (K - 1)) :] = float("nan")
    x, dy = strided(x, strides), strided(dy, strides)
    # Of many programs, or of few: more tiles than partials, so that each serves several.
    programs = 2 if B > 2 or T > 64 else 512
    sizes = (32, 1, 64, 4) if K > module.MAX_HELD_TAPS else (8, 4, 64, 4)
    tile = module.Tile(*sizes, programs)

    leaves = [t.detach().double().requires_grad_() for t in (x, weight)]
    if bias is not None:
        leaves.append(bias.double().requires_grad_())
    reference = esi_fast.kernels.reference.depthwise_conv1d
    expected = reference(*leaves, padding=padding, lengths=ends)
    y = module.launch_forward(x, weight, bias, padding, ends, tile)
    assert y.dtype == dtype
    assert_close(y, expected.detach(), dtype, "y: ")
    need = [True, True, has_bias]
    got = module.launch_backward(dy, x, weight, dtype, padding, ends, need, tile)
    for name, actual, wanted in zip(
        ("dx", "dweight", "dbias"), got, gradients(expected, leaves, dy.double()), strict=False
    ):
        assert actual.dtype == dtype
        assert_close(actual, wanted, dtype, f"{name}: ")


@pytest.mark.usefixtures("poisoned")
def case_depthwise_conv1d_skips_what_is_not_needed():
    module = importlib.import_module("esi_fast.kernels.depthwise_conv1d")
    torch.manual_seed(0)
    x, dy, weight = torch.randn(2, 9, 5), torch.randn(2, 9, 5), torch.randn(5, 1, 3)
    whole = module.launch_backward(dy, x, weight, x.dtype, 1, None, [True, True, True])
    for need in ([True, False, False], [False, True, False], [False, False, True]):
        got = module.launch_backward(dy, x, weight, x.dtype, 1, None, need)
        for actual, wanted, needed in zip(got, whole, need, strict=True):
            assert torch.equal(actual, wanted) if needed else actual.numel() == 0


def case_the_gradient_of_a_bias_has_its_own_dtype():
    conv = importlib.import_module("esi_fast.kernels.depthwise_conv1d")
    conv_ln = importlib.import_module("esi_fast.kernels.depthwise_conv1d_layer_norm")
    grn = importlib.import_module("esi_fast.kernels.grn")
    x = torch.ones(1, 257, 2, dtype=torch.bfloat16)  # 257 is no bfloat16
    weight, one = torch.ones(2, 1, 3, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)
    wanted = torch.full((2,), 257.0)
    _, dweight, dbias = conv.launch_backward(x, x, weight, torch.float32, 1, None, [True] * 3)
    assert dweight.dtype == torch.bfloat16
    assert torch.equal(dbias, wanted)
    rows = torch.ones(1, 257)
    given = (x, x, weight, None, one, torch.float32, rows, rows, None, [True, True, False])
    *_, dscale, dshift = conv_ln.launch_backward(*given)
    assert dscale.dtype == torch.bfloat16
    assert torch.equal(dshift, wanted)
    norm = torch.ones(1, 2)
    _, dgamma, dbeta, *_ = grn.launch_backward(x, x, one, torch.float32, norm, 1e-6, "none", None)
    assert dgamma.dtype == torch.bfloat16
    assert torch.equal(dbeta, wanted)


def case_lengths_outside_the_record_are_its_ends():
    conv = importlib.import_module("esi_fast.kernels.depthwise_conv1d")
    torch.manual_seed(0)
    x, dy, weight = torch.randn(3, 9, 5), torch.randn(3, 17, 5), torch.randn(5, 1, 3)
    need = [True, True, True]
    for wrong, right in (([-5, 2**31 - 1, 4], [0, 9, 4]), ([-(2**31), 10, 9], [0, 9, 9])):
        got, wanted = (
            [
                conv.launch_forward(x, weight, None, 5, lengths),
                *conv.launch_backward(dy, x, weight, x.dtype, 5, lengths, need),
            ]
            for lengths in (torch.tensor(wrong, dtype=torch.int32), torch.tensor(right))
        )
        for a, b in zip(got, wanted, strict=True):
            assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of the division by zero
def case_nothing_past_the_length_reaches_a_sum_without_eps():
    module = importlib.import_module("esi_fast.kernels.depthwise_conv1d_layer_norm")
    torch.manual_seed(0)
    x, dy, weight = torch.randn(1, 9, 5), torch.randn(1, 9, 5), torch.randn(5, 1, 3)
    one, lengths = torch.ones(5), torch.tensor([4])
    _, mean, rstd = module.launch_forward(x, weight, None, one, one, 0.0, lengths)
    assert not rstd.isfinite().all()
    given = (weight, None, one, x.dtype, mean, rstd, lengths, [True, True, False])
    for gradient in module.launch_backward(dy, x, *given):
        assert gradient.isfinite().all()


@pytest.mark.usefixtures("poisoned")
def case_expanded_gradients_cost_no_copy():
    conv = importlib.import_module("esi_fast.kernels.depthwise_conv1d")
    grn = importlib.import_module("esi_fast.kernels.grn")
    torch.manual_seed(0)
    x, weight = torch.randn(2, 9, 5), torch.randn(5, 1, 3)
    dy = torch.ones(()).expand(2, 9, 5)
    need = [True, True, True]
    for a, b in zip(
        conv.launch_backward(dy, x, weight, x.dtype, 1, None, need),
        conv.launch_backward(dy.contiguous(), x, weight, x.dtype, 1, None, need),
        strict=True,
    ):
        assert torch.equal(a, b)
    gamma, norm = torch.randn(5), x.norm(dim=1)
    for a, b in zip(
        grn.launch_backward(dy, x, gamma, x.dtype, norm, 1e-6, "none", None),
        grn.launch_backward(dy.contiguous(), x, gamma, x.dtype, norm, 1e-6, "none", None),
        strict=True,
    ):
        assert torch.equal(a, b)


def case_empty_batch():
    conv = importlib.import_module("esi_fast.kernels.depthwise_conv1d")
    grn = importlib.import_module("esi_fast.kernels.grn")
    x, weight, gamma = torch.randn(0, 9, 5), torch.randn(5, 1, 3), torch.randn(5)
    assert conv.launch_forward(x, weight, None, 1, None).shape == (0, 9, 5)
    _, dweight, dbias = conv.launch_backward(x, x, weight, x.dtype, 1, None, [True] * 3)
    assert torch.equal(dweight, torch.zeros(5, 1, 3))
    assert torch.equal(dbias, torch.zeros(5))
    y, norm = grn.launch_forward(x, gamma, gamma, 1e-6, "gelu", None)
    assert y.shape == (0, 9, 5)
    given = (x, x, gamma, gamma.dtype, norm, 1e-6, "gelu", None)
    _, dgamma, dbeta, _, _ = grn.launch_backward(*given)
    assert torch.equal(dgamma, torch.zeros(5))
    assert torch.equal(dbeta, torch.zeros(5))


# B, T, C, K, bias, lengths, strides, dtype
BOTH = [
    (2, 33, 40, 7, True, None, "dense", torch.float64),
    (1, 1, 1, 7, True, None, "dense", torch.float64),
    (1, 9, 130, 3, False, None, "sliced", torch.float64),
    (3, 17, 5, 7, True, [17, 0, 9], "dense", torch.float64),
    (1, 12, 3, 11, True, [7], "transposed", torch.float64),
    (1, 20, 300, 7, True, None, "dense", torch.float32),
    (2, 33, 40, 7, True, None, "dense", torch.float16),
    (2, 33, 40, 7, True, [33, 20], "dense", torch.bfloat16),
]


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(("B", "T", "C", "K", "has_bias", "lengths", "strides", "dtype"), BOTH)
def case_depthwise_conv1d_layer_norm(B, T, C, K, has_bias, lengths, strides, dtype):
    module = importlib.import_module("esi_fast.kernels.depthwise_conv1d_layer_norm")
    torch.manual_seed(0)
    x, dy = torch.randn(2, B, T, C, dtype=dtype)
    weight = torch.randn(C, 1, K, dtype=dtype)
    bias, scale, shift = torch.randn(3, C, dtype=dtype)
    ends = None if lengths is None else torch.tensor(lengths)
    for b, end in enumerate(lengths or []):
        x[b, end:] = float("nan")
        dy[b, end:] = float("nan")
    x, dy = strided(x, strides), strided(dy, strides)
    parameters = [weight, bias, scale, shift] if has_bias else [weight, scale, shift]
    leaves = [t.detach().double().requires_grad_() for t in (x, *parameters)]
    given = leaves if has_bias else [*leaves[:2], None, *leaves[2:]]
    reference = esi_fast.kernels.reference.depthwise_conv1d_layer_norm
    expected = reference(*given, lengths=ends)
    given = [x, weight, bias if has_bias else None, scale, shift]
    y, mean, rstd = module.launch_forward(*given, 1e-6, ends)
    assert y.dtype == dtype
    assert_close(y, expected.detach(), dtype, "y: ")
    # More tiles than programs, each of which serves several.
    tile = module.Tile(2, 4, max(32, 1 << (C - 1).bit_length()), 4, programs=2) if B > 2 else None
    need = [True, True, has_bias]
    got = module.launch_backward(dy, *given[:4], dtype, mean, rstd, ends, need, tile)
    got = [g for g in got if g.numel()]
    for name, actual, wanted in zip(
        ("dx", *["weight", "bias", "scale", "shift"]),
        got,
        gradients(expected, leaves, dy.double()),
        strict=False,
    ):
        assert actual.dtype == dtype
        assert_close(actual, wanted, dtype, f"{name}: ")


# B, T, C, activation, lengths, strides, dtype
NORMALISATIONS = [
    (2, 33, 40, "gelu", None, "dense", torch.float64),
    (2, 33, 40, "gelu_tanh", None, "dense", torch.float64),
    (2, 33, 40, "none", None, "dense", torch.float64),
    (1, 1, 1, "gelu", None, "dense", torch.float64),
    (3, 5, 3, "none", None, "sliced", torch.float64),
    (2, 65, 96, "gelu", None, "dense", torch.float64),
    (1, 7, 130, "gelu", None, "transposed", torch.float64),
    (4, 33, 40, "gelu", [33, 0, 17, 2**31], "dense", torch.float64),
    (2, 65, 3, "none", [64, 31], "transposed", torch.float64),
    (2, 65, 3, "gelu_tanh", [64, 31], "sliced", torch.float64),
    (2, 33, 96, "gelu", None, "dense", torch.float32),
    (2, 33, 40, "gelu", [33, 20], "dense", torch.float16),
    (2, 33, 40, "gelu", None, "dense", torch.bfloat16),
]


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(
    ("B", "T", "C", "activation", "lengths", "strides", "dtype"), NORMALISATIONS
)
def case_grn(B, T, C, activation, lengths, strides, dtype):
    module = importlib.import_module("esi_fast.kernels.grn")
    torch.manual_seed(0)
    x = torch.randn(B, T, C, dtype=dtype)
    if C > 3:
        x[0, :, 1] = 0.0  # a dead channel
    gamma, beta = torch.randn(C, dtype=dtype), torch.randn(C, dtype=dtype)
    dy = torch.randn(B, T, C, dtype=dtype)
    ends = None if lengths is None else torch.tensor(lengths)
    for b, end in enumerate(lengths or []):
        x[b, end:] = float("nan")
        dy[b, end:] = float("nan")
    x, dy = strided(x, strides), strided(dy, strides)
    tiles = module.Tile(32, 1, 128, 4), module.Tile(16, 1, 128, 4)

    leaves = [t.detach().double().requires_grad_() for t in (x, gamma, beta)]
    expected = normalize(*leaves, 1e-6, activation, ends)
    forward = esi_fast.kernels.reference.grn_forward
    expected_norm = forward(*leaves, 1e-6, activation, ends)[1]
    y, norm = module.launch_forward(x, gamma, beta, 1e-6, activation, ends, *tiles)
    assert y.dtype == dtype
    assert_close(y, expected.detach(), dtype, "y: ")
    assert_close(norm, expected_norm.detach(), dtype, "norm: ")
    wanted = gradients(expected, leaves, dy.double())
    given = (dy, x, gamma, dtype, norm, 1e-6, activation, ends, *tiles)
    alone = module.launch_backward(*given)
    layers = module.launch_backward(*given, beta)
    assert [t.numel() for t in alone[3:]] == [0, 0]  # neither y nor the sums of dx
    wanted += [expected.detach(), wanted[0].sum((0, 1))]
    for name, actual, want in zip(("dx", "dgamma", "dbeta", "y"), layers, wanted, strict=False):
        assert actual.dtype == dtype
        assert_close(actual, want, dtype, f"{name}: ")
    assert_close(layers[4], wanted[4], dtype, "sums of dx: ")
    for one, other in zip(alone[:3], layers, strict=False):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def case_gelu_is_right_wherever_it_is(dtype):
    # Relative, as the tail is small: value by a GRN of gamma 0, slope by its gradient.
    module = importlib.import_module("esi_fast.kernels.grn")
    x = torch.linspace(-8, 8, 801, dtype=dtype).view(1, -1, 1)
    zero, one = torch.zeros(1, dtype=dtype), torch.ones_like(x)
    y, norm = module.launch_forward(x, zero, zero, 1e-6, "gelu", None)
    dx = module.launch_backward(one, x, zero, dtype, norm, 1e-6, "gelu", None)[0]
    exact = x.double().requires_grad_()
    # Phi(x) as a tail of the error function: no cancellation.
    value = exact * torch.special.erfc(-exact / 2**0.5) / 2
    (slope,) = torch.autograd.grad(value.sum(), exact)
    relative = 2**-7 if dtype == torch.bfloat16 else 2e-3
    small = max(1e-8, torch.finfo(dtype).smallest_normal)  # beyond -5.5 the tail matters no more
    torch.testing.assert_close(y.double(), value.detach(), rtol=relative, atol=small)
    near = slope.abs() > 0.01  # the slope crosses zero at -0.75
    torch.testing.assert_close(dx.double()[near], slope[near], rtol=2 * relative, atol=small)


def case_grn_statistics_do_not_overflow_in_float16():
    module = importlib.import_module("esi_fast.kernels.grn")
    x = torch.full((1, 64, 4), 300.0, dtype=torch.float16)  # the sum of squares is 5,760,000
    one = torch.ones(4, dtype=torch.float16)
    y, norm = module.launch_forward(x, one, one, 1e-6, "none", None)
    assert torch.equal(norm, torch.full((1, 4), 2400.0))
    assert torch.equal(y, torch.full_like(x, 601.0))


def case_shipped_tiles_serve_both_layouts():
    conv = importlib.import_module("esi_fast.kernels.depthwise_conv1d")
    grn = importlib.import_module("esi_fast.kernels.grn")
    torch.manual_seed(0)
    weight, gamma = torch.randn(20, 1, 7), torch.randn(20)
    x = torch.randn(1, 40, 20)
    for how in ("dense", "transposed"):
        y = conv.launch_forward(strided(x, how), weight, None, 3, None)
        expected = esi_fast.kernels.reference.depthwise_conv1d(x, weight, padding=3)
        torch.testing.assert_close(y, expected)
        assert (y.stride(1) == 1) == (how == "transposed")
        y, _ = grn.launch_forward(strided(x, how), gamma, gamma, 1e-6, "gelu", None)
        torch.testing.assert_close(y, esi_fast.kernels.reference.gelu_grn(x, gamma, gamma))
        assert (y.stride(1) == 1) == (how == "transposed")
