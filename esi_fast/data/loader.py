"""Batches in an order that any number of ranks can resume exactly.

The order of an epoch is a permutation of all rows that depends on seed and epoch alone; a batch is
a run of it. So the state is how many samples were consumed, and the same global batches follow at
any world size whose ``world_size * batch_size`` is the same.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from esi_fast.data.augment import sample_sentences

if TYPE_CHECKING:
    from esi_fast.data.shard_set import ShardSet

Tokenize = Callable[[list[str]], Mapping[str, torch.Tensor]]

# Batches made ahead of the consumer.
PREFETCH_BATCHES = 4


class LoaderState(TypedDict):
    """Where the next batch begins: ``samples`` are those consumed in ``epoch``, by all ranks.

    ``seed``, ``data`` (the shard set's digest) and ``sentence_sampling`` say of which batches.
    """

    seed: int
    epoch: int
    samples: int
    data: str
    sentence_sampling: float


class Loader:
    """Batches of one rank, endless over epochs: each ``iter()`` runs to the end of the epoch.

    With n rows and ``G = world_size * batch_size``, global batch g of an epoch is rows ``[g * G,
    (g + 1) * G)`` of its order, and rank r has the r-th run of ``batch_size`` of them. A batch is a
    dict of ``ecg`` (B, 12, T) float32 in mV with NaN where missing, ``concept_key`` and ``row``
    (B,) int64, and with ``tokenize`` also ``input_ids`` and ``attention_mask`` (B, N) int64 of the
    caption, and ``text_ids`` and ``text_mask`` of the text for the contrastive loss.

    A thread makes batches ahead. What it raises is raised here, at the batch that it concerns.

    Attributes:
        wait_s: seconds that the consumer has waited for batches so far.
    """

    def __init__(
        self,
        shard_set: ShardSet,
        tokenize: Tokenize | None,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        sentence_sampling: float = 0.0,
    ) -> None:
        """Prepare to load; nothing is read before the first ``iter()``.

        Args:
            shard_set: the samples.
            tokenize: captions to ``input_ids`` and ``attention_mask``; None loads no captions.
            batch_size: samples a batch of this rank.
            rank: this process, from 0.
            world_size: number of processes.
            seed: of the order, not negative.
            shuffle: a new permutation each epoch; False keeps the rows' own order.
            drop_last: leave out the rows that do not fill a global batch; False spreads them over
                the ranks as evenly as possible.
            sentence_sampling: share of the contrastive texts that are cut to some sentences of the
                caption (see :func:`esi_fast.data.augment.sample_sentences`).

        Raises:
            ValueError: a number is out of range, a sample has no caption though ``tokenize`` is
                given, or the rows are too few for one batch on every rank.
        """
        if batch_size < 1 or not 0 <= rank < world_size or seed < 0:
            raise ValueError(
                f"batch_size {batch_size} must be positive, rank {rank} in 0..{world_size - 1} and "
                f"seed {seed} not negative"
            )
        self._shard_set, self._tokenize = shard_set, tokenize
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._shuffle, self._drop_last = shuffle, drop_last
        self._sentence_sampling = sentence_sampling
        self._global_size = batch_size * world_size
        self._seed, self._epoch, self._samples = seed, 0, 0
        self.wait_s = 0.0
        rest = len(shard_set) % self._global_size
        if drop_last and len(shard_set) < self._global_size:
            raise ValueError(
                f"{len(shard_set)} records do not fill one batch of {batch_size} on each of "
                f"{world_size} ranks: lower batch_size"
            )
        if not drop_last and 0 < rest < world_size:
            raise ValueError(
                f"the last {rest} of {len(shard_set)} records are too few for {world_size} ranks: "
                "set drop_last or change batch_size"
            )
        if tokenize is not None and len(bare := shard_set.rows_without_caption()):
            raise ValueError(
                f"{len(bare)} of {len(shard_set)} records have no caption, the first is "
                f"{shard_set.key(int(bare[0]))}: bake captions in with tools/shard --cqa, or give "
                "an overlay (data.captions)"
            )

    def __len__(self) -> int:
        """Batches of a whole epoch, the same on every rank."""
        return len(self._starts(0))

    def state_dict(self) -> LoaderState:
        """Where the next batch begins; batches made ahead but not yet handed out do not count."""
        return {
            "seed": self._seed,
            "epoch": self._epoch,
            "samples": self._samples,
            "data": self._shard_set.digest,
            "sentence_sampling": self._sentence_sampling,
        }

    def load_state_dict(self, state: LoaderState) -> None:
        """Continue where `state_dict` was taken, at this or another world size.

        Raises:
            ValueError: the state is of a loader over other data, or of another seed or sentence
                sampling; what differs is named with both values.
        """
        if set(state) != set(LoaderState.__annotations__):
            raise ValueError(f"{state} is no loader state")
        own = self.state_dict()
        for what, before, now in (
            ("seed", state["seed"], own["seed"]),
            ("sentence_sampling", state["sentence_sampling"], own["sentence_sampling"]),
            (
                "data (the shards and their order, the split, or the caption overlay)",
                state["data"],
                own["data"],
            ),
        ):
            if before != now:
                raise ValueError(
                    f"the loader state has other {what}: {before}, not {now}: resume with what it "
                    "was saved with, or begin a new run"
                )
        if not 0 <= state["samples"] <= len(self._shard_set):
            raise ValueError(
                f"the loader state is at sample {state['samples']} of {len(self._shard_set)}: it "
                "is damaged"
            )
        self._epoch, self._samples = state["epoch"], state["samples"]

    def order(self, epoch: int) -> NDArray[np.int64]:
        """All rows in the order of an epoch: a pure function of seed and epoch."""
        if not self._shuffle:
            return np.arange(len(self._shard_set))
        # NumPy keeps raw bit streams stable between versions, which it does not promise of
        # Generator.permutation; a resumed run must see the order with which it began.
        bits = np.random.PCG64(np.random.SeedSequence([self._seed, epoch]))
        return np.argsort(bits.random_raw(len(self._shard_set)), kind="stable")

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        starts = self._starts(self._samples)
        if not starts:  # saved at another global batch size, with less than one of ours left
            self._epoch, self._samples = self._epoch + 1, 0
            starts = self._starts(0)
        batches: queue.Queue[dict[str, torch.Tensor] | BaseException] = queue.Queue(
            PREFETCH_BATCHES
        )
        stop = threading.Event()
        thread = threading.Thread(
            target=self._produce,
            args=(self._epoch, starts, batches, stop),
            name="esi_fast loader",
            daemon=True,
        )
        thread.start()
        try:
            for start in starts:
                asked = time.perf_counter()
                batch = batches.get()
                self.wait_s += time.perf_counter() - asked
                if isinstance(batch, BaseException):
                    raise batch
                self._samples = start + self._global_size
                if start == starts[-1]:
                    self._epoch, self._samples = self._epoch + 1, 0
                yield batch
        finally:
            stop.set()
            thread.join()

    def _starts(self, first: int) -> range:
        """Positions in the order at which the global batches from ``first`` on begin."""
        num_rows = len(self._shard_set)
        last = num_rows - self._global_size if self._drop_last else num_rows - 1
        return range(first, last + 1, self._global_size)

    def _produce(
        self,
        epoch: int,
        starts: range,
        batches: queue.Queue[dict[str, torch.Tensor] | BaseException],
        stop: threading.Event,
    ) -> None:
        order = self.order(epoch)
        for start in starts:
            made: dict[str, torch.Tensor] | BaseException
            try:
                made = self._batch(order[start : start + self._global_size], epoch)
            except BaseException as error:
                made = error
            while not stop.is_set():
                try:
                    batches.put(made, timeout=0.05)
                    break
                except queue.Full:
                    continue
            if stop.is_set() or isinstance(made, BaseException):
                return

    def _batch(self, global_rows: NDArray[np.int64], epoch: int) -> dict[str, torch.Tensor]:
        rows = np.array_split(global_rows, self._world_size)[self._rank]
        batch = {
            "ecg": torch.from_numpy(self._shard_set.read_ecg(rows)),
            "concept_key": torch.from_numpy(self._shard_set.concept_keys[rows]),
            "row": torch.from_numpy(rows),
        }
        if self._tokenize is not None:
            captions = [self._shard_set.read_caption(int(row)) or "" for row in rows]
            tokens = self._tokenize(captions)
            batch |= {name: tokens[name] for name in ("input_ids", "attention_mask")}
            if self._sentence_sampling > 0:
                tokens = self._tokenize(
                    [
                        sample_sentences(
                            caption,
                            seed=self._seed,
                            epoch=epoch,
                            row=int(row),
                            share=self._sentence_sampling,
                        )
                        for caption, row in zip(captions, rows, strict=True)
                    ]
                )
            batch |= {"text_ids": tokens["input_ids"], "text_mask": tokens["attention_mask"]}
        return batch
