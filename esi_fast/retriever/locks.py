"""Many readers or one writer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ReadWriteLock:
    """Lets searches run beside each other, and changes run alone.

    A waiting writer holds off new readers, so that it gets its turn. Not reentrant.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._reading = _Reading(self)
        self._readers = 0
        self._writers_waiting = 0
        self._is_writing = False

    def read(self) -> _Reading:
        """Held, in a with statement, beside other readers."""
        return self._reading

    @contextmanager
    def write(self) -> Iterator[None]:
        """Held alone."""
        with self._changed:
            self._writers_waiting += 1
            try:
                self._changed.wait_for(lambda: not (self._is_writing or self._readers))
                self._is_writing = True
            finally:
                self._writers_waiting -= 1
                self._changed.notify_all()  # an interrupted writer holds nobody off
        try:
            yield
        finally:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()


class _Reading:
    """A class, for a generator's context costs a search several microseconds."""

    def __init__(self, lock: ReadWriteLock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        lock = self._lock
        with lock._changed:
            while lock._is_writing or lock._writers_waiting:
                lock._changed.wait()
            lock._readers += 1

    def __exit__(self, *_: object) -> None:
        lock = self._lock
        with lock._changed:
            lock._readers -= 1
            if lock._writers_waiting:
                lock._changed.notify_all()
