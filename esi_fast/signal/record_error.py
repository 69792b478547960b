"""How records are named to the core, and how it is said what is wrong with one."""

from __future__ import annotations

import os
from pathlib import Path

from esi_fast.signal.resample import _core

_LONGEST = 320


def record_error(status: str, message: str) -> _core.RecordError:
    """The error to raise; names from a file may hold anything, the line is printable and short."""
    line = "".join(c if c.isprintable() else "?" for c in message)
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]}...{line[-_LONGEST // 2 :]}"
    return _core.RecordError(status, line)


def header_name(stem: str) -> str:
    """The name of a record's header file, for messages."""
    return f"{Path(stem).name}.hea"


def encode_path(stem: str) -> bytes:
    """The path's bytes on disk; of a text that is no path, bytes that name no file."""
    try:
        return os.fsencode(stem)
    except UnicodeEncodeError:
        return stem.encode("utf-8", "surrogatepass")
