"""What a run ran on: ``env.json``."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path

import torch

_PACKAGES = ("esi-fast", "torch", "triton", "deepspeed", "transformers", "numpy")


def write(path: Path, world_size: int) -> None:
    """Write versions, devices, command line and the commit of the checkout, if there is one."""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    content = {
        "command": sys.argv,
        "world_size": world_size,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": devices or [platform.processor() or platform.machine()],
        "packages": {name: _version(name) for name in _PACKAGES},
        "commit": _commit(),
    }
    path.write_text(json.dumps(content, indent=2) + "\n")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
