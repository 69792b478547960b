"""Batches of shards that are streamed: shuffled approximately, resumable by epoch.

For shards on a disk, `esi_fast.data.loader` is faster and exact. A stream has no random access, so
here the shards are read in a random order and their samples pass through a shuffle buffer; a run
resumes at the beginning of an epoch. Nor has it the index with its checksums: a tar that is cut off
or a header that is damaged is found, a flipped bit of a signal is not.

``webdataset`` opens the URLs. Order and shares are made here, as its shard order is the same in
every epoch if it is seeded, and its ranks have unequal numbers of samples, which hangs them.
"""

from __future__ import annotations

import hashlib
import itertools
import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, TypedDict

import numpy as np
import torch

from esi_fast.data.augment import sample_sentences
from esi_fast.data.sample_stream import Sample, SampleStream
from esi_fast.data.shard_index import MISSING, UNIT_PER_MV
from esi_fast.data.tar_stream import expand_urls

# Batches made ahead of the consumer.
PREFETCH_BATCHES = 4


class RemoteState(TypedDict):
    """The epoch to begin, and the batches of it that had been handed out when it was saved.

    ``data`` is a digest of the URLs, ``samples`` those of an epoch.
    """

    seed: int
    epoch: int
    batches: int
    data: str
    samples: int


def describe_stream(urls: str | Sequence[str], *, skip: bool = False) -> tuple[float, int]:
    """Sampling rate (Hz) and samples per lead of what is streamed, by its first sample.

    With ``skip``, of the first shard that gives one.

    Raises:
        ValueError, OSError: as the batches of `RemoteLoader`.
    """
    stream = SampleStream(
        expand_urls(urls), seed=0, epoch=0, rank=0, world_size=1, shuffle_buffer=1,
        captions=False, skip=skip,
    )  # fmt: skip
    try:
        first = next(iter(stream))
    finally:
        stream.close()
    return first.fs, first.ecg.shape[1]


