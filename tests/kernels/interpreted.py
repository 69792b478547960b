"""What the tests in Triton's interpreter share: a process, tolerances, strides, canaries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

import esi_fast.kernels

TOLERANCE = {  # the interpreter truncates to bfloat16: one unit in the last place
    torch.float64: 1e-10,
    torch.float32: 2e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 2**-7,
}


def run_cases(path: str, interpreted: bool) -> None:
    """Runs the `case_*` functions of a file in a process of their own."""
    package_root = Path(next(iter(esi_fast.kernels.__path__))).parent.parent
    environment = {
        **os.environ,
        "TRITON_INTERPRET": str(int(interpreted)),
        "PYTHONPATH": os.pathsep.join([str(package_root), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "pytest", path, "-q", "-o", "python_functions=case_"]
    result = subprocess.run(
        [*command, "-p", "no:cacheprovider"], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout
    assert "skipped" not in result.stdout


class Canaries:
    """In place of ``Tensor.new_empty``: the same, between elements that nobody may write."""

    SIZE = 256
    VALUE = 1234.0  # exact in every dtype here

    def __init__(self) -> None:
        self.new_empty = torch.Tensor.new_empty
        self.buffers: list[Tensor] = []

    def __call__(self, like: Tensor, *size: object, **options: object) -> Tensor:
        wanted = self.new_empty(like, *size, **options)
        flat = self.new_empty(like, wanted.numel() + 2 * self.SIZE, dtype=wanted.dtype)
        flat[: self.SIZE] = flat[-self.SIZE :] = self.VALUE
        self.buffers.append(flat)
        return flat[self.SIZE : -self.SIZE].view(wanted.shape)

    def live(self) -> bool:
        ends = [end for flat in self.buffers for end in (flat[: self.SIZE], flat[-self.SIZE :])]
        return all(bool((end == self.VALUE).all()) for end in ends)


def strided(x: Tensor, how: str) -> Tensor:
    """The same (B, T, C) values in other strides."""
    if how == "transposed":
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    if how == "sliced":
        wide = x.new_full((x.shape[0], x.shape[1] + 2, x.shape[2] + 3), float("nan"))
        wide[:, 1:-1, 2:-1] = x
        return wide[:, 1:-1, 2:-1]
    return x


def assert_close(
    actual: Tensor, expected: Tensor, dtype: torch.dtype, what: str, num_roundings: int = 1
) -> None:
    scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    tolerance = TOLERANCE[dtype] * num_roundings
    torch.testing.assert_close(
        actual.double(), expected, rtol=tolerance, atol=tolerance * scale, msg=lambda m: what + m
    )


def normalize(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    activation: str,
    lengths: Tensor | None,
) -> Tensor:
    """The reference's GRN of an input or of its GELU, for autograd."""
    reference = esi_fast.kernels.reference
    if activation == "none":
        return reference.grn(x, gamma, beta, eps=eps, lengths=lengths)
    approximate = "tanh" if activation == "gelu_tanh" else "none"
    return reference.gelu_grn(x, gamma, beta, eps=eps, lengths=lengths, approximate=approximate)  # type: ignore[arg-type]


def gradients(output: Tensor, inputs: list[Tensor], dy: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(output, inputs, dy))
