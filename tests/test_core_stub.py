"""The committed type stub says what the compiled module has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pybind11_stubgen", reason="the stub is compared with pybind11-stubgen's")


def test_stub_is_what_stubgen_writes(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pybind11_stubgen", "esi_fast._core", "-o", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    fresh = tmp_path / "esi_fast" / "_core.pyi"
    command = [sys.executable, "-m", "ruff", "format", "--config", "pyproject.toml", str(fresh)]
    subprocess.run(command, check=True, capture_output=True, cwd=root)
    committed = root / "esi_fast" / "_core.pyi"
    assert committed.read_text() == fresh.read_text(), (
        "esi_fast/_core.pyi is out of date: pybind11-stubgen esi_fast._core -o . && "
        "ruff format esi_fast/_core.pyi"
    )


def test_stub_names_are_there() -> None:
    from esi_fast import _core

    public = {name for name in vars(_core) if not name.startswith("_")}
    assert {"RecordError", "read_batch", "resample"} <= public
    assert issubclass(_core.RecordError, Exception)
