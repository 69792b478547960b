"""A server, shards and helpers for the tests of streamed shards."""

from __future__ import annotations

import contextlib
import functools
import http.server
import itertools
import json
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from shard_tree import SETTINGS, build, make_tree

from esi_fast.cqa.caption import CaptionDictionary
from esi_fast.data import tar_stream
from esi_fast.data.remote import RemoteLoader
from esi_fast.data.sample_stream import row_number
from esi_fast.data.shard_writer import ShardWriter
from esi_fast.leads import STANDARD_LEADS

ONE_SPLIT = SETTINGS | {"val_fraction": 0.0, "test_fraction": 0.0}
NUM_RECORDS = 24  # in five shards, the last of four records
ROW_OF_HASH = {row_number(f"k{row:03d}"): row for row in range(NUM_RECORDS)}
T = TypeVar("T")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = make_tree(tmp_path_factory.mktemp("tree"), NUM_RECORDS)
    out = tmp_path_factory.mktemp("shards") / "out"
    build(tree, out, captions=CaptionDictionary([]), **ONE_SPLIT)
    return out


@pytest.fixture(scope="module")
def urls(built: Path) -> str:
    """All shards, by a command."""
    return f"pipe:cat {built}/train-{{000000..000004}}.tar"


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Serves a folder on this machine alone; gives the URL of it."""

    busy: set[str] = set()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/busy/"):  # when it is first asked
                self.path = self.path.removeprefix("/busy")
                if self.path not in busy:
                    busy.add(self.path)
                    return self.send_error(503)
            return super().do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = False  # so that closing waits for them

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # the loader has left

    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    servers = []

    def start(folder: Path) -> str:
        server = Server(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No thread, child process or open file of a loader outlives its test."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(tar_stream, "RETRY_DELAYS", (0.01, 0.01))
    files = open_files()
    yield
    assert not [one for one in threading.enumerate() if one.name == "esi_fast remote loader"]
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert open_files() == files


def open_files() -> dict[str, str]:
    found = {}
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found[descriptor.name] = str(descriptor.readlink())
    return found


def tokenize(captions: list[str]) -> dict[str, torch.Tensor]:
    """One token a byte, zero-padded."""
    longest = max(len(caption.encode()) for caption in captions)
    ids = torch.zeros(len(captions), longest, dtype=torch.int64)
    for row, caption in enumerate(captions):
        ids[row, : len(caption.encode())] = torch.tensor(list(caption.encode()))
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def text_of(ids: torch.Tensor, mask: torch.Tensor) -> str:
    return bytes(ids[mask.bool()].tolist()).decode()


def loader_of(urls: str | list[str], batch_size: int = 4, **options: object) -> RemoteLoader:
    settings: dict[str, object] = {"samples_per_epoch": NUM_RECORDS, "shuffle_buffer": 6}
    return RemoteLoader(urls, None, batch_size, **(settings | options))  # type: ignore[arg-type]


def rows_of(loader: RemoteLoader, num_batches: int | None = None) -> list[list[int]]:
    """Row numbers as the local shard set has them."""
    batches = itertools.islice(loader, num_batches)
    return [[ROW_OF_HASH[row] for row in batch["row"].tolist()] for batch in batches]


def flat(lists: Iterable[list[T]]) -> list[T]:
    return list(itertools.chain.from_iterable(lists))


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def fake_aws(folder: Path, script: str) -> None:
    path = folder / "aws"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def write_tar(path: Path, samples: dict[str, np.ndarray], caption: bytes | None = b"c.") -> str:
    """A shard of given signals; gives its URL."""
    with ShardWriter(path, path.with_suffix(".idx")) as writer:
        for key, ecg in samples.items():
            meta = meta_of("00000000000000ab", 100)
            writer.add([key], ecg[None], [meta], [caption], ["ab"])
        writer.finish()
    return f"file://{path}"


def meta_of(concept_key: str, fs: float) -> bytes:
    meta = {"concept_key": concept_key, "fs": fs, "leads": list(STANDARD_LEADS)}
    return json.dumps(meta).encode()
