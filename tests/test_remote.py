from __future__ import annotations

import contextlib
import functools
import http.server
import io
import itertools
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from shard_tree import SETTINGS, build, make_tree

from esi_fast.cqa.caption import CaptionDictionary
from esi_fast.data.augment import sample_sentences
from esi_fast.data.remote import PREFETCH_BATCHES, RemoteLoader, describe_stream
from esi_fast.data.sample_stream import parse_sample, row_number
from esi_fast.data.shard_set import ShardSet
from esi_fast.data.shard_writer import ShardWriter
from esi_fast.data.tar_stream import is_remote
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

    class Quiet(http.server.SimpleHTTPRequestHandler):
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


# --------------------------------------------------------------------------------------- samples


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("pipe:cat a.tar", True),
        ("s3://bucket/train-{000000..000390}.tar", True),
        ("https://host/a.tar", True),
        ("shards/base", False),
        ("/data/pipe:cat", False),
        ("C:/shards", False),
        ("odd folder://x", False),
    ],
)
def test_is_remote(url: str, expected: bool) -> None:
    assert is_remote(url) is expected


@pytest.mark.parametrize("source", ["pipe", "http", "s3", "file"])
def test_every_sample_is_that_of_the_shard_set(
    source: str,
    built: Path,
    serve: Callable[[Path], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = f"file://{built}"
    if source == "pipe":
        base = f"pipe:cat {built}"
    elif source == "http":
        base = serve(built)
    elif source == "s3":
        fake_aws(tmp_path, f'test "$1 $2 $4" = "s3 cp -" && exec cat "{built}/${{3#s3://bucket/}}"')
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        base = "s3://bucket"
    loader = RemoteLoader(
        f"{base}/train-{{000000..000004}}.tar", tokenize, 4, samples_per_epoch=NUM_RECORDS
    )
    shards = ShardSet(built)
    seen = []
    for batch in loader:
        assert {name: (value.dtype, value.shape[0]) for name, value in batch.items()} == {
            "ecg": (torch.float32, 4),
            "concept_key": (torch.int64, 4),
            "row": (torch.int64, 4),
            "input_ids": (torch.int64, 4),
            "attention_mask": (torch.int64, 4),
            "text_ids": (torch.int64, 4),
            "text_mask": (torch.int64, 4),
        }
        assert torch.equal(batch["text_ids"], batch["input_ids"])
        assert torch.equal(batch["text_mask"], batch["attention_mask"])
        rows = [ROW_OF_HASH[row] for row in batch["row"].tolist()]
        np.testing.assert_array_equal(batch["ecg"].numpy(), shards.read_ecg(rows))
        np.testing.assert_array_equal(batch["concept_key"].numpy(), shards.concept_keys[rows])
        for position, row in enumerate(rows):
            text = text_of(batch["input_ids"][position], batch["attention_mask"][position])
            assert text == shards.read_caption(row)
        seen += rows
    assert sorted(seen) == list(range(NUM_RECORDS))
    shards.close()


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


def test_missing_samples_become_nan(tmp_path: Path) -> None:
    ecg = np.full((12, 7), 1500, np.int16)
    ecg[3, 2:4] = -32768
    batch = next(iter(loader_of(write_tar(tmp_path / "a.tar", {"a": ecg}), 1)))
    assert torch.isnan(batch["ecg"][0, 3, 2:4]).all()
    assert torch.isnan(batch["ecg"]).sum() == 2
    assert batch["ecg"][0, 0, 0] == 1.5
    assert batch["concept_key"].tolist() == [10]


def test_sampled_texts_depend_on_seed_epoch_and_row(built: Path, urls: str) -> None:
    loader = RemoteLoader(
        urls, tokenize, 6, samples_per_epoch=NUM_RECORDS, seed=3, sentence_sampling=1.0
    )
    shards = ShardSet(built)
    for epoch in range(2):
        for batch in loader:
            for position, row in enumerate(batch["row"].tolist()):
                caption = shards.read_caption(ROW_OF_HASH[row]) or ""
                expected = sample_sentences(caption, seed=3, epoch=epoch, row=row, share=1.0)
                cut = text_of(batch["text_ids"][position], batch["text_mask"][position])
                assert cut == expected
                whole = text_of(batch["input_ids"][position], batch["attention_mask"][position])
                assert whole == caption
    shards.close()


def test_a_stream_is_described_by_its_first_sample(urls: str) -> None:
    assert describe_stream([urls]) == (500.0, 1000)
    with pytest.raises((ValueError, OSError)):
        describe_stream(["pipe:false"])


def test_row_numbers_are_stable() -> None:
    assert row_number("k000") == 2710579070197134532
    assert 0 <= min(ROW_OF_HASH) < max(ROW_OF_HASH) < 2**63
    assert len(ROW_OF_HASH) == NUM_RECORDS


# ----------------------------------------------------------------------------------------- order


def test_equal_settings_give_equal_batches(urls: str) -> None:
    loader = loader_of(urls, seed=1)
    epochs = [rows_of(loader) for _ in range(3)]
    assert len({str(epoch) for epoch in epochs}) == 3
    assert all(sorted(flat(epoch)) == list(range(NUM_RECORDS)) for epoch in epochs)
    again = loader_of(urls, seed=1)
    assert [rows_of(again) for _ in range(3)] == epochs
    assert rows_of(loader_of(urls, seed=2)) != epochs[0]


def test_the_order_stays_what_it_was(urls: str) -> None:
    # A run begun with an earlier version must resume in its own order.
    loader = loader_of(urls, 8, seed=7)
    expected = "15 20 17 16 21 18 22 19 2 10 11 1 23 4 14 13 12 0 7 8 9 3 5 6"
    assert flat(rows_of(loader)) == [int(row) for row in expected.split()]


def shards_in_order(loader: RemoteLoader) -> list[int]:
    """Shards of an epoch whose samples are not shuffled beyond them."""
    return [shard for shard, _ in itertools.groupby(row // 5 for row in flat(rows_of(loader)))]


def test_the_order_of_the_shards_changes_with_the_epoch(urls: str) -> None:
    loader = loader_of(urls, seed=1, shuffle_buffer=1)
    orders = [shards_in_order(loader) for _ in range(4)]
    assert all(sorted(order) == list(range(5)) for order in orders)
    assert len({str(order) for order in orders}) > 1
    rows = flat(rows_of(loader_of(urls, shuffle_buffer=1)))
    assert all(row % 5 == 0 or rows[at - 1] == row - 1 for at, row in enumerate(rows))


def test_the_buffer_mixes_shards(urls: str) -> None:
    assert len(shards_in_order(loader_of(urls, shuffle_buffer=100))) > 5


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 7, 12])
def test_ranks_have_different_samples_and_equally_many_batches(urls: str, world_size: int) -> None:
    # So few that nobody comes to the end of its share.
    smallest = {1: 24, 2: 9, 3: 4, 5: 4, 7: 2, 12: 1}[world_size]
    ranks = []
    for rank in range(world_size):
        loader = loader_of(
            urls, 1, samples_per_epoch=smallest * world_size, rank=rank, world_size=world_size
        )
        assert len(loader) == smallest
        ranks.append(flat(rows_of(loader)))
    assert [len(rows) for rows in ranks] == [smallest] * world_size
    assert len(set(flat(ranks))) == smallest * world_size


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 30])
def test_a_rank_at_the_end_of_its_share_goes_round_again(urls: str, world_size: int) -> None:
    ranks = []
    for rank in range(world_size):
        loader = loader_of(
            urls, 3, samples_per_epoch=60 * world_size, rank=rank, world_size=world_size
        )
        assert len(loader) == 20
        ranks.append(flat(rows_of(loader)))
        assert loader.state_dict()["epoch"] == 1
    assert [len(rows) for rows in ranks] == [60] * world_size
    for rows in ranks:
        # Its share, then everything, then everything again.
        share = next(n for n in range(25) if len(set(rows[n : n + NUM_RECORDS])) == NUM_RECORDS)
        assert len(set(rows[:share])) == share
        assert set(rows[share + NUM_RECORDS :]) <= set(range(NUM_RECORDS))
    if world_size > 1:  # each in an order of its own
        assert len({str(rows[-24:]) for rows in ranks}) == world_size


