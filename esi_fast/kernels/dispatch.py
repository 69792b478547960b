"""Where the operators meet PyTorch's dispatcher: one library, one rule for what runs.

A CUDA tensor goes to Triton, any other to the PyTorch reference. What Triton cannot serve on CUDA
goes to the reference as well: announced by one RuntimeWarning for each reason, and listed by
`kernels.describe()`. `ESI_FAST_BACKEND=torch` in the environment sends everything to the reference.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch
from torch.autograd import forward_ad

from esi_fast.kernels.reference import check_signal, no_autocast

try:
    import triton
    import triton.language as tl
except ImportError:  # not a Linux wheel, a slim or a broken installation: the reference serves
    triton = None
    tl = None

_LIBRARY: Any = torch.library.Library("esi_fast", "DEF")  # type: ignore[no-untyped-call]
__all__ = [
    "accumulator", "announce_fallback", "are_dense", "backend", "call", "ceil_div", "cuda_kernel",
    "fallbacks", "jit", "next_power_of_2", "on_device", "options", "register",
    "register_gradient", "tl", "triton", "why_not_triton",
]  # fmt: skip

fallbacks: dict[tuple[str, str], None] = {}  # operator and reason, in order


# By an argument's type in a schema: Python's types, the method of what passes for one, in words.
KINDS: dict[str, tuple[tuple[type, ...], str, str]] = {
    "Tensor": ((Tensor,), "", "a Tensor"),
    "Optional[Tensor]": ((Tensor, type(None)), "", "a Tensor or None"),
    "int": ((int, torch.SymInt), "__index__", "an int"),
    "float": ((float, int, torch.SymFloat, torch.SymInt), "__float__", "a float"),
    "str": ((str,), "", "a str"),
}
# Of each operator that `call` calls: the arguments' names, and what KINDS says of them.
_arguments: dict[str, list[tuple[str, tuple[type, ...], str, str]]] = {}

# Sizes that change from batch to batch: a multiple of 16 or a one must not be compiled anew.
RAGGED = ("T", "T_out", "num_tiles", "num_partials", "num_chunks", "num_rows")


def jit(function: Callable[..., Any]) -> Any:
    """`triton.jit`, or the function itself (never called) where triton is absent."""
    return function if triton is None else triton.jit(function, do_not_specialize=RAGGED)


def accumulator(dtype: torch.dtype) -> Any:
    """Triton's dtype for sums and statistics of tensors of this torch dtype."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def backend() -> str:
    """ "auto" or "torch", from ESI_FAST_BACKEND; raises ValueError for anything else."""
    value = os.environ.get("ESI_FAST_BACKEND", "auto")
    if value not in ("auto", "torch"):
        raise ValueError(f"ESI_FAST_BACKEND={value!r} is unknown: use auto or torch")
    return value


def why_not_triton() -> str:
    """Why Triton cannot serve any CUDA call; empty where it can."""
    if backend() == "torch":
        return "ESI_FAST_BACKEND=torch"
    return "triton is not installed" if triton is None else ""


def announce_fallback(operator: str, reason: str) -> None:
    """Says once for each operator and reason that the reference runs, and remembers it."""
    if (operator, reason) not in fallbacks:
        fallbacks[operator, reason] = None
        warnings.warn(
            f"esi_fast.kernels.{operator} runs as PyTorch reference: {reason}",
            RuntimeWarning,
            stacklevel=3,
        )


def cuda_kernel(
    name: str,
    reference: Callable[..., Any],
    launch: Callable[..., Any],
    limits: Callable[..., str] | None,
) -> Callable[..., Any]:
    """What a CUDA tensor gets: `launch`, or `reference` (announced) where Triton cannot serve."""

    def kernel(*args: Any) -> Any:
        reason = why_not_triton() or ("" if limits is None else limits(*args))
        if reason:
            announce_fallback(name, reason)
            return reference(*args)
        return launch(*args)

    return kernel


