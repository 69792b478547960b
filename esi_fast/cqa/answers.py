"""What a language model has answered, remembered on disk: JSON lines that only ever grow."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from types import TracebackType

from esi_fast.cqa.file_lock import lock_file
from esi_fast.cqa.whole_file import regular_file


class AnswerFile:
    """Answers by request key, for one process at a time.

    Each answer is appended in one write, at once: a run that is killed and started again asks for
    nothing twice. A last line that was cut off is dropped. Only the owner may read the file.
    While it holds no answer it is there only as long as it is open.

    Args:
        path: JSON lines of ``{"key": ..., "text": ...}``; made if it is missing.

    Raises:
        ValueError: a line is no answer, or another run is using the file.
        OSError: it cannot be opened, or is no regular file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._target = regular_file(self.path)
        while True:
            self._file = os.open(self._target, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                self._lock()
                if self._is_in_place():
                    self._answers = self._read()
                    return
            except BaseException:
                os.close(self._file)
                raise
            os.close(self._file)  # another run that ended without an answer took it away

    def _lock(self) -> None:
        try:
            lock_file(self._file)
        except BlockingIOError:
            raise ValueError(f"{self.path} is in use by another run; wait for its end") from None

    def _is_in_place(self) -> bool:
        """Whether the open file is still the one of that name."""
        try:
            return os.path.samestat(os.fstat(self._file), self._target.stat())
        except FileNotFoundError:
            return False

    def _read(self) -> dict[str, str]:
        data = self._target.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(self._file, whole)
        answers = {}
        for number, line in enumerate(data[:whole].split(b"\n")[:-1], start=1):
            try:
                row = json.loads(line)
                key, text = row["key"], row["text"]
            except (ValueError, KeyError, TypeError, RecursionError):
                key = text = None
            if not isinstance(key, str) or not isinstance(text, str):
                raise ValueError(f"{self.path}, line {number}: no answer; delete that line")
            answers[key] = text
        return answers

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> str | None:
        """The answer to a request, or None."""
        return self._answers.get(key)

    def add(self, key: str, text: str) -> None:
        """Remembers an answer, also if this process is killed as soon as this returns."""
        line = json.dumps({"key": key, "text": text}) + "\n"
        try:
            _write_whole(self._file, line.encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        self._answers[key] = text

    def close(self) -> None:
        """Flushes to the disk and lets another run have the file."""
        try:
            # Before the lock is let go of, and only if it is still this file.
            if os.fstat(self._file).st_size == 0 and self._is_in_place():
                self._target.unlink()
            os.fsync(self._file)
        finally:
            os.close(self._file)

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _write_whole(file: int, data: bytes) -> None:
    """All of it or, where the disk is full, none of it."""
    size = os.fstat(file).st_size
    done = 0
    try:
        while done < len(data):
            done += os.write(file, data[done:])
    except BaseException:
        with contextlib.suppress(OSError):
            os.ftruncate(file, size)
        raise
