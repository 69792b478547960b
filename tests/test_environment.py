"""``python -m esi_fast``: what it says, and what it says where packages are missing."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement as Parsed

from esi_fast import __main__ as environment
from esi_fast.__main__ import main, requirements
from esi_fast.kernels import describe


def test_the_report_names_versions_core_kernels_and_extras(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert f"esi_fast {importlib.metadata.version('esi-fast')}, Python " in printed
    assert "_core" in printed
    assert "baseline" in printed
    assert describe() in printed
    assert f"torch {torch.__version__}" in printed
    for extra in ("data", "model", "train", "cqa", "plot", "eval", "io", "onnx", "view"):
        assert f"\n{extra}: " in printed
    for name in ("transformers", "deepspeed", "webdataset", "hnswlib"):
        assert f"{name} {importlib.metadata.version(name)}" in printed


def test_it_runs_as_a_module_and_is_quiet():
    command = [sys.executable, "-m", "esi_fast"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, *rest = done.stdout.splitlines()
    assert first.startswith(f"esi_fast {importlib.metadata.version('esi-fast')}, Python ")
    assert any(line.startswith("depthwise_conv1d ") for line in rest)
    assert done.stderr == ""


def test_requirements_are_those_of_the_project(root: Path):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]

    def names(lines: list[str]) -> set[str]:
        found = set()
        for line in map(Parsed, lines):
            if line.name == project["name"]:
                for extra in line.extras:
                    found |= names(extras[extra])
            else:
                found.add(line.name)
        return found

    asked = requirements()
    assert {one.name for one in asked if not one.extra} == names(project["dependencies"])
    for extra, lines in extras.items():
        assert {one.name for one in asked if one.extra == extra} == names(lines)
    assert {one.name: one.least for one in asked}["torch"] == "2.11"


def test_a_missing_and_an_old_package_are_named_with_the_way_to_get_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "gradio":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.7.9" if name == "hnswlib" else real(name)

    monkeypatch.setattr(environment.importlib.metadata, "version", version)
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert "view: gradio not installed: pip install 'esi-fast[view]'" in printed
    assert "cqa: hnswlib 0.7.9 is too old: 0.8 is needed: pip install 'esi-fast[cqa]'" in printed


def test_a_base_that_does_not_work_is_status_1():
    """No torch: the report is printed all the same."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from esi_fast.__main__ import main; sys.exit(main([]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "GPU: unknown, since torch is not installed" in done.stdout
    assert "esi_fast.kernels: do not load" in done.stdout
    assert "core: " in done.stdout
    assert done.stderr == ""


def test_an_unknown_flag_is_status_2():
    command = [sys.executable, "-m", "esi_fast", "--no-such-flag"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("python -m esi_fast: error: ")
