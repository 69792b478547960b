"""python -m esi_fast: what is installed, and what runs."""

from __future__ import annotations

import subprocess
import sys

import esi_fast


def test_the_report_names_the_core_the_kernels_and_the_extras() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "esi_fast"], capture_output=True, text=True, check=True
    )
    first, *rest = done.stdout.splitlines()
    assert first.startswith(f"esi_fast {esi_fast.__version__}, Python {sys.version.split()[0]}")
    assert any(line.startswith("core: ") and "baseline" in line for line in rest)
    assert any(line.startswith("depthwise_conv1d ") for line in rest)
    assert any(line.startswith("train: ") and "deepspeed" in line for line in rest)
    assert not done.stderr
