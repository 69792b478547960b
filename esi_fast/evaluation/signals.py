"""What reads the records of an evaluation by row, by the rules of a protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from esi_fast.data.signals import Signals, no_signal, read_shards, read_wfdb
from esi_fast.evaluation.protocols import as_protocol

if TYPE_CHECKING:
    from esi_fast.data.shard_set import ShardSet
    from esi_fast.signal.records import RecordPath

ReadRows = Callable[[Sequence[int]], tuple[Signals, tuple[str, ...]]]


def record_reader(
    dataset: str,
    paths: Sequence[RecordPath],
    fs: float,
    num_samples: int,
    protocol: str,
    adc_units_per_mv: float | None = None,
) -> ReadRows:
    """What reads WFDB records by row: the first ``num_samples / fs`` seconds of each.

    Args:
        dataset, protocol: as of `esi_fast.evaluation.datasets.open_dataset`.
        paths: the records.
        fs, num_samples, adc_units_per_mv: as `read_wfdb`.

    Returns:
        Rows to (len(rows), 12, num_samples) float32 in mV, NaN where missing (unless the protocol
        has it otherwise), and per record "" or why there is nothing to score.
    """

    def read(rows: Sequence[int]) -> tuple[Signals, tuple[str, ...]]:
        some = [paths[row] for row in rows]
        signals, errors = read_wfdb(some, fs, num_samples, adc_units_per_mv)
        errors = no_signal(signals, errors)
        return as_protocol(dataset, protocol, signals, fs), tuple(errors)

    return read


def shard_reader(shard_set: ShardSet, fs: float, num_samples: int, protocol: str) -> ReadRows:
    """What reads samples of shards by row, as `record_reader`."""

    def read(rows: Sequence[int]) -> tuple[Signals, tuple[str, ...]]:
        signals, errors = read_shards(shard_set, rows, fs, num_samples)
        errors = no_signal(signals, errors)
        return as_protocol("shards", protocol, signals, fs), tuple(errors)

    return read