class RemoteLoader:
    """Batches of one rank from tars that are streamed, one epoch for each ``iter()``.

    The order of the shards is a pure function of seed and epoch. They are dealt round robin to the
    ranks, which so have different samples; with more ranks than shards, some ranks stream the same
    shard, and of k such ranks each takes every k-th sample (all of them download it). A rank that
    has come to the end of its share goes round all shards, in an order of its own, so that every
    rank gives ``len(self)`` batches. Samples are drawn at random from a buffer of
    ``shuffle_buffer``, which takes 24 bytes times T a sample (246 MB for 2,048 of 10 s at 500 Hz).
    Equal settings give equal batches.

    A batch is a dict of ``ecg`` (B, 12, T) float32 in mV with NaN where missing, ``concept_key``
    and ``row`` (B,) int64, and with ``tokenize`` also ``input_ids`` and ``attention_mask`` (B, N)
    int64 of the caption, and ``text_ids`` and ``text_mask`` of the text for the contrastive loss:
    as `esi_fast.data.loader.Loader`, but ``row`` is
    `esi_fast.data.sample_stream.row_number` of the sample's key.

    A thread makes batches ahead; what it raises is raised here. Leaving an epoch early ends the
    thread and the command that it reads from, and the next ``iter()`` begins that epoch again.

    Attributes:
        batch_epoch: the epoch of the batch that was handed out last.
        skipped: shards of which the rest was left (``on_error="skip"``): URL -> what is wrong.
        num_skipped: how often that was done.
        wait_s: seconds that the consumer has waited for batches so far.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        tokenize: Callable[[list[str]], Mapping[str, torch.Tensor]] | None,
        batch_size: int,
        *,
        samples_per_epoch: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        shuffle_buffer: int = 2048,
        sentence_sampling: float = 0.0,
        on_error: Literal["raise", "skip"] = "raise",
        expected: tuple[float, int] | None = None,
    ) -> None:
        """Prepare to stream; nothing is opened before the first ``iter()``.

        Args:
            urls: uncompressed tars of `esi_fast.data.shards.write_shards`, with braces expanded
                (``train-{000000..000390}.tar``; a backslash keeps a brace): ``http(s)://`` through
                curl, ``s3://BUCKET/KEY`` through ``aws s3 cp``, ``pipe:COMMAND`` through the shell
                (of a pipeline, only the last status counts), and what else webdataset knows.
            tokenize: captions to ``input_ids`` and ``attention_mask``; None loads no captions.
            batch_size: samples a batch of this rank.
            samples_per_epoch: samples that all ranks together take in an epoch; what does not fill
                a batch on every rank is left out.
            rank: this process, from 0.
            world_size: number of processes.
            seed: of the order, not negative.
            shuffle_buffer: samples from which the next is drawn; 1 keeps the order within shards.
            sentence_sampling: share of the contrastive texts that are cut to some sentences of the
                caption (see `esi_fast.data.augment.sample_sentences`).
            on_error: what to do when a stream breaks (it cannot be opened, its command fails, the
                tar is cut off, a sample is damaged): "raise", or "skip" the rest of that shard and
                warn once for it. Samples that are sound but do not fit (another rate, length or
                leads, no caption) are an error in either case.
            expected: sampling rate and samples per lead, as `describe_stream` gives them; without,
                those of each epoch's first sample hold for the rank.

        Raises:
            ValueError: a number is out of range, ``samples_per_epoch`` does not fill one batch on
                every rank, or a URL is given twice or is of a kind that cannot be opened.
            ModuleNotFoundError: webdataset is not installed (``pip install 'esi-fast[data]'``).
        """
        if batch_size < 1 or not 0 <= rank < world_size or seed < 0 or shuffle_buffer < 1:
            raise ValueError(
                f"batch_size {batch_size} and shuffle_buffer {shuffle_buffer} must be positive, "
                f"rank {rank} in 0..{world_size - 1} and seed {seed} not negative"
            )
        if samples_per_epoch < batch_size * world_size:
            raise ValueError(
                f"samples_per_epoch {samples_per_epoch} does not fill one batch of {batch_size} on "
                f"each of {world_size} ranks: lower batch_size or raise samples_per_epoch"
            )
        if not 0.0 <= sentence_sampling <= 1.0:
            raise ValueError(f"sentence_sampling is {sentence_sampling}, not in 0..1")
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is {on_error!r}, it must be 'raise' or 'skip'")
        self._urls = expand_urls(urls)
        self._tokenize, self._sentence_sampling = tokenize, sentence_sampling
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._num_batches = samples_per_epoch // (batch_size * world_size)
        self._shuffle_buffer, self._skip = shuffle_buffer, on_error == "skip"
        self._seed, self._epoch, self._batches = seed, 0, 0
        self._samples_per_epoch, self._expected = samples_per_epoch, expected
        self.skipped: dict[str, str] = {}
        self.num_skipped = self.batch_epoch = 0
        self.wait_s = 0.0

    def __len__(self) -> int:
        """Batches of an epoch, the same on every rank."""
        return self._num_batches

    def state_dict(self) -> RemoteState:
        """Where to resume; batches made ahead but not yet handed out do not count."""
        urls = "\n".join(url.partition("?")[0] for url in self._urls)  # signed ones expire
        return {
            "seed": self._seed,
            "epoch": self._epoch,
            "batches": self._batches,
            "data": hashlib.sha256(urls.encode()).hexdigest()[:16],
            "samples": self._samples_per_epoch,
        }

    def load_state_dict(self, state: RemoteState) -> None:
        """Continue at the beginning of the epoch in which `state_dict` was taken.

        If that was amid the epoch, a warning says that its first batches will come again.

        Raises:
            ValueError: this is no state of such a loader, or it is of another seed, of other URLs,
                or of epochs of another length.
        """
        if set(state) != set(RemoteState.__annotations__):
            raise ValueError(f"{state} is no state of a loader of remote shards")
        own = self.state_dict()
        for what, before, now in (
            ("seed", state["seed"], own["seed"]),
            ("data (the URLs)", state["data"], own["data"]),
            ("samples_per_epoch", state["samples"], own["samples"]),
        ):
            if before != now:
                raise ValueError(
                    f"the loader state has other {what}: {before}, not {now}: resume with what it "
                    "was saved with, or begin a new run"
                )
        if type(state["epoch"]) is not int or state["epoch"] < 0:
            raise ValueError(f"the loader state is in epoch {state['epoch']}: it is damaged")
        if state["batches"]:
            warnings.warn(
                f"the loader state is after {state['batches']} batches of epoch {state['epoch']}: "
                "remote shards resume by epoch, so this epoch begins again",
                stacklevel=2,
            )
        self._epoch, self._batches = state["epoch"], 0

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        self._batches, epoch = 0, self._epoch
        samples = SampleStream(
            self._urls,
            seed=self._seed,
            epoch=epoch,
            rank=self._rank,
            world_size=self._world_size,
            shuffle_buffer=self._shuffle_buffer,
            captions=self._tokenize is not None,
            skip=self._skip,
            expected=self._expected,
        )
        batches: queue.Queue[dict[str, torch.Tensor] | BaseException] = queue.Queue(
            PREFETCH_BATCHES
        )
        thread = threading.Thread(
            target=self._produce,
            args=(epoch, samples, batches),
            name="esi_fast remote loader",
            daemon=True,
        )
        thread.start()
        try:
            for number in range(1, len(self) + 1):
                asked = time.perf_counter()
                batch = batches.get()
                self.wait_s += time.perf_counter() - asked
                # Here and not in the thread: a warning that is made an error must end the loop.
                while samples.skipped:
                    url, reason = samples.skipped.popleft()
                    self.num_skipped += 1
                    if url not in self.skipped:
                        self.skipped[url] = reason
                        warnings.warn(f"the rest of a shard is skipped: {reason}", stacklevel=2)
                if isinstance(batch, BaseException):
                    raise batch
                self._batches, self.batch_epoch = number, epoch
                if number == len(self):
                    self._epoch, self._batches = epoch + 1, 0
                yield batch
        finally:
            samples.stop()
            while thread.is_alive():
                thread.join(0.05)
                samples.stop()

    def _produce(
        self,
        epoch: int,
        samples: SampleStream,
        batches: queue.Queue[dict[str, torch.Tensor] | BaseException],
    ) -> None:
        endless = iter(samples)
        for _ in range(len(self)):
            made: dict[str, torch.Tensor] | BaseException
            try:
                taken = list(itertools.islice(endless, self._batch_size))
                if samples.stopped:
                    break
                made = self._batch(taken, epoch)
            except BaseException as error:
                made = error
            while not samples.stopped:
                try:
                    batches.put(made, timeout=0.05)
                    break
                except queue.Full:
                    continue
            if samples.stopped or isinstance(made, BaseException):
                break
        samples.close()

    def _batch(self, samples: list[Sample], epoch: int) -> dict[str, torch.Tensor]:
        digital = np.stack([sample.ecg for sample in samples])
        ecg = np.divide(digital, np.float32(UNIT_PER_MV), dtype=np.float32)
        ecg[digital == MISSING] = np.nan
        batch = {
            "ecg": torch.from_numpy(ecg),
            "concept_key": torch.tensor([sample.concept_key for sample in samples]),
            "row": torch.tensor([sample.row for sample in samples]),
        }
        if self._tokenize is not None:
            captions = [sample.caption or "" for sample in samples]
            tokens = self._tokenize(captions)
            batch |= {name: tokens[name] for name in ("input_ids", "attention_mask")}
            if (share := self._sentence_sampling) > 0:
                seed = self._seed
                tokens = self._tokenize(
                    [
                        sample_sentences(text, seed=seed, epoch=epoch, row=sample.row, share=share)
                        for text, sample in zip(captions, samples, strict=True)
                    ]
                )
            batch |= {"text_ids": tokens["input_ids"], "text_mask": tokens["attention_mask"]}
        return batch
