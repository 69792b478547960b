"""Listing a folder of WFDB records: keys, segments, long paths, trouble on the way."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from esi_fast.signal import wfdb_folder
from esi_fast.signal.catalogues import open_catalogue


def header(path: Path, record_line: str = "", lines: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"{record_line or path.stem + ' 0 500 0'}\n{lines}".encode(errors="replace"))


def test_no_two_paths_share_a_key(tmp_path: Path) -> None:
    names = ["a/b", "a_b", "a-/b", "a/-b", "a--b", "a b", "a.b", "a/c", "a-c"]
    for name in names:
        header(tmp_path / f"{name}.hea")
    (tmp_path / "a b.hea").rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9.hea"))
    header(tmp_path / "\u00e8.hea")
    entries = [*open_catalogue(tmp_path, "wfdb")]
    keys = [entry.key for entry in entries]
    assert len(set(keys)) == len(keys) == len(names) + 1
    assert {"a--b", "a_b", "a--c", "a-c"} <= set(keys)
    assert all(re.fullmatch("[A-Za-z0-9_-]+", key) for key in keys)
    for entry in entries:
        entry.subject_id.encode()
    assert "\\xe9" in [entry.subject_id for entry in entries]


def test_segments_are_no_records_of_their_own(tmp_path: Path) -> None:
    for name in ("seg1", "seg2", "other", "inner/seg1"):
        header(tmp_path / f"{name}.hea")
    header(tmp_path / "whole.hea", "whole/3 12 500 10000", "seg1 5000\n~ 10\nseg2 4990\n")
    header(tmp_path / "playlist.hea", "playlist/2 12 500 10000", "other 5000\nabsent 5000\n")
    header(tmp_path / "itself.hea", "itself/2 12 500 10000", "itself 5000\nother 5000\n")
    entries = [*open_catalogue(tmp_path, "wfdb")]
    assert [entry.key for entry in entries if not entry.error] == [
        "inner--seg1", "itself", "other", "playlist", "whole",
    ]  # fmt: skip
    assert [(entry.key, entry.error) for entry in entries if entry.error] == [
        ("seg1", "a segment of whole"), ("seg2", "a segment of whole"),
    ]  # fmt: skip


def test_long_paths_have_keys_that_fit(tmp_path: Path) -> None:
    for name in ("x" * 92, "y" * 93, "z" * 88 + ".a", "z" * 88 + ".b"):
        header(tmp_path / f"{name}.hea")
    keys = [entry.key for entry in open_catalogue(tmp_path, "wfdb")]
    assert max(map(len, keys)) == 92
    assert len(set(keys)) == 4
    assert keys[0] == "x" * 92


def test_trouble_while_listing_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header(tmp_path / "a.hea")
    (tmp_path / "gone.hea").symlink_to(tmp_path / "nowhere")
    assert [entry.key for entry in open_catalogue(tmp_path, "wfdb")] == ["a", "gone"]

    def troubled(path: bytes, strict: bool) -> None:
        raise wfdb_folder._core.RecordError("io", "a.hea: Too many open files")

    catalogue = open_catalogue(tmp_path, "wfdb")
    monkeypatch.setattr(wfdb_folder, "_core", SimpleNamespace(
        read_header=troubled, RecordError=wfdb_folder._core.RecordError
    ))  # fmt: skip
    with pytest.raises(OSError, match=r"a\.hea could not be read: a\.hea: Too many open files"):
        list(catalogue)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
def test_a_folder_that_may_not_be_looked_into_is_an_error(tmp_path: Path) -> None:
    header(tmp_path / "a.hea")
    header(tmp_path / "closed" / "b.hea")
    (tmp_path / "closed").chmod(0)
    try:
        with pytest.raises(PermissionError, match="closed"):
            [*open_catalogue(tmp_path, "wfdb")]
    finally:
        (tmp_path / "closed").chmod(0o755)
