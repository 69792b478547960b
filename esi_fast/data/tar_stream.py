"""The members of one shard, streamed from a URL.

``webdataset`` opens the URL; the tar is read here, as webdataset takes one that was cut off between
two members, or whose headers are damaged, for a whole one.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO, cast
from urllib.parse import urlsplit

from esi_fast.data.shard_index import BLOCK

# Bytes asked of a stream at once.
_READ_BYTES = 1 << 17
_INSTALL = {
    "aws": "the AWS command line (pip install awscli)",
    "curl": "curl",
    "gsutil": "the Google Cloud CLI",
    "ais": "the AIStore CLI",
}
# Not as webdataset calls it, which waits for ever for a server that has stalled, and which tries
# again after half a transfer, whose bytes then come twice. Here only before the first byte, after
# so many seconds each time.
RETRY_DELAYS = (1.0, 4.0)
_CURL = (
    "curl", "--fail", "--silent", "--location", "--connect-timeout", "30",
    "--speed-limit", "1", "--speed-time", "60",
)  # fmt: skip
# curl's commonest statuses; it is told to say nothing.
_CURL_STATUS = {
    6: "no such host",
    7: "no connection",
    18: "the transfer broke off",
    22: "the server answered with an error, such as 404",
    28: "timeout",
}


class MissingCommandError(FileNotFoundError):
    """The command that opens URLs of this kind is not installed."""


def is_remote(url: str) -> bool:
    """Whether this is a URL to stream (``pipe:COMMAND`` or ``scheme://...``) and not a path."""
    return re.match(r"pipe:|[A-Za-z][A-Za-z0-9+.-]*://", url) is not None


def expand_urls(urls: str | Sequence[str]) -> list[str]:
    """One URL or several with braces expanded, rewritten by GOPEN_REWRITE as webdataset does.

    Raises:
        ValueError: there is none, one occurs twice, or nothing here opens its scheme.
        ModuleNotFoundError: webdataset is not installed.
    """
    from webdataset.gopen import gopen_schemes, rewrite_url
    from webdataset.shardlists import braceexpand

    urls = [urls] if isinstance(urls, str) else urls
    expanded = [rewrite_url(one) for url in urls for one in braceexpand.braceexpand(url)]
    if not expanded or len(set(expanded)) < len(expanded):
        raise ValueError(f"shards must be named, each once: {', '.join(expanded) or 'none given'}")
    known = {"", "file", "s3", *gopen_schemes} - {"__default__"}
    for url in expanded:
        if (scheme := urlsplit(url).scheme) not in known:
            raise ValueError(
                f"{url}: no way to open {scheme}://, only {', '.join(sorted(known - {''}))}: pipe "
                "it from a command (pipe:COMMAND)"
            )
    return expanded


class TarStream:
    """One shard on its way: an uncompressed tar, read once from its beginning to its end.

    `interrupt` may be called from another thread; everything else belongs to one.
    """

    def __init__(self, url: str) -> None:
        """Open the URL.

        Raises:
            MissingCommandError: the command that opens such a URL is not installed.
            OSError: it cannot be opened; a command that fails does so later, in `members`.
            ValueError: WDS_SECURE is set, with which webdataset opens no such URL.
        """
        self._url = url
        self._num_bytes = 0
        self._end_of_content = 0  # behind the last byte that is not zero
        self._delays = list(RETRY_DELAYS)
        self._open()

    def _open(self) -> None:
        from webdataset.gopen import Pipe, gopen, gopen_schemes
        from webdataset.utils import enforce_security

        url = self._url
        self._process: subprocess.Popen[bytes] | None = None
        # In a session of its own, so that `interrupt` reaches all that a shell has started;
        # webdataset's own handler of pipe: cannot be told so.
        ours = {"mode": "rb", "stdin": subprocess.DEVNULL, "start_new_session": True}
        scheme = urlsplit(url).scheme
        try:
            if scheme == "pipe" and not enforce_security:
                opened = Pipe(url.removeprefix("pipe:"), shell=True, **ours)
            elif scheme in ("http", "https"):
                opened = Pipe([*_CURL, url], **ours)
            elif scheme == "s3" and scheme not in gopen_schemes:
                opened = Pipe(["aws", "s3", "cp", url, "-"], **ours)
            else:
                opened = gopen(url, "rb")
        except FileNotFoundError as error:
            if error.filename in _INSTALL:
                raise MissingCommandError(
                    f"{url}: there is no command {error.filename}: install "
                    f"{_INSTALL[error.filename]}"
                ) from None
            raise OSError(f"{url}: {error.strerror}") from None
        except ValueError as error:  # WDS_SECURE forbids it
            raise ValueError(f"{url}: {error}") from None
        self._opened = opened  # kept, as a Pipe that nobody holds closes its stream
        self._file: IO[bytes] = opened
        if isinstance(opened, Pipe):
            # Not through Pipe.read, which reports a failure without the URL, nor Pipe.close, which
            # waits up to two hours.
            self._file, self._process = opened.stream, opened.proc

    def members(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Keys of the samples, and the bytes of their members by suffix.

        A sample comes once the next one begins or the tar has ended well, so that none is given
        that a broken stream has left without its caption.

        Raises:
            OSError: the command that brings the stream has failed.
            ValueError: the tar is cut off or damaged. URL and byte are named.
        """
        for key, files in itertools.groupby(self._files(), key=lambda file: file[0]):
            yield key, {suffix: content for _, suffix, content in files}

    def _files(self) -> Iterator[tuple[str, str, bytes]]:
        from webdataset.tariterators import base_plus_ext

        end = 0
        try:
            file = cast(IO[bytes], self)  # of which this mode needs no more than `read`
            with tarfile.open(fileobj=file, mode="r|", bufsize=_READ_BYTES) as tar:
                for member in tar:
                    key, suffix = base_plus_ext(member.name)
                    content = tar.extractfile(member) if member.isreg() else None
                    if key is not None and content is not None:
                        yield key, suffix, content.read()
                end = tar.offset
        except tarfile.TarError as error:
            self._check_status()  # why it broke off says more than where
            raise ValueError(
                f"{self._url}: no whole tar, damaged near byte {self._num_bytes}: {error}"
            ) from None
        # A tar ends in blocks of zeros. Reading on to the end lets the command finish, too.
        while self._end_of_content <= end and self.read(_READ_BYTES):
            pass
        is_cut = self._num_bytes < end + BLOCK
        if self._end_of_content > end and not is_cut:
            raise ValueError(f"{self._url}: no whole tar, damaged at byte {end}")
        self._check_status()
        if is_cut:
            raise ValueError(f"{self._url}: no whole tar, cut off at byte {self._num_bytes}")

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end."""
        content = self._file.read(size)
        while not content and self._may_try_again():
            time.sleep(self._delays.pop(0))
            self._file.close()
            self._open()
            content = self._file.read(size)
        if stripped := len(content.rstrip(b"\0")):
            self._end_of_content = self._num_bytes + stripped
        self._num_bytes += len(content)
        return content

    def _may_try_again(self) -> bool:
        """Whether a server has failed before it sent anything, and has not too often."""
        if self._num_bytes or not self._delays or not self._is_curl:
            return False
        assert self._process is not None
        return self._process.wait() in _CURL_STATUS

    @property
    def _is_curl(self) -> bool:
        command = None if self._process is None else self._process.args
        return isinstance(command, list) and command[0] == "curl"

    def _check_status(self) -> None:
        """Raise if the command has failed; one that still has something to say is not asked."""
        if self._process is None or self._file.read(1):
            return
        status = self._process.wait()
        if status:
            known = self._is_curl and status in _CURL_STATUS
            meaning = f" ({_CURL_STATUS[status]})" if known else ""
            raise OSError(f"{self._url}: its command ended with status {status}{meaning}")

    def interrupt(self) -> None:
        """Kill the command, if one runs, so that a read that waits for it ends."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        # The leader of a group keeps its number until it is waited for.
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                os.kill(process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End and reap the command, and close the stream; more than once is as good as once."""
        self.interrupt()
        self._file.close()
        if self._process is not None:
            self._process.wait()
