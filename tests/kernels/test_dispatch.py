"""What runs where, that a fallback is announced, and that the package stands alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
import torch

from esi_fast import kernels
from esi_fast.kernels import dispatch

PACKAGE_ROOT = Path(next(iter(kernels.__path__))).parent.parent


def run(code: str, **environment: str) -> str:
    """The output of a fresh interpreter in which warnings are errors."""
    result = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT), **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_example_of_the_module_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert kernels.__doc__ is not None
    (example,) = re.findall(r"```python\n(.*?)```", kernels.__doc__, re.DOTALL)
    exec(textwrap.dedent(example), {})
    printed = capsys.readouterr().out
    assert printed.startswith("torch.Size([4, 1250, 128])\n")
    assert kernels.describe() in printed
    readme = Path(__file__).parent.parent.parent / "README.md"
    assert textwrap.dedent(example).strip() in readme.read_text(encoding="utf-8")


def test_without_triton_the_reference_serves() -> None:
    printed = run("""
        import sys
        sys.modules["triton"] = None
        import torch
        from esi_fast import kernels
        x = torch.randn(2, 9, 4, requires_grad=True)
        kernels.nn.ConvNeXtV2Block1d(4)(x).sum().backward()
        assert x.grad.isfinite().all()
        print(kernels.describe())
    """)
    assert "PyTorch reference (triton is not installed)" in printed


def test_a_wrong_word_in_the_environment_is_refused_on_import() -> None:
    with pytest.raises(AssertionError, match="ESI_FAST_BACKEND='triton' is unknown: use auto or"):
        run("import esi_fast.kernels", ESI_FAST_BACKEND="triton")


def test_importing_the_kernels_imports_nothing_else_of_the_package() -> None:
    printed = run("""
        import sys
        import esi_fast.kernels
        names = {name.split(".")[1] for name in sys.modules if name.startswith("esi_fast.")}
        print(sorted(names))
    """)
    assert printed == "['kernels']\n"


def test_describe_names_every_operator() -> None:
    table = kernels.describe()
    for name in ("depthwise_conv1d", "grn", "gelu_grn", "depthwise_conv1d_layer_norm"):
        assert re.search(rf"^{name} ", table, re.MULTILINE)


def test_a_fallback_is_announced_once_and_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "fallbacks", {})
    kernel = dispatch.cuda_kernel(
        "op", lambda x: "reference", lambda x: "triton", lambda x: "too long" if len(x) > 3 else ""
    )
    pytest.importorskip("triton")
    assert kernel(torch.zeros(3)) == "triton"
    with pytest.warns(RuntimeWarning, match=r"kernels\.op runs as PyTorch reference: too long"):
        assert kernel(torch.zeros(4)) == "reference"
    assert kernel(torch.zeros(5)) == "reference"  # a second warning would be an error here
    assert "fallback: op: too long" in kernels.describe()


def test_the_environment_can_send_everything_to_the_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "fallbacks", {})
    monkeypatch.setenv("ESI_FAST_BACKEND", "torch")
    kernel = dispatch.cuda_kernel("op", lambda x: "reference", lambda x: "triton", None)
    with pytest.warns(RuntimeWarning, match="ESI_FAST_BACKEND=torch"):
        assert kernel(torch.zeros(3)) == "reference"
    monkeypatch.setenv("ESI_FAST_BACKEND", "cuda")
    with pytest.raises(ValueError, match="ESI_FAST_BACKEND='cuda' is unknown: use auto or torch"):
        kernels.describe()


def test_a_kernel_is_launched_on_the_device_of_its_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnSecondGpu(torch.Tensor):
        is_cuda = True
        device = torch.device("cuda", 1)

    asked = []
    monkeypatch.setattr(
        torch.cuda, "device", lambda device: asked.append(device) or torch.no_grad()
    )
    with dispatch.on_device(torch.zeros(1).as_subclass(OnSecondGpu)):
        assert asked == [torch.device("cuda", 1)]
    with dispatch.on_device(torch.zeros(1)):
        assert len(asked) == 1


def test_the_cpu_is_no_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "fallbacks", {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernels.grn(torch.ones(1, 2, 3), torch.ones(3), torch.ones(3))
    assert "fallback:" not in kernels.describe()
