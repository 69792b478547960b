"""tools/simulate: what it refuses, and that nothing is left of a run that ends early."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from esi_fast.signal.simulate_tree import write_tree

TOOL = Path(__file__).resolve().parent.parent / "tools" / "simulate"


def simulate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_tree_is_written(tmp_path: Path) -> None:
    done = simulate("--records", "3", "--out", tmp_path / "tree", "--duration", "5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 simulated records of ")
    assert len(list((tmp_path / "tree").rglob("*.dat"))) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--records", "0"),
        ("--fs", "nan"),
        ("--fs", "inf"),
        ("--fs", "99"),
        ("--duration", "inf"),
        ("--duration", "nan"),
        ("--duration", "4.9"),
        ("--seed", "-1"),
    ],
)
def test_senseless_numbers_are_usage_errors(tmp_path: Path, flag: str, value: str) -> None:
    done = simulate("--records", "1", "--out", tmp_path / "tree", flag, value)
    assert done.returncode == 2
    assert done.stderr.startswith(f"tools/simulate: error: {flag} is {value}")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    done = simulate("--records", "1", "--out", tmp_path)
    assert done.returncode == 2
    assert "exists" in done.stderr


@pytest.mark.parametrize(
    "arguments", [{"seed": -1}, {"fs": float("nan")}, {"duration": float("inf")}]
)
def test_senseless_arguments_make_no_folder(tmp_path: Path, arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(arguments.values())))):
        write_tree(tmp_path / "tree", 1, **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full"), RuntimeError("broken")])
def test_what_ends_a_run_early_leaves_nothing(
    tmp_path: Path, error: type[BaseException] | BaseException
) -> None:
    seen = []

    def stop() -> None:
        seen.append(len(list(tmp_path.rglob("*.dat"))))
        if len(seen) == 3:
            raise error

    with pytest.raises(error if isinstance(error, type) else type(error)):
        write_tree(tmp_path / "tree", 5, duration=5, progress=stop)
    assert seen == [1, 2, 3]
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOL), "--records", "1000000", "--out", str(tmp_path / "tree")]
    process = subprocess.Popen(
        [*command, "--duration", "5"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell would inherit SIGINT as ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while process.poll() is None and not list(tmp_path.glob(".tree.*/files")):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert stderr == "tools/simulate: error: interrupted\n"
    assert list(tmp_path.iterdir()) == []
