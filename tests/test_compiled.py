"""The cache of compiled code, beside sources that other processes use and remove too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("numba")
from esi_fast.signal import compiled


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources of an installation, and a cache that is older."""
    for name in compiled._COMPILED:
        (tmp_path / f"{name}.py").touch()
    (tmp_path / "__pycache__").mkdir()
    for name in ("a.nbi", "a.1.nbc", "fresh.nbi"):
        path = tmp_path / "__pycache__" / name
        path.touch()
        os.utime(path, (9e9, 9e9) if name == "fresh.nbi" else (1, 1))
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    return tmp_path / "__pycache__"


def test_stale_code_is_removed(cache: Path) -> None:
    compiled._forget_stale_code()
    assert [path.name for path in cache.iterdir()] == ["fresh.nbi"]


def test_what_another_process_removed_or_nobody_may_remove_ends_no_import(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def denied(self: Path) -> None:
        if self.name == "a.nbi":
            raise PermissionError(13, "Permission denied", str(self))
        unlink(self)

    glob = Path.glob
    monkeypatch.setattr(Path, "glob", lambda *args: [cache / "gone.nbi", *glob(*args)])
    monkeypatch.setattr(Path, "unlink", denied)
    compiled._forget_stale_code()
    assert (cache / "a.nbi").exists()
    assert not (cache / "a.1.nbc").exists()