# ---------------------------------------------------------------------------------------- resume


def test_resume_at_an_epoch(urls: str) -> None:
    loader = loader_of(urls, seed=4)
    epochs = [rows_of(loader) for _ in range(3)]
    again = loader_of(urls, seed=4)
    rows_of(again)
    state = json.loads(json.dumps(again.state_dict()))
    assert (state["epoch"], state["batches"]) == (1, 0)
    resumed = loader_of(urls, seed=4)
    resumed.load_state_dict(state)
    assert [rows_of(resumed), rows_of(resumed)] == epochs[1:]


def test_resume_amid_an_epoch_begins_it_again_and_says_so(urls: str) -> None:
    loader = loader_of(urls, seed=4)
    first = rows_of(loader)
    second = rows_of(loader, 2)
    state = loader.state_dict()
    assert (state["epoch"], state["batches"]) == (1, 2)
    resumed = loader_of(urls, seed=4)
    with pytest.warns(UserWarning, match="after 2 batches of epoch 1: .* begins again") as caught:
        resumed.load_state_dict(state)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    assert resumed.state_dict() == state | {"batches": 0}
    assert rows_of(resumed)[:2] == second
    assert rows_of(loader)[:2] == second != first[:2]  # so does the loader that was left


def test_wrong_states_are_refused(urls: str) -> None:
    loader = loader_of(urls, seed=4)
    state = loader.state_dict()
    for changed, message in (
        ({"seed": 3}, "other seed: 3, not 4"),
        ({"data": "f00d"}, r"other data \(the URLs\): f00d, not "),
        ({"samples": 7}, "other samples_per_epoch: 7, not 24"),
        ({"epoch": -1}, "in epoch -1: it is damaged"),
        ({"epoch": 1.5}, "in epoch 1.5: it is damaged"),
    ):
        with pytest.raises(ValueError, match=message):
            loader.load_state_dict(state | changed)
    with pytest.raises(ValueError, match="no state of a loader of remote shards"):
        loader.load_state_dict({"seed": 4, "epoch": 1})  # type: ignore[typeddict-item]


