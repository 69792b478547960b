"""The operators that join several layers, as users call them; and what a block keeps."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from interpreted import TOLERANCE
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from esi_fast import kernels

C, HIDDEN, OUT = 4, 6, 3


def leaves(name: str, dtype: torch.dtype = torch.float64, T: int = 9) -> list[Tensor]:
    """The tensors of an operator, in order."""
    torch.manual_seed(0)
    shapes = {
        "depthwise_conv1d_layer_norm": [(2, T, C), (C, 1, 5), (C,), (C,), (C,)],
        "gelu_grn_mlp": [
            (2, T, C), (HIDDEN, C), (HIDDEN,), (HIDDEN,), (HIDDEN,), (OUT, HIDDEN), (OUT,),
        ],
    }[name]  # fmt: skip
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def in_plain_torch(name: str, tensors: list[Tensor]) -> Tensor:
    """The same in torch's own layers."""
    if name == "depthwise_conv1d_layer_norm":
        x, weight, bias, scale, shift = tensors
        y = F.conv1d(x.transpose(1, 2), weight, bias, padding=2, groups=C).transpose(1, 2)
        return F.layer_norm(y, (C,), scale, shift, 1e-6)
    x, weight1, bias1, gamma, beta, weight2, bias2 = tensors
    a = F.gelu(F.linear(x, weight1, bias1))
    norm = a.norm(dim=1, keepdim=True)
    y = gamma * (a * (norm / (norm.mean(-1, keepdim=True) + 1e-6))) + beta + a
    return F.linear(y, weight2, bias2)


OPERATORS = pytest.mark.parametrize("name", ["depthwise_conv1d_layer_norm", "gelu_grn_mlp"])


def both(name: str) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    return getattr(kernels, name), getattr(kernels.reference, name)


def run(function: Callable[..., Tensor], tensors: list[Tensor], **options: Any) -> list[Tensor]:
    """The output and all gradients."""
    y = function(*tensors, **options)
    dy = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape)
    return [y, *torch.autograd.grad(y, tensors, dy.to(y.device, y.dtype))]


@OPERATORS
def test_values_and_gradients_are_those_of_torch(name: str) -> None:
    tensors = leaves(name)
    for function in both(name):
        wanted = run(lambda *t: in_plain_torch(name, list(t)), tensors)
        for actual, want in zip(run(function, tensors), wanted, strict=True):
            torch.testing.assert_close(actual, want)


@OPERATORS
def test_a_short_record_is_as_if_alone(name: str) -> None:
    function, _ = both(name)
    x, *parameters = leaves(name)
    y = function(x, *parameters, lengths=torch.tensor([9, 4]))
    torch.testing.assert_close(y[1:, :4], function(x[1:, :4], *parameters))
    (dx,) = torch.autograd.grad(y[:, :4].sum(), x)
    assert torch.equal(dx[1, 4:], torch.zeros(5, C, dtype=torch.float64))


@OPERATORS
def test_gradcheck(name: str) -> None:
    function, _ = both(name)
    assert torch.autograd.gradcheck(function, leaves(name, T=5), fast_mode=True)


@OPERATORS
def test_opcheck(name: str) -> None:
    operator = getattr(torch.ops.esi_fast, name).default
    backward = getattr(torch.ops.esi_fast, f"{name}_backward").default
    tensors = leaves(name, torch.float32)
    plain = [t.detach() for t in tensors]
    lengths = torch.tensor([9, 4])
    if name == "depthwise_conv1d_layer_norm":
        arguments = (*tensors, 1e-6, lengths)
        y, mean, rstd = operator(*plain, 1e-6, lengths)
        dtype = plain[-1].dtype
        of_backward = (y, *plain[:4], dtype, mean, rstd, lengths, [True, False, True])
    else:
        arguments = (*tensors, 1e-6, "gelu", lengths)
        y, hidden, norm = operator(*plain, 1e-6, "gelu", lengths)
        x, weight1, _, gamma, beta, weight2, _ = plain
        given = (y, x, weight1, gamma, beta, weight2, hidden, norm, 1e-6, "gelu", lengths)
        of_backward = (*given, [True, False, True, True, True, False, True])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.library.opcheck(operator, arguments)
        torch.library.opcheck(backward, of_backward)


