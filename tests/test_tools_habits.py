"""Every tool alike: help, exit codes, results on stdout and all else on stderr, a clean tree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = sorted(
    path
    for path in (ROOT / "tools").iterdir()
    if path.is_file() and "python" in path.read_text().partition("\n")[0]
)


def run(tool: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(tool), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "COLUMNS": "100"},
    )


def test_the_tools_are_found():
    assert {"bench", "caption", "evaluate", "pretrain.py", "shard", "view"} <= {
        tool.name for tool in TOOLS
    }


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_help_is_whole_and_on_stdout(tool: Path):
    done = run(tool, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: tools/{tool.name}" in done.stdout
    assert len(done.stdout.splitlines()) > 4
    # What takes seconds to import is imported after parsing: a time would be the machine's.
    light = subprocess.run(
        [sys.executable, "-c", _LIGHT, str(tool), "--help"], capture_output=True, check=False
    )
    assert light.returncode == 0, f"tools/{tool.name} --help loads torch or transformers"


_LIGHT = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit:
    pass
assert not {"torch", "transformers", "matplotlib"} & set(sys.modules)
"""


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_an_unknown_flag_ends_with_2_and_is_told_on_stderr_alone(tool: Path):
    done = run(tool, "--no-such-flag")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert done.stderr


def test_no_tool_that_only_answers_leaves_anything_in_the_tree():
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    before = status()
    for tool in TOOLS:
        run(tool, "--help")
    assert status() == before


def test_every_file_that_contributing_names_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:\.ci|csrc|esi_fast|tests|tools|benchmarks)/[\w./-]*)`", text))
    assert len(named) > 30
    absent = [name for name in named if not (ROOT / name).exists()]
    assert absent == []


def status() -> str:
    command = ["git", "status", "--porcelain", "--untracked-files=all"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