# ---------------------------------------------------------------------------------------- errors


def broken(kind: str, built: Path, folder: Path, serve: Callable[[Path], str]) -> tuple[str, str]:
    """A URL of a shard of five samples that breaks, and what is said of it."""
    content = (built / "train-000001.tar").read_bytes()
    index = np.load(built / "train-000001.idx.npy")
    third = int(index["ecg_offset"][2]) - 512
    path = folder / "broken.tar"
    url = f"pipe:cat {path}"
    if kind == "cut within a member":
        content = content[: third + 5000]
        message = "damaged near byte .* unexpected end of data"
    elif kind == "cut between samples":
        content = content[:third]
        message = f"cut off at byte {third}$"
    elif kind == "cut within a header":
        content = content[: third + 100]
        message = f"cut off at byte {third + 100}$"
    elif kind == "damaged header":
        content = content[:third] + b"x" + content[third + 1 :]
        message = f"damaged at byte {third}$"
    elif kind == "no tar":
        content = b"<html>" * 1000
        message = "no whole tar, damaged near byte"
    elif kind == "empty":
        content = b""
        message = "no whole tar, damaged near byte 0: empty file"
    elif kind == "command fails at once":
        url, message = f"pipe:exit 3 # {path}", "its command ended with status 3$"
    elif kind == "command fails amid":
        content = content[: third + 5000]
        url, message = f"pipe:cat {path}; exit 4", "its command ended with status 4$"
    elif kind == "command fails at its end":
        url, message = f"pipe:cat {path}; exit 5", "its command ended with status 5$"
    elif kind == "command is not there":
        url, message = f"pipe:/none/cat {path} 2>/dev/null", "its command ended with status 127$"
    elif kind == "404":
        url, message = f"{serve(folder)}/none.tar", r"status 22 \(the server .* 404\)$"
    elif kind == "no server":
        url, message = "http://127.0.0.1:9/broken.tar", r"status 7 \(no connection\)$"
    elif kind == "no file":
        url, message = f"file://{folder}/none.tar", "No such file or directory$"
    path.write_bytes(content)
    return url, message