def test_what_is_frozen_costs_no_product() -> None:
    tensors = leaves("gelu_grn_mlp", torch.float32)
    # One for the gradient of the hidden layer, one each for those of x and of the two weights.
    for frozen, wanted in (([], 4), ([1], 3), ([0], 3), ([1, 5], 2), ([0, 1, 2, 5, 6], 1)):
        given = [t.detach().requires_grad_(i not in frozen) for i, t in enumerate(tensors)]
        y = kernels.gelu_grn_mlp(*given)
        needed = [t for t in given if t.requires_grad]
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            gradients = torch.autograd.grad(y.sum(), needed)
        counts = {event.key: event.count for event in profile.key_averages()}
        assert sum(counts.get(f"aten::{name}", 0) for name in ("mm", "bmm", "addmm")) == wanted
        everything = torch.autograd.grad(kernels.gelu_grn_mlp(*tensors).sum(), tensors)
        kept = [g for i, g in enumerate(everything) if i not in frozen]
        for actual, want in zip(gradients, kept, strict=True):
            assert torch.equal(actual, want)


def test_the_operator_under_autocast_keeps_its_dtypes() -> None:
    tensors = leaves("gelu_grn_mlp", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y, hidden, _ = torch.ops.esi_fast.gelu_grn_mlp(*tensors, 1e-6, "gelu", None)
        gradients = torch.autograd.grad(y.sum(), tensors)
    assert y.dtype == hidden.dtype == torch.float32
    wanted = torch.autograd.grad(kernels.gelu_grn_mlp(*tensors).sum(), tensors)
    for actual, want in zip(gradients, wanted, strict=True):
        assert torch.equal(actual, want)


def test_the_linear_layers_have_the_dtype_of_the_signal() -> None:
    x, weight1, *rest = leaves("gelu_grn_mlp", torch.float32)
    with pytest.raises(ValueError, match=r"weight1 is torch\.float64, x torch\.float32: cast"):
        kernels.gelu_grn_mlp(x, weight1.double(), *rest)


@OPERATORS
def test_compiles_as_one_graph(name: str) -> None:
    function, _ = both(name)
    compiled = torch.compile(
        lambda x, *rest: function(x * 2, *rest).sin(),
        fullgraph=True, backend="aot_eager", dynamic=True,
    )  # fmt: skip
    for T in (11, 20):
        tensors = leaves(name, T=T)
        wanted = run(lambda x, *rest: function(x * 2, *rest).sin(), tensors)
        for actual, want in zip(run(compiled, tensors), wanted, strict=True):
            torch.testing.assert_close(actual, want)


@OPERATORS
def test_autocast_casts_as_it_does_for_torchs_layers(name: str) -> None:
    function, _ = both(name)
    tensors = leaves(name, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = function(*tensors)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert all(t.grad is not None and t.grad.dtype == torch.float32 for t in tensors)
    torch.testing.assert_close(y.float(), function(*tensors), rtol=0.05, atol=0.05)


@OPERATORS
def test_a_double_backward_says_what_to_use(name: str) -> None:
    function, reference = both(name)
    x, *rest = leaves(name)
    (dx,) = torch.autograd.grad(function(x, *rest).square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match=rf"{name} has no double backward; .*reference"):
        dx.sum().backward()
    (dx,) = torch.autograd.grad(reference(x, *rest).square().sum(), x, create_graph=True)
    dx.sum().backward()


@OPERATORS
def test_an_empty_batch(name: str) -> None:
    function, _ = both(name)
    x, *rest = leaves(name)
    y, dx, *gradients = run(function, [x.detach()[:0].requires_grad_(), *rest])
    assert y.shape[0] == dx.shape[0] == 0
    assert all(not g.any() for g in gradients)


def test_beyond_what_one_program_holds_there_are_two_operators(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import importlib

    module = importlib.import_module("esi_fast.kernels.depthwise_conv1d_layer_norm")
    tensors = leaves("depthwise_conv1d_layer_norm")
    lengths = torch.tensor([9, 4])
    whole = run(kernels.depthwise_conv1d_layer_norm, tensors, lengths=lengths)
    monkeypatch.setattr(module, "MAX_CHANNELS", C - 1)
    with OperatorCounter() as counter:
        run(kernels.depthwise_conv1d_layer_norm, tensors, lengths=lengths)
    assert counter.calls["esi_fast.depthwise_conv1d"] == 1
    assert counter.calls["esi_fast.depthwise_conv1d_layer_norm"] == 0
    for actual, want in zip(
        run(kernels.depthwise_conv1d_layer_norm, tensors, lengths=lengths), whole, strict=True
    ):
        torch.testing.assert_close(actual, want)


@pytest.mark.parametrize(
    ("position", "shape", "message"),
    [
        (0, (9, C), r"x must be a floating \(B, T, C\)"),
        (1, (HIDDEN, C + 1), r"weight1 must be \(6, 4\), got \(6, 5\)"),
        (2, (C,), r"bias1 must be \(6,\), got \(4,\)"),
        (3, (1, HIDDEN), r"gamma must be \(6,\), got \(1, 6\)"),
        (5, (OUT, C), r"weight2 must be \(3, 6\), got \(3, 4\)"),
        (6, (HIDDEN,), r"bias2 must be \(3,\), got \(6,\)"),
    ],
)
def test_what_does_not_fit_is_refused(position: int, shape: tuple[int, ...], message: str) -> None:
    tensors = leaves("gelu_grn_mlp")
    tensors[position] = torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        kernels.gelu_grn_mlp(*tensors)


class OperatorCounter(TorchDispatchMode):
    """Counts what is called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


def test_the_backward_makes_no_gradient_for_what_has_none() -> None:
    block = kernels.nn.ConvNeXtV2Block1d(8)
    y = block(torch.randn(2, 50, 8, requires_grad=True))
    with OperatorCounter() as counter:
        y.backward(torch.ones_like(y))
    assert counter.calls["esi_fast.gelu_grn_mlp_backward"] == 1
    assert counter.calls["aten.zeros"] == 0  # each would be as large as the hidden layer


def test_nothing_past_the_end_reaches_the_parameters() -> None:
    tensors, lengths = leaves("gelu_grn_mlp"), torch.tensor([9, 4])
    wanted = run(kernels.gelu_grn_mlp, tensors, lengths=lengths)
    assert torch.equal(wanted[0][1, 4:], torch.zeros(5, OUT, dtype=torch.float64))
    with torch.no_grad():
        tensors[0][1, 4:] = float("nan")
    for function in both("gelu_grn_mlp"):
        y = function(*tensors, lengths=lengths)
        dy = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape)
        dy[1, 4:] = float("nan")
        for actual, want in zip(torch.autograd.grad(y, tensors, dy), wanted[1:], strict=True):
            torch.testing.assert_close(actual, want)


def saved_bytes(block: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """Bytes of the activations that autograd keeps for the backward; parameters do not count."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter) and tensor.numel() >= x.shape[2] * 8:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = block(x)
    parameters = {p.untyped_storage().data_ptr() for p in block.parameters()}  # type: ignore[attr-defined]
    del y
    return sum(size for pointer, size in storages.items() if pointer not in parameters)


def test_a_block_keeps_a_third_of_what_eager_pytorch_keeps() -> None:
    from benchmarks.eager_encoder import EagerBlock

    x = torch.randn(4, 200, 16, requires_grad=True)
    size = x.numel() * x.element_size()
    ours = saved_bytes(kernels.nn.ConvNeXtV2Block1d(16), x)
    eager = saved_bytes(EagerBlock(16), x)
    assert ours <= 6.2 * size  # x, what LayerNorm gives, the hidden layer; norms, mean and rstd
    assert 3 * ours <= eager


@pytest.mark.gpu
@OPERATORS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_triton_on_a_gpu(dtype: torch.dtype, name: str) -> None:
    function, reference = both(name)
    tensors = [t.detach().to(dtype) for t in leaves(name, T=313)]
    lengths = torch.tensor([313, 100])
    wanted = run(reference, [t.double().requires_grad_() for t in tensors], lengths=lengths)
    results = [
        run(function, [t.cuda().requires_grad_() for t in tensors], lengths=lengths.cuda())
        for _ in range(2)
    ]
    tolerance = max(1e-6, (2 if name == "gelu_grn_mlp" else 1) * TOLERANCE[dtype])
    for actual, again, want in zip(*results, wanted, strict=True):
        assert torch.equal(actual, again)
        scale = want.abs().max().item()
        torch.testing.assert_close(
            actual.cpu().double(),
            want,
            rtol=max(tolerance, 1e-6),
            atol=max(tolerance, 1e-6) * scale,
        )
