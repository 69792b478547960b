"""The batch reader on two threads, on two instruction sets, and on files that are not in memory."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection

import numpy as np

from benchmarks.agreement import within_a_millionth
from benchmarks.comparison import Comparison, time_in_turn
from benchmarks.record_files import (
    BATCH_SIZE,
    FS,
    evict,
    in_batches,
    read,
    read_bytes,
    resident_share,
)
from esi_fast import _core
from esi_fast.signal.resample import Quality

ResampleTo = tuple[int, Quality]
# Where a page cache keeps this much of what it was asked to drop, its files are not cold.
MOST_RESIDENT = 0.01


def two_threads(stems: Sequence[str], num_rounds: int) -> list[Comparison]:
    """Two threads against one; and two processes, which share nothing, as the machine's limit."""
    rows = []
    targets: list[ResampleTo] = [(FS, "hq"), (250, "hq")]
    for fs, quality in targets:
        name = f"read {FS} Hz" if fs == FS else f"read, {FS}->{fs} {quality}"
        threads = Comparison(name, "2 threads", "1 thread", clock="wall", bar=1.8, aim=1.95)
        processes = Comparison(name, "2 processes", "1 thread", clock="wall")
        rows += [threads, processes]
        if len(os.sched_getaffinity(0)) < 2:
            threads.note = processes.note = "not measured: one usable CPU"
            continue
        processes.note = "what this machine allows"
        alone = partial(_read_all, fs=fs, quality=quality)
        together = partial(_read_all, fs=fs, quality=quality, threads=2)
        for batch in in_batches(stems, BATCH_SIZE):
            one, two = (read(batch, fs=fs, quality=quality, threads=n) for n in (1, 2))
            if not np.array_equal(one, two, equal_nan=True):
                raise ValueError(f"{name}: the result depends on the number of threads")
        threads.num_compared = len(stems)
        time_in_turn(threads, together, alone, [stems], num_rounds)
        with _two_processes(stems, (fs, quality)) as both:
            time_in_turn(processes, both, alone, [stems], num_rounds)
    return rows


def _read_all(stems: Sequence[str], fs: int, quality: Quality, threads: int = 1) -> None:
    for batch in in_batches(stems, BATCH_SIZE):
        read(batch, fs=fs, quality=quality, threads=threads)


@contextmanager
def _two_processes(
    stems: Sequence[str], target: ResampleTo
) -> Iterator[Callable[[Sequence[str]], None]]:
    """A function that has two processes read half of ``stems`` each."""
    context = multiprocessing.get_context("spawn")
    pipes, children = [], []
    try:
        for half in (stems[::2], stems[1::2]):
            ours, theirs = context.Pipe()
            child = context.Process(target=_serve, args=(theirs, half, target))
            child.start()
            theirs.close()
            pipes.append(ours)
            children.append(child)

        def both(_: Sequence[str]) -> None:
            for pipe in pipes:
                pipe.send(True)
            for pipe in pipes:
                pipe.recv()

        both(stems)  # warm
        yield both
    finally:
        for pipe in pipes:
            pipe.close()  # ends the child
        for child in children:
            child.join()


def _serve(pipe: Connection, stems: Sequence[str], target: ResampleTo) -> None:
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        _read_all(stems, *target)
        pipe.send(True)


def instruction_sets(stems: Sequence[str], num_rounds: int) -> list[Comparison]:
    """The code for every x86-64-v2 or aarch64 CPU against that for AVX2, on this one."""
    available = _core.instruction_sets()
    rows = []
    targets: list[ResampleTo] = [(FS, "hq"), (250, "hq"), (100, "scipy")]
    for fs, quality in targets:
        name = f"read {FS} Hz" if fs == FS else f"read, {FS}->{fs} {quality}"
        row = Comparison(name, "baseline", "avx2", bar=0.6, aim=0.75)
        rows.append(row)
        if "avx2" not in available:
            row.note = "not measured: this CPU, or this build, has no AVX2"
            continue
        ours, rival = (partial(_read_with, name, fs, quality) for name in ("baseline", "avx2"))
        batches = in_batches(stems, BATCH_SIZE)
        try:
            row.num_compared = sum(
                within_a_millionth(ours_one, rival_one)
                for batch in batches
                for ours_one, rival_one in zip(ours(batch), rival(batch), strict=True)
            )
            time_in_turn(row, ours, rival, batches, num_rounds)
        finally:
            _core.use_instruction_set(available[0])
    return rows


def _read_with(instruction_set: str, fs: int, quality: Quality, stems: Sequence[str]) -> object:
    _core.use_instruction_set(instruction_set)
    return read(stems, fs=fs, quality=quality)


def cold_files(stems: Sequence[str], num_rounds: int) -> list[Comparison]:
    """One thread on files that are on disk only, against reading them one after the other."""
    row = Comparison("read, cold files", "1 thread", "open, read, close", clock="wall")
    evict(stems)
    if resident_share(stems) > MOST_RESIDENT:
        row.note = "not measured: this file system keeps its files in memory"
        return [row]
    time_in_turn(row, read, read_bytes, [stems], num_rounds, before=lambda: evict(stems))
    row.note = f"{1e6 / row.ours_us:,.0f} and {1e6 / row.rival_us:,.0f} records/s"
    return [row]
