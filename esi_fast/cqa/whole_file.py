"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


def regular_file(path: Path) -> Path:
    """The file that a name stands for, links followed: a regular one, or one still to be made.

    Raises:
        OSError: it is something else (a folder, a device, a pipe), or its folder does not exist.
    """
    target = Path(os.path.realpath(path))
    try:  # by the given name: where /dev/stdout is a pipe, its link leads to no name
        is_other = not stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        is_other = False
    if is_other:
        raise OSError(f"{path} is no regular file")
    if not target.parent.is_dir():
        raise OSError(f"{path} must be in a folder that exists")
    return target


def check_writable(path: Path) -> None:
    """Makes sure that ``whole_file`` can begin; nothing is left of the attempt.

    Raises:
        OSError: it cannot, and why.
    """
    temporary = _temporary(regular_file(path))
    try:
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        _remove(temporary)


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A UTF-8 text file to write; it takes ``path``'s place when the block ends without an error.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    target = regular_file(path)
    temporary = _temporary(target)
    try:
        with temporary.open("x", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        # A full disk names no file, and nobody knows the temporary one.
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        _remove(temporary)


def _remove(temporary: Path) -> None:
    with contextlib.suppress(OSError):  # it was not made, or is no more: its error is told
        temporary.unlink()


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}")