# How many samples are had before it breaks. The last one before that is not known to be whole.
KINDS = {
    "cut within a member": 1,
    "cut between samples": 1,
    "cut within a header": 1,
    "damaged header": 1,
    "no tar": 0,
    "empty": 0,
    "command fails at once": 0,
    "command fails amid": 1,
    "command fails at its end": 4,
    "command is not there": 0,
    "404": 0,
    "no server": 0,
    "no file": 0,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_breaks_stops_the_run(
    kind: str, built: Path, tmp_path: Path, serve: Callable[[Path], str]
) -> None:
    url, message = broken(kind, built, tmp_path, serve)
    loader = loader_of([url], 1)
    with pytest.raises((ValueError, OSError), match=f"^{re.escape(url)}: .*{message}") as error:
        list(loader)
    assert not one_line(error).startswith("(")


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_breaks_is_skipped(
    kind: str, built: Path, tmp_path: Path, serve: Callable[[Path], str]
) -> None:
    url, message = broken(kind, built, tmp_path, serve)
    whole = [f"file://{built}/train-00000{number}.tar" for number in (0, 2)]
    loader = loader_of([*whole, url], 1, samples_per_epoch=10 + KINDS[kind], on_error="skip")
    with pytest.warns(UserWarning, match=f"{re.escape(url)}: .*{message}") as caught:
        rows = flat(rows_of(loader))
    assert [str(one.message).count("\n") for one in caught] == [0]
    kept = set(range(5, 5 + KINDS[kind]))  # of the shard that breaks
    assert sorted(rows) == sorted({0, 1, 2, 3, 4, 10, 11, 12, 13, 14} | kept)
    assert loader.num_skipped == 1
    assert sorted(flat(rows_of(loader))) == sorted(rows)  # and no second warning
    assert loader.num_skipped == 2


@pytest.mark.parametrize("world_size", [1, 3])
def test_nothing_but_broken_streams_is_an_error(world_size: int) -> None:
    loader = loader_of(
        ["pipe:exit 1", "pipe:exit 2"],
        1,
        on_error="skip",
        rank=world_size - 1,
        world_size=world_size,
    )
    with (
        pytest.warns(UserWarning, match="status"),
        pytest.raises(ValueError, match=r"none of 2 shards gives a sample, the first is pipe:exit"),
    ):
        list(loader)


def test_a_rank_whose_share_is_broken_takes_from_the_others(built: Path) -> None:
    urls = ["pipe:exit 1", f"file://{built}/train-000000.tar"]
    options = {"on_error": "skip", "world_size": 2, "samples_per_epoch": 20}
    for rank in range(2):
        loader = loader_of(urls, 1, rank=rank, **options)
        with pytest.warns(UserWarning, match="status 1"):
            assert len(rows_of(loader)) == 10


def test_empty_shards_are_an_error(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(ValueError, match="none of 1 shards gives a sample"):
        list(loader_of(f"file://{tmp_path}/empty.tar"))


def odd_tar(folder: Path, **files: bytes) -> str:
    """The URL of a tar of one sample of these members."""
    path = folder / "odd.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"odd.{name.replace('_', '.')}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return f"file://{path}"


def npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_samples_that_do_not_fit_are_named(on_error: str, tmp_path: Path) -> None:
    ecg = np.zeros((12, 100), np.int16)

    def refused(array: np.ndarray, meta: bytes) -> str:
        url = odd_tar(tmp_path, ecg_npy=npy(array), json=meta)
        with pytest.raises(ValueError, match=rf"^{url}: sample odd ") as error:
            next(iter(loader_of(url, 1, on_error=on_error)))
        return one_line(error).partition(": ")[2]

    meta = meta_of("ab", 100)
    assert refused(ecg.astype(np.int32), meta).endswith("is int32 (12, 100), not int16 (12, T)")
    assert "is int16 (100, 12)" in refused(ecg.T.copy(), meta)
    assert "is int16 (1200,)" in refused(ecg.ravel(), meta)
    reversed_leads = json.dumps(json.loads(meta) | {"leads": ["V6", "V5"]}).encode()
    assert "has the leads V6,V5, not the twelve standard ones" in refused(ecg, reversed_leads)


def test_damaged_samples_are_named_or_skipped_with_the_rest_of_their_shard(tmp_path: Path) -> None:
    ecg, meta = npy(np.zeros((12, 100), np.int16)), meta_of("ab", 100)
    sound = write_tar(tmp_path / "sound.tar", {"a": np.zeros((12, 100), np.int16)})
    for files, message in (
        ({"ecg_npy": ecg[:-1], "json": meta}, "is damaged"),
        ({"ecg_npy": b"x", "json": meta}, "is damaged"),
        ({"ecg_npy": ecg, "json": b"["}, "is damaged"),
        ({"ecg_npy": ecg, "json": b"[]"}, "is damaged"),
        ({"ecg_npy": ecg, "json": b"{}"}, "has no concept_key"),
        ({"ecg_npy": ecg}, "has no json"),
        ({"json": meta}, "has no ecg.npy"),
        ({"ecg_npy": ecg, "json": meta, "txt": b"\xff"}, "is damaged"),
    ):
        url = odd_tar(tmp_path, **files)
        with pytest.raises(ValueError, match=rf"^{url}: sample odd {message}"):
            next(iter(loader_of(url, 1)))
        loader = loader_of([url, sound], 1, on_error="skip")
        with pytest.warns(UserWarning, match=f"the rest of a shard is skipped: {url}: sample odd"):
            keys = {int(batch["row"][0]) for batch in loader}
        assert keys == {row_number("a")}
        assert message in loader.skipped[url]


def test_an_npy_of_another_writer_is_read(tmp_path: Path) -> None:
    ecg = np.arange(12 * 30, dtype=np.int16).reshape(12, 30)
    content = io.BytesIO()
    np.lib.format.write_array(content, np.asfortranarray(ecg), version=(2, 0))
    meta = meta_of("f", 250)
    sample = parse_sample("a", {"ecg.npy": content.getvalue(), "json": meta})
    assert sample.fs == 250.0
    np.testing.assert_array_equal(sample.ecg, ecg)


def test_samples_of_different_length_are_refused(tmp_path: Path) -> None:
    url = write_tar(
        tmp_path / "a.tar",
        {"a": np.zeros((12, 50), np.int16), "b": np.zeros((12, 40), np.int16)},
    )
    with pytest.raises(ValueError, match=rf"{url}: sample b has 40 samples at 100 Hz, .* had 50"):
        list(loader_of(url, 1))


def test_a_sample_without_caption_is_named(tmp_path: Path) -> None:
    url = write_tar(tmp_path / "a.tar", {"a": np.zeros((12, 50), np.int16)}, caption=None)
    with pytest.raises(ValueError, match=rf"{url}: sample a has no caption: .*tools/shard --cqa"):
        list(RemoteLoader(url, tokenize, 1, samples_per_epoch=1))
    assert len(list(RemoteLoader(url, None, 1, samples_per_epoch=1))) == 1


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize(("scheme", "tool"), [("s3", "aws"), ("http", "curl"), ("gs", "gsutil")])
def test_a_missing_command_is_named(
    scheme: str, tool: str, on_error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match=rf"{scheme}://.*: there is no command {tool}: install") as e:
        list(loader_of(f"{scheme}://bucket/a.tar", on_error=on_error))
    one_line(e)


def test_a_failing_s3_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_aws(tmp_path, "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(OSError, match=r"s3://bucket/a\.tar: its command ended with status 1"):
        list(loader_of("s3://bucket/a.tar"))


@pytest.mark.parametrize(
    ("urls", "options", "message"),
    [
        ([], {}, "none given"),
        (["a.tar", "a.tar"], {}, "each once: a.tar, a.tar"),
        (["a-{0..1}.tar", "a-1.tar"], {}, "each once"),
        (["nope://a.tar"], {}, "no way to open nope://, only .*https.*s3"),
        (["a.tar"], {"batch_size": 0}, "batch_size 0"),
        (["a.tar"], {"rank": 2, "world_size": 2}, r"rank 2 in 0\.\.1"),
        (["a.tar"], {"seed": -1}, "seed -1"),
        (["a.tar"], {"shuffle_buffer": 0}, "shuffle_buffer 0"),
        (["a.tar"], {"on_error": "ignore"}, "on_error is 'ignore'"),
        (
            ["a.tar"],
            {"samples_per_epoch": 7, "world_size": 2},
            "samples_per_epoch 7 does not fill one batch of 4 on each of 2 ranks",
        ),
    ],
)
def test_impossible_settings(urls: list[str], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loader_of(urls, **options)  # type: ignore[arg-type]


def test_braces_are_expanded_in_lists_too(built: Path) -> None:
    loader = loader_of(
        [f"file://{built}/train-{{000000..000002}}.tar", f"{built}/train-00000{{3,4}}.tar"]
    )
    assert sorted(flat(rows_of(loader))) == list(range(NUM_RECORDS))


def test_webdataset_s_own_switches_hold(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOPEN_REWRITE", f"https://mirror/=pipe:cat {built}/")
    assert len(rows_of(loader_of("https://mirror/train-{000000..000004}.tar"))) == 6
    monkeypatch.delenv("GOPEN_REWRITE")
    monkeypatch.setattr("webdataset.utils.enforce_security", True)  # WDS_SECURE=1
    with pytest.raises(ValueError, match=r"^pipe:cat a: .* cannot open pipe URLs"):
        list(loader_of("pipe:cat a"))


# --------------------------------------------------------------------------- thread and processes


def test_leaving_early_ends_thread_and_processes(built: Path, tmp_path: Path) -> None:
    # A shell that waits for another process, as a stalled download in a pipeline does.
    pids = tmp_path / "pids"
    url = (
        f"pipe:cat {built}/train-000000.tar | head -c 400000; sleep 1000 & echo $! >> {pids}; wait"
    )
    loader = loader_of([url], 1, shuffle_buffer=1)
    iterator = iter(loader)
    next(iterator)
    wait_for(lambda: pids.is_file() and pids.read_text().endswith("\n"))
    iterator.close()  # the thread waits for bytes that never come
    wait_for(lambda: not is_alive(int(pids.read_text())))
    assert (loader.state_dict()["epoch"], loader.state_dict()["batches"]) == (0, 1)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"  # killed; its new parent will reap it


@pytest.mark.parametrize("num_batches", [1, 3])
def test_leaving_early_over_http(
    built: Path, serve: Callable[[Path], str], num_batches: int
) -> None:
    base = serve(built)
    loader = loader_of(f"{base}/train-{{000000..000004}}.tar", 2, shuffle_buffer=1)
    whole = loader_of(f"{base}/train-{{000000..000004}}.tar", 2, shuffle_buffer=1)
    assert rows_of(loader, num_batches) == rows_of(whole)[:num_batches]


def test_batches_made_ahead_are_bounded(urls: str) -> None:
    calls = []

    def counting(captions: list[str]) -> dict[str, torch.Tensor]:
        calls.append(len(captions))
        return tokenize(captions)

    iterator = iter(RemoteLoader(urls, counting, 1, samples_per_epoch=NUM_RECORDS))
    next(iterator)
    full = 1 + PREFETCH_BATCHES + 1  # one handed out, a queue full, one in the thread's hand
    wait_for(lambda: len(calls) >= full)
    time.sleep(0.2)  # one too many would come now
    assert len(calls) == full
    iterator.close()


def test_an_error_of_the_tokenizer_is_raised_here(urls: str) -> None:
    def fails(captions: list[str]) -> dict[str, torch.Tensor]:
        raise RuntimeError("no vocabulary")

    with pytest.raises(RuntimeError, match="no vocabulary"):
        next(iter(RemoteLoader(urls, fails, 4, samples_per_epoch=4)))


def test_a_warning_made_an_error_ends_the_loop(built: Path) -> None:
    loader = loader_of(["pipe:exit 1", f"file://{built}/train-000000.tar"], 1, on_error="skip")
    with pytest.raises(UserWarning, match="status 1"):
        list(loader)


def test_importing_needs_no_webdataset() -> None:
    code = "import sys, esi_fast.data.remote; print('webdataset' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
