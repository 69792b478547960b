"""Shared fixtures, and a header that says what this run can and cannot test."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test asks the hub; what tries must fail at once.
os.environ["HF_HUB_OFFLINE"] = "1"
# New inputs on a developer's machine, the same ones in CI: what it finds must not land by chance.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")
ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_report_header() -> str:
    versions = [
        f"{name} {importlib.metadata.version(name)}"
        for name in ("torch", "triton", "deepspeed", "transformers", "wfdb", "webdataset")
    ]
    data = SHARED_DATA if SHARED_DATA.is_dir() else "absent (their tests are skipped)"
    return f"{', '.join(versions)}; real recordings: {data}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    import torch

    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="gpu: no CUDA device"))


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings beside the checkout; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real recordings are absent: {SHARED_DATA}")
    return SHARED_DATA
