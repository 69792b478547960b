"""Who may import the compiled core, and what must stay light to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_only_signal_and_data_know_the_compiled_core(root: Path) -> None:
    package = root / "esi_fast"
    users = {
        path.relative_to(package).parts[0]
        for path in package.rglob("*.py")
        if "esi_fast._core" in imported(path)
    }
    assert users
    assert users <= {"signal", "data"}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("esi_fast", "torch numpy transformers"),
        ("esi_fast.cqa.caption", "torch transformers"),
        ("esi_fast.signal.records", "torch wfdb pandas"),
        ("esi_fast.plot", "torch matplotlib.pyplot"),
        ("esi_fast.data.shards", "deepspeed transformers webdataset"),
        ("esi_fast.kernels", "transformers deepspeed scipy"),
        ("esi_fast.evaluation.report", "deepspeed transformers"),
    ],
)
def test_imports_stay_light(module: str, absent: str) -> None:
    code = f"import sys, {module}; print([n for n in {absent.split()!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
