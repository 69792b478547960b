"""How tools end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = (
    "simulate",
    "caption",
    "shard",
    "pretrain.py",
    "export",
    "evaluate",
    "report",
    "plot",
    "bench",
    "fuzz",
)


@pytest.mark.parametrize(
    ("statement", "status", "line"),
    [
        ("return 0", 0, ""),
        ("raise ValueError('a\\n  b')", 1, "tools/tool: error: a b"),
        ("raise FileNotFoundError('no x')", 1, "tools/tool: error: no x"),
        ("raise cli.UsageError('bad --y')", 2, "tools/tool: error: bad --y"),
        ("raise KeyboardInterrupt", 130, "tools/tool: error: interrupted"),
        (
            "raise ModuleNotFoundError('x', name='sklearn.metrics')",
            1,
            "tools/tool: error: sklearn.metrics is not installed: pip install 'esi-fast[eval]'",
        ),
    ],
)
def test_a_known_failure_is_one_line(
    statement: str, status: int, line: str, tmp_path: Path
) -> None:
    tool = tmp_path / "tool"
    tool.write_text(f"from esi_fast import cli\ndef main(argv):\n    {statement}\ncli.run(main)\n")
    done = subprocess.run([sys.executable, tool], capture_output=True, text=True)
    assert done.returncode == status
    assert done.stderr.strip() == line


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("from esi_fast import cli\ncli.run(lambda argv: 1 // 0)\n")
    done = subprocess.run([sys.executable, tool], capture_output=True, text=True)
    assert "ZeroDivisionError" in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize("tool", TOOLS)
def test_help_answers_at_once_without_torch(tool: str, root: Path) -> None:
    """The bar is a second; modules decide it, so those are what is asserted."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{tool}', '--help']\n"
        "try:\n"
        f"    runpy.run_path('tools/{tool}', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "heavy = {'torch', 'deepspeed', 'transformers', 'wfdb', 'sklearn', 'matplotlib', 'numba'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert f"tools/{tool}" in done.stdout
