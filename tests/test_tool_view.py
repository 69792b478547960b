"""tools/view as a process: how it ends, and that nothing of a patient stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from esi_fast.signal.simulate_tree import write_tree

pytest.importorskip("gradio")


def upload(url: str, content: bytes) -> None:
    """As the page's field for files does it."""
    lines = (
        b"--edge", b'Content-Disposition: form-data; name="files"; filename="ecg.csv"',
        b"Content-Type: text/csv", b"", content, b"--edge--", b"",
    )  # fmt: skip
    asked = urllib.request.Request(
        f"{url}/gradio_api/upload",
        data=b"\r\n".join(lines),
        headers={"Content-Type": "multipart/form-data; boundary=edge"},
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_what_was_uploaded_is_gone_however_it_ends(
    root: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    write_tree(tmp_path / "ecgs", 1, seed=1, fs=100)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    server = subprocess.Popen(
        [sys.executable, root / "tools/view", tmp_path / "ecgs", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
        # A background job of a shell would inherit SIGINT as ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert server.stdout
        upload(server.stdout.readline().strip(), b"I,II\n0.1,0.2\n")
        assert [path.name for path in scratch.rglob("*.csv")] == ["ecg.csv"]
        server.send_signal(number)
        _, said = server.communicate(timeout=30)
    finally:
        server.kill()
        server.communicate()
    assert server.returncode == status
    assert "Traceback" not in said
    assert not list(scratch.iterdir())