def register(
    name: str,
    schema: str,
    *,
    reference: Callable[..., Any],
    launch: Callable[..., Any],
    fake: Callable[..., Any],
    check: Callable[..., None] = lambda *args: None,
    limits: Callable[..., str] | None = None,
) -> None:
    """Defines `torch.ops.esi_fast.<name>`.

    Args:
        name: of the operator.
        schema: its arguments and results, in PyTorch's notation.
        reference: the implementation for every device but CUDA.
        launch: the one in Triton.
        fake: gives empty results of the right shapes, dtypes and strides.
        check: raises ValueError where the arguments do not fit together; not while sizes are
            symbols. Gradient operators have none: autograd alone calls them.
        limits: from the arguments, why Triton cannot serve them; "" where it can.
    """

    def checked(kernel: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            check(*args)
            with no_autocast(args[0]):  # which otherwise casts what a kernel gives to torch
                return kernel(*args)

        return run

    def fake_checked(*args: Any) -> Any:
        if all(isinstance(size, int) for size in args[0].shape):
            check(*args)
        else:
            check_signal(args[0])
        return fake(*args)

    if not name.endswith("_backward"):
        parsed = torch._C.parse_schema(f"{name}{schema}")
        _arguments[name] = [(one.name, *KINDS[str(one.type)]) for one in parsed.arguments]
    _LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, checked(reference), "CompositeExplicitAutograd")
    _LIBRARY.impl(name, checked(cuda_kernel(name, reference, launch, limits)), "CUDA")
    torch.library.register_fake(f"esi_fast::{name}", fake_checked, lib=_LIBRARY)


def call(name: str, *args: Any) -> Any:
    """Calls `torch.ops.esi_fast.<name>` with arguments of its types.

    The operator itself cannot see a tangent, and would give zeros for it.

    Raises:
        TypeError: an argument of another type, by its name.
        NotImplementedError: forward mode, or a gradient of `torch.func`.
    """
    for (argument, kinds, method, wanted), arg in zip(_arguments[name], args, strict=True):
        if not isinstance(arg, kinds) and not hasattr(arg, method):
            raise TypeError(f"{argument} must be {wanted}, got {type(arg).__name__}")
    if forward_ad._current_level >= 0 or (
        not torch.compiler.is_compiling() and _functorch.peek_interpreter_stack() is not None
    ):
        _refuse_transforms(name, [arg for arg in args if isinstance(arg, Tensor)])
    return getattr(torch.ops.esi_fast, name)(*args)


def _refuse_transforms(name: str, tensors: list[Tensor]) -> None:
    if forward_ad._current_level >= 0:
        tangents = [forward_ad.unpack_dual(t).tangent for t in tensors]  # type: ignore[no-untyped-call]
        what = "forward mode" if any(t is not None for t in tangents) else ""
    else:
        # All results inside are wrapped; those that carry a gradient say so.
        is_asked = any(t.requires_grad and _functorch.is_gradtrackingtensor(t) for t in tensors)
        what = "torch.func.grad" if is_asked else ""
    if what:
        raise NotImplementedError(
            f"esi_fast.kernels: {name} has no {what}; "
            "the functions of esi_fast.kernels.reference have one"
        )


def register_gradient(
    name: str, backward: Callable[..., Any], setup_context: Callable[..., Any]
) -> None:
    """Gives an operator its gradient; the gradient operator itself has none and says so."""
    torch.library.register_autograd(
        f"esi_fast::{name}", backward, setup_context=setup_context, lib=_LIBRARY
    )

    def no_double_backward(ctx: Any, *grads: Tensor) -> None:
        raise NotImplementedError(
            f"esi_fast.kernels: {name} has no double backward; "
            "the functions of esi_fast.kernels.reference have one"
        )

    torch.library.register_autograd(
        f"esi_fast::{name}_backward",
        no_double_backward,
        setup_context=lambda ctx, inputs, output: None,
        lib=_LIBRARY,
    )


def on_device(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Makes the device of `x` current: Triton launches on the current one, not on that of `x`."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def options(num_warps: int) -> dict[str, Any]:
    """What every launch asks of Triton's compiler; from 3.10 on it fuses no products by itself."""
    return {"num_warps": num_warps, "enable_fp_fusion": True}


def are_dense(*tensors: Tensor) -> bool:
    """Whether in each `(B, T, C)` a sample lies C elements behind the one before it."""
    return all(x.stride(1) == x.shape[2] for x in tensors)


def next_power_of_2(n: int) -> int:
    """The smallest power of two >= n, for n >= 1."""
    return 1 << (n - 1).bit_length()


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


backend()  # a wrong word is refused on import, on machines without a GPU too
