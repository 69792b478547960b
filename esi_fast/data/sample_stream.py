"""The samples of one rank in one epoch, as they come from the streams of its shards."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from esi_fast.data.shard_index import concept_key_number, npy_header
from esi_fast.data.tar_stream import MissingCommandError, TarStream
from esi_fast.leads import NUM_LEADS, STANDARD_LEADS


class UnfitSampleError(ValueError):
    """A sample that is sound, but not of what is read: an error whatever is skipped."""


class Sample(NamedTuple):
    """A streamed sample.

    Attributes:
        row: what stands for a row number, see `row_number`.
        concept_key: as `esi_fast.data.shard_index.concept_key_number` gives it.
        fs: sampling rate, Hz.
        ecg: (12, T) int16, 1 uV per LSB, -32768 where missing.
        caption: the caption, or None where none is baked in.
    """

    row: int
    concept_key: int
    fs: float
    ecg: NDArray[np.int16]
    caption: str | None


def row_number(key: str) -> int:
    """A 63-bit hash of a sample's key, which stands for the row number that a stream lacks."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) >> 1


def parse_sample(key: str, members: dict[str, bytes]) -> Sample:
    """A sample from the bytes of its members by suffix: ``ecg.npy``, ``json``, ``txt`` if any.

    Raises:
        ValueError: a member is missing or damaged, the signal is not int16 (12, T), or its leads
            are not the standard ones in their order.
    """
    try:
        ecg = _read_npy(members["ecg.npy"])
        meta = json.loads(members["json"])
        concept_key, fs = concept_key_number(meta["concept_key"]), float(meta["fs"])
        leads = tuple(meta["leads"])
        caption = members["txt"].decode("utf-8") if "txt" in members else None
    except KeyError as error:
        raise ValueError(f"sample {key} has no {error.args[0]}") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"sample {key} is damaged: {' '.join(str(error).split())}") from None
    if ecg.dtype != np.int16 or ecg.ndim != 2 or len(ecg) != NUM_LEADS:
        raise UnfitSampleError(
            f"sample {key} is {ecg.dtype} {ecg.shape}, not int16 ({NUM_LEADS}, T)"
        )
    if leads != STANDARD_LEADS:
        raise UnfitSampleError(f"sample {key} has the leads {','.join(map(str, leads))}, not the "
                               "twelve standard ones in their order")  # fmt: skip
    return Sample(row_number(key), concept_key, fs, ecg, caption)


def _read_npy(content: bytes) -> NDArray[Any]:
    # NumPy compiles the header as Python, which takes longer than all else that a sample needs; so
    # only of what tools/shard has not written.
    num_samples = max(0, len(content) - len(npy_header(NUM_LEADS, 0))) // (2 * NUM_LEADS)
    header = npy_header(NUM_LEADS, num_samples)
    if content.startswith(header) and len(content) == len(header) + 2 * NUM_LEADS * num_samples:
        return np.frombuffer(content, "<i2", offset=len(header)).reshape(NUM_LEADS, num_samples)
    array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    return array


