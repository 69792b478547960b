from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from remote_fakes import (
    NUM_RECORDS,
    ROW_OF_HASH,
    built,
    fake_aws,
    flat,
    loader_of,
    nothing_is_left,
    rows_of,
    serve,
    text_of,
    tokenize,
    urls,
    write_tar,
)

from esi_fast.data.augment import sample_sentences
from esi_fast.data.remote import PREFETCH_BATCHES, RemoteLoader, describe_stream
from esi_fast.data.sample_stream import row_number
from esi_fast.data.shard_set import ShardSet
from esi_fast.data.tar_stream import is_remote

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
    assert describe_stream([urls]) == describe_stream(urls) == (500.0, 1000)
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
