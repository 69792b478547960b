"""Times of calls on a GPU, and the bandwidth that they are held against."""

from __future__ import annotations

import statistics
import time
from typing import Protocol

import torch

from benchmarks.kernel_works import Run

NUM_CALLS = 12
NUM_REPLAYS = 5


class Clock(Protocol):
    """How calls are timed."""

    def us(self, call: Run) -> float:
        """Microseconds of a call on the device."""

    def host_us(self, call: Run) -> float:
        """Microseconds until the call returns, which need not wait for the device."""


class GraphClock:
    """Times calls by replaying them as CUDA graphs with a cold, clean L2 cache."""

    def __init__(self) -> None:
        self.cold = torch.ones(1 << 26, device="cuda")
        self.cold_ms = self._replay(lambda: None)

    def us(self, call: Run) -> float:
        """Microseconds on the GPU of one call; the median of the replays."""
        call()
        return (self._replay(call) - self.cold_ms) / NUM_CALLS * 1e3

    def host_us(self, call: Run) -> float:
        """Microseconds of the host; the median of single calls on an idle GPU."""
        times = []
        for _ in range(2 * NUM_CALLS):
            torch.cuda.synchronize()
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
        torch.cuda.synchronize()
        return statistics.median(times) * 1e6

    def _replay(self, call: Run) -> float:
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(NUM_CALLS):
                self.cold.amax()
                call()
        graph.replay()
        times = []
        for _ in range(NUM_REPLAYS):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        return statistics.median(times)


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a copy of 1 GiB."""
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    times = []
    for _ in range(12):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return 2 * source.numel() * 4 / statistics.median(times) * 1e3
