"""tools/fuzz without its compiler, and with arguments that make no sense. CI runs it in earnest."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from esi_fast import _core


def fuzz(root: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ if path is None else {**os.environ, "PATH": path}
    command = [sys.executable, str(root / "tools" / "fuzz"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_every_decoder_has_a_target(root: Path, tmp_path: Path) -> None:
    targets = fuzz(root, "--list").stdout.split()
    assert {"header", "record", "resample"} <= set(targets)
    (tmp_path / "r.dat").write_bytes(bytes(8))
    decoded = set()
    for code in range(600):
        (tmp_path / "r.hea").write_text(f"r 1 500 1\nr.dat {code}\n")
        with contextlib.suppress(_core.RecordError):
            _core.read_record(os.fsencode(tmp_path / "r"), verify=False, strict=False)
            decoded.add(f"decoder-{code}")
    assert len(decoded) == 10
    assert decoded == {target for target in targets if target.startswith("decoder")}


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["--target", "nothing"], 2, "--target nothing is none of header, decoder-8"),
        (["--runs", "0"], 2, "--runs is 0; it must be at least 1"),
        ([], 1, "clang++ is not installed: install Clang with its runtime libraries: apt-get"),
    ],
)
def test_one_line_errors(
    root: Path, tmp_path: Path, arguments: list[str], status: int, line: str
) -> None:
    done = fuzz(root, *arguments, path=str(tmp_path))
    assert done.returncode == status
    assert done.stderr.startswith(f"tools/fuzz: error: {line}")
    assert done.stderr.count("\n") == 1
