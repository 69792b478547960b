from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from remote_fakes import (
    NUM_RECORDS,
    built,
    fake_aws,
    flat,
    loader_of,
    meta_of,
    nothing_is_left,
    one_line,
    rows_of,
    serve,
    tokenize,
    urls,
    write_tar,
)

from esi_fast.data.remote import RemoteLoader
from esi_fast.data.sample_stream import parse_sample, row_number

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


@pytest.mark.parametrize("num_delays", [0, 1])
def test_a_server_that_was_busy_is_asked_again(
    built: Path, serve: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch, num_delays: int
) -> None:
    monkeypatch.setattr("esi_fast.data.tar_stream.RETRY_DELAYS", (0.01,) * num_delays)
    loader = loader_of(f"{serve(built)}/busy/train-000001.tar", 5, samples_per_epoch=5)
    if num_delays:
        assert len(flat(rows_of(loader))) == 5
    else:
        with pytest.raises(OSError, match="status 22"):
            rows_of(loader)


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


def test_what_is_expected_holds_from_the_first_sample(tmp_path: Path) -> None:
    url = write_tar(tmp_path / "a.tar", {"a": np.zeros((12, 50), np.int16)})
    assert len(list(loader_of(url, 1, samples_per_epoch=1, expected=(100.0, 50)))) == 1
    with pytest.raises(ValueError, match=r"a has 50 samples at 100 Hz, the first had 50 at 250 Hz"):
        list(loader_of(url, 1, samples_per_epoch=1, expected=(250.0, 50)))


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