class SampleStream:
    """Samples of one rank in one epoch, without end; `RemoteLoader` says in which order.

    One thread iterates and closes, another may `stop` it.

    Attributes:
        skipped: URL and reason of each shard whose rest was left, since the consumer last looked.
    """

    def __init__(
        self,
        urls: list[str],
        *,
        seed: int,
        epoch: int,
        rank: int,
        world_size: int,
        shuffle_buffer: int,
        captions: bool,
        skip: bool,
        expected: tuple[float, int] | None = None,
    ) -> None:
        """Prepare to stream; nothing is opened yet.

        Args:
            urls: of the shards, as `esi_fast.data.tar_stream.expand_urls` gives them.
            seed, epoch, rank, world_size: what the order depends on.
            shuffle_buffer: samples from which the next is drawn.
            captions: a sample without one is an error.
            expected: sampling rate and samples per lead that all must have; those of the first if
                None.
            skip: leave the rest of a shard whose stream breaks or that has a damaged sample.
        """
        self._urls, self._seed, self._epoch = urls, seed, epoch
        self._rank, self._world_size = rank, world_size
        self._shuffle_buffer, self._captions, self._skip = shuffle_buffer, captions, skip
        self._expected = expected
        self._tar: TarStream | None = None
        self._stopped = threading.Event()
        self.skipped: deque[tuple[str, str]] = deque()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """End the iteration, wherever it waits; call again until its thread has ended."""
        self._stopped.set()
        if (tar := self._tar) is not None:  # if one is just being opened, the next call ends it
            tar.interrupt()

    def close(self) -> None:
        """Close the open shard and reap its command."""
        if self._tar is not None:
            self._tar.close()

    def __iter__(self) -> Iterator[Sample]:
        seeds = np.random.SeedSequence([self._seed, self._epoch, self._rank], spawn_key=(1,))
        bits = np.random.PCG64(seeds)

        def draw(buffer: list[Sample]) -> Sample:
            drawn = bits.random_raw() % len(buffer)
            buffer[drawn], buffer[-1] = buffer[-1], buffer[drawn]
            return buffer.pop()

        for round_number in itertools.count():
            num_samples = 0
            buffer: list[Sample] = []
            for sample in self._round(round_number):
                num_samples += 1
                buffer.append(sample)
                if len(buffer) == self._shuffle_buffer:
                    yield draw(buffer)
            # Emptied before the next round, so that no sample comes again before all have come.
            while buffer:
                yield draw(buffer)
            if self.stopped:
                return
            if round_number and not num_samples:  # the first is a share, which may be empty
                raise ValueError(
                    f"none of {len(self._urls)} shards gives a sample, the first is {self._urls[0]}"
                )

    def _round(self, round_number: int) -> Iterator[Sample]:
        """The samples of this rank's share of the shards, then, in later rounds, of all shards."""
        num_shards = len(self._urls)
        part, num_parts = 0, 1
        if round_number:
            order = _permutation([self._seed, self._epoch, round_number, self._rank], num_shards)
        else:
            first = self._rank % num_shards
            order = _permutation([self._seed, self._epoch], num_shards)[first :: self._world_size]
            # Ranks that share this shard, where there are more ranks than shards.
            num_parts = len(range(first, self._world_size, num_shards))
            part = self._rank // num_shards
        for shard in order:
            url = self._urls[shard]
            yield from self._read(url, part, num_parts)

    def _read(self, url: str, part: int, num_parts: int) -> Iterator[Sample]:
        """Every ``num_parts``-th sample of a shard, from number ``part`` on."""
        if self.stopped:
            return
        try:
            self._tar = TarStream(url)
            for number, (key, members) in enumerate(self._tar.members()):
                if number % num_parts == part:
                    yield self._sample(url, key, members)
        except (OSError, ValueError) as error:
            if not self._skip or isinstance(error, MissingCommandError | UnfitSampleError):
                raise
            self.skipped.append((url, str(error)))
        finally:
            self.close()

    def _sample(self, url: str, key: str, members: dict[str, bytes]) -> Sample:
        try:
            sample = parse_sample(key, members)
        except ValueError as error:
            raise type(error)(f"{url}: {error}") from None
        found = sample.fs, sample.ecg.shape[1]
        self._expected = self._expected or found
        if found != self._expected:
            raise UnfitSampleError(
                f"{url}: sample {key} has {found[1]} samples at {found[0]:g} Hz, the first had "
                f"{self._expected[1]} at {self._expected[0]:g} Hz: shards read together must agree"
            )
        if self._captions and sample.caption is None:
            raise UnfitSampleError(
                f"{url}: sample {key} has no caption: bake captions in with tools/shard --cqa"
            )
        return sample


def _permutation(seeds: list[int], length: int) -> list[int]:
    # Raw bits, which NumPy keeps stable between versions, unlike the permutations of its Generator.
    bits = np.random.PCG64(np.random.SeedSequence(seeds))
    order: list[int] = np.argsort(bits.random_raw(length), kind="stable").tolist()
    return order
