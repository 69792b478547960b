"""Batches in an order that any number of ranks can resume exactly.

The order of an epoch is a permutation of all rows that depends on seed and epoch alone; a batch is
a run of it. So the state is how many samples were consumed, and the same global batches follow at
any world size whose ``world_size * batch_size`` is the same.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal, TypedDict, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from esi_fast.data.augment_signal import crop_starts
from esi_fast.data.buffers import Buffers
from esi_fast.data.order import Buckets, Order, Shuffle
from esi_fast.data.shard_set import NanPolicy, Normalize

if TYPE_CHECKING:
    from esi_fast.data.shard_set import ShardSet
    from esi_fast.data.tokens import CaptionTokens

# Batches made ahead of the consumer.
PREFETCH_BATCHES = 4
# Other records that are tried in place of a damaged one.
_SUBSTITUTES = 16
_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, are spread evenly

Batch = dict[str, torch.Tensor]
OnError = Literal["raise", "skip"]


class LoaderState(TypedDict):
    """Where the next batch begins: ``samples`` are those consumed in ``epoch``, by all ranks.

    ``seed``, ``data`` (the shard set's digest), ``order`` and ``content`` say of which batches.
    """

    seed: int
    epoch: int
    samples: int
    data: str
    order: str
    content: str


@dataclass(frozen=True, slots=True)
class LoaderOptions:
    """What batches are made of, and in which order.

    Attributes:
        seed: of the order and of all that is drawn, not negative.
        shuffle: ``"full"``, a new permutation each epoch; ``"block"``, of the shards and within
            each ``window_shards`` of them, for disks on which seeking is slow; ``"none"``.
        window_shards: shards whose rows are mixed, of ``"block"``.
        pool_batches: with captions, sort this many global batches by length before they are cut, so
            that texts are padded less; 0 does not.
        drop_last: leave out the rows that do not fill a global batch; False spreads them over the
            ranks as evenly as possible.
        sentence_sampling: share of the contrastive texts that are cut to some sentences of the
            caption (see :func:`esi_fast.data.augment.draw_sentences`).
        normalize, nan_policy: as in :meth:`esi_fast.data.shard_set.ShardSet.read_batch`.
        crop: samples that are taken of each record, at a place drawn anew each epoch; 0 takes all.
        on_error: ``"raise"`` stops at a damaged sample; ``"skip"`` puts another record in its place
            and counts it.
        threads: that make batches.
        pin_memory: whether ``ecg`` is in pinned memory, for copies to a GPU that do not wait.
    """

    seed: int = 0
    shuffle: Shuffle = "full"
    window_shards: int = 8
    pool_batches: int = 0
    drop_last: bool = True
    sentence_sampling: float = 0.0
    normalize: Normalize = "mv"
    nan_policy: NanPolicy = "nan"
    crop: int = 0
    on_error: OnError = "raise"
    threads: int = 2
    pin_memory: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ValueError: a value is out of range; it is named.
        """
        if self.seed < 0 or self.threads < 1 or self.crop < 0 or self.pool_batches < 0:
            raise ValueError(
                f"seed {self.seed}, crop {self.crop} and pool_batches {self.pool_batches} must not "
                f"be negative, threads {self.threads} positive"
            )
        if not 0.0 <= self.sentence_sampling <= 1.0:
            raise ValueError(f"sentence_sampling is {self.sentence_sampling}, not in 0..1")
        for name, known in (
            ("on_error", get_args(OnError)),
            ("normalize", get_args(Normalize)),
            ("nan_policy", get_args(NanPolicy)),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, it must be one of {', '.join(known)}"
                )

    @property
    def content(self) -> str:
        """What a resumed run must have in common with the one that was saved, but for the order."""
        return (
            f"sentence_sampling {self.sentence_sampling:g}, {self.normalize}, missing samples "
            f"{self.nan_policy}, crop {self.crop}, drop_last {self.drop_last}"
        )


class Loader:
    """Batches of one rank, endless over epochs: each ``iter()`` runs to the end of the epoch.

    With n rows and ``G = world_size * batch_size``, global batch g of an epoch is rows ``[g * G,
    (g + 1) * G)`` of its order, and rank r has the r-th run of ``batch_size`` of them. A batch is a
    dict of ``ecg`` (B, leads, T) float32, by default in mV with NaN where missing, ``concept_key``
    and ``row`` (B,) int64, and with ``tokens`` also ``input_ids`` and ``attention_mask`` (B, N)
    int64 of the caption, and ``text_ids`` and ``text_mask`` of the text for the contrastive loss.

    Threads make batches ahead: signals are read and checked by the core, which needs no GIL. What
    they raise is raised here, at the batch that it concerns. There is one position: of two
    iterators, each goes on where the other one is.

    Attributes:
        batch_epoch: the epoch of the batch that was handed out last.
        wait_s: seconds that the consumer has waited for batches so far.
        skipped: damaged samples that were met (``on_error="skip"``): key -> what is wrong.
    """

    def __init__(
        self,
        shard_set: ShardSet,
        tokens: CaptionTokens | None,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        options: LoaderOptions = LoaderOptions(),
    ) -> None:
        """Prepare to load; nothing is read before the first ``iter()``.

        Args:
            shard_set: the samples.
            tokens: of its captions; None loads no captions.
            batch_size: samples a batch of this rank.
            rank: this process, from 0.
            world_size: number of processes.
            options: what batches are made of.

        Raises:
            ValueError: a number is out of range, or the rows are too few for one batch on every
                rank.
        """
        if batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(
                f"batch_size {batch_size} must be positive and rank {rank} in 0..{world_size - 1}"
            )
        self._shard_set, self._tokens, self._options = shard_set, tokens, options
        self._rank, self._world_size = rank, world_size
        self._global_size = batch_size * world_size
        self._epoch, self._samples = 0, 0
        self.batch_epoch = 0
        self.wait_s = 0.0
        self.skipped: dict[str, str] = {}
        rest = len(shard_set) % self._global_size
        if options.drop_last and len(shard_set) < self._global_size:
            raise ValueError(
                f"{len(shard_set)} records do not fill one batch of {batch_size} on each of "
                f"{world_size} ranks: lower batch_size"
            )
        if not options.drop_last and 0 < rest < world_size:
            raise ValueError(
                f"the last {rest} of {len(shard_set)} records are too few for {world_size} ranks: "
                "set drop_last or change batch_size"
            )
        if options.crop > shard_set.num_samples:
            raise ValueError(
                f"crop is {options.crop} samples, the records have {shard_set.num_samples}"
            )
        buckets = None
        if tokens is not None and options.pool_batches:
            buckets = Buckets(tokens.lengths, options.pool_batches)
        self._order = Order(
            shard_set.shard_of_row, options.seed, options.shuffle, options.window_shards, buckets
        )
        self._buffers = Buffers(options.pin_memory, most=2 * PREFETCH_BATCHES)

    def __len__(self) -> int:
        """Batches of a whole epoch, the same on every rank."""
        return len(self._starts(0))

    @property
    def num_skipped(self) -> int:
        """How many damaged samples were met."""
        return len(self.skipped)

    def state_dict(self) -> LoaderState:
        """Where the next batch begins; batches made ahead but not yet handed out do not count."""
        return {
            "seed": self._options.seed,
            "epoch": self._epoch,
            "samples": self._samples,
            "data": self._shard_set.digest,
            "order": self._order.describe(self._global_size),
            "content": self._options.content,
        }

    def load_state_dict(self, state: LoaderState) -> None:
        """Continue where `state_dict` was taken, at this or another world size.

        Raises:
            ValueError: the state is of a loader over other data, or of another seed, order or
                content, which is named with both values; or without ``drop_last`` the rest of the
                epoch cannot be dealt to all ranks.
        """
        if set(state) != set(LoaderState.__annotations__):
            raise ValueError(f"{state} is no loader state")
        own = self.state_dict()
        for what, before, now in (
            ("seed", state["seed"], own["seed"]),
            ("order", state["order"], own["order"]),
            ("content", state["content"], own["content"]),
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
        epoch, samples = state["epoch"], state["samples"]
        if (
            type(epoch) is not int
            or type(samples) is not int
            or epoch < 0
            or not 0 <= samples <= len(self._shard_set)
        ):
            raise ValueError(
                f"the loader state is at sample {samples} of {len(self._shard_set)} in epoch "
                f"{epoch}: it is damaged"
            )
        rest = (len(self._shard_set) - samples) % self._global_size
        if not self._options.drop_last and 0 < rest < self._world_size:
            raise ValueError(
                f"the last {rest} records of the epoch are too few for {self._world_size} ranks: "
                "resume with the batch size and ranks that it was saved with"
            )
        self._epoch, self._samples = state["epoch"], state["samples"]

    def order(self, epoch: int) -> NDArray[np.int64]:
        """All rows in the order of an epoch: a pure function of seed and epoch."""
        return self._order.rows(epoch, self._global_size)

    def __iter__(self) -> Iterator[Batch]:
        starts = self._starts(self._samples)
        if not starts:  # saved at another global batch size, with less than one of ours left
            self._epoch, self._samples = self._epoch + 1, 0
            starts = self._starts(0)
        epoch, order = self._epoch, self.order(self._epoch)
        ahead: deque[Future[tuple[Batch, dict[str, str]]]] = deque()
        to_submit = iter(starts)
        pool = ThreadPoolExecutor(self._options.threads, "esi_fast loader")
        try:
            for start in starts:
                for later in islice(to_submit, PREFETCH_BATCHES + 1 - len(ahead)):
                    ahead.append(pool.submit(self._batch, order, later, epoch))
                asked = time.perf_counter()
                batch, skipped = ahead.popleft().result()
                self.wait_s += time.perf_counter() - asked
                self.skipped |= skipped
                self.batch_epoch = epoch
                self._samples = start + self._global_size
                if start == starts[-1]:
                    self._epoch, self._samples = self._epoch + 1, 0
                yield batch
        finally:
            pool.shutdown(cancel_futures=True)

    def _starts(self, first: int) -> range:
        """Positions in the order at which the global batches from ``first`` on begin."""
        num_rows = len(self._shard_set)
        last = num_rows - self._global_size if self._options.drop_last else num_rows - 1
        return range(first, last + 1, self._global_size)

    def _batch(
        self, order: NDArray[np.int64], start: int, epoch: int
    ) -> tuple[Batch, dict[str, str]]:
        """The global batch that begins at ``start``, as far as it is this rank's."""
        of_ranks = np.array_split(order[start : start + self._global_size], self._world_size)
        rows = of_ranks[self._rank].copy()
        begin = start + sum(map(len, of_ranks[: self._rank]))
        length = self._options.crop or self._shard_set.num_samples
        ecg = self._buffers.take((len(rows), len(self._shard_set.leads), length))
        errors = self._read(rows, ecg.numpy(), epoch)
        skipped = {self._shard_set.key(int(rows[at])): what for at, what in errors.items()}
        for position, what in errors.items():
            if self._options.on_error == "raise":
                raise ValueError(what)
            self._substitute(order, begin + position, rows, ecg.numpy(), position, epoch)
        batch = {
            "ecg": ecg,
            "concept_key": torch.from_numpy(self._shard_set.concept_keys[rows]),
            "row": torch.from_numpy(rows),
        }
        if self._tokens is not None:
            batch |= self._tokens.batch(
                rows,
                seed=self._options.seed,
                epoch=epoch,
                share=self._options.sentence_sampling,
            )
        return batch, skipped

    def _read(
        self, rows: NDArray[np.int64], out: NDArray[np.float32], epoch: int
    ) -> dict[int, str]:
        starts = None
        if self._options.crop:
            starts = crop_starts(
                rows, self._shard_set.num_samples, self._options.crop,
                seed=self._options.seed, epoch=epoch,
            )  # fmt: skip
        return self._shard_set.read_batch(
            rows,
            out,
            starts=starts,
            normalize=self._options.normalize,
            nan_policy=self._options.nan_policy,
        )

    def _substitute(
        self,
        order: NDArray[np.int64],
        place: int,
        rows: NDArray[np.int64],
        out: NDArray[np.float32],
        position: int,
        epoch: int,
    ) -> None:
        """Put another record of the epoch in the place of a damaged one.

        Those tried are spread over the whole order, as damage is often a whole shard.
        """
        stride = round(len(order) * _GOLDEN) or 1
        for step in range(1, _SUBSTITUTES + 1):
            row = order[(place + step * stride) % len(order)]
            rows[position] = row
            if not self._read(rows[position : position + 1], out[position : position + 1], epoch):
                return
        raise ValueError(
            f"{_SUBSTITUTES} records that were tried one after the other are damaged, the last is "
            f"{self._shard_set.key(int(row))}: run tools/shard verify on the shards"
        )
