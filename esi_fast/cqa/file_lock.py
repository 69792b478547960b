"""One writer of a file at a time."""

from __future__ import annotations

import errno
import fcntl

# What file systems without locks answer, as those of some clusters.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


def lock_file(file: int) -> None:
    """Locks an open file until it is closed; where the file system has no locks, nothing happens.

    There the file is as safe as its user is careful.

    Raises:
        BlockingIOError: another process, or another opening of the file, holds the lock.
        OSError: it cannot be locked.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
