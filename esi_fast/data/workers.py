"""Processes that write shards: each takes one after the other and hands back what it wrote.

A worker is this module run as a program. It speaks pickles over its standard input and output, so
that nothing depends on how the calling program was started (a script without a ``__main__`` guard,
a notebook). Only temporary names are written to: a worker that outlives its build does no harm.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import IO, Any, Self

from esi_fast.data.samples import SampleMaker
from esi_fast.data.shard_job import ShardJob, WrittenShard, write_shard

_PR_SET_PDEATHSIG = 1


class Workers:
    """A pool of processes; use as a context manager. One worker is this process itself."""

    def __init__(
        self, maker: SampleMaker, num_workers: int, progress: Callable[[int], object]
    ) -> None:
        """Start the processes.

        Args:
            maker: what they make samples with.
            num_workers: how many; 1 starts none and does the work when it is asked for.
            progress: called with the number of records just done, never by two threads at once.
        """
        self.num_workers = num_workers
        self._maker = maker
        self._progress = progress
        self._lock = threading.Lock()
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads: ThreadPoolExecutor | None = None
        if num_workers > 1:
            self._threads = ThreadPoolExecutor(num_workers, "esi_fast shards")
            try:
                for _ in range(num_workers):
                    self._start()
            except BaseException:
                self._stop()
                raise

    def _start(self) -> None:
        # One thread each: the processes are what runs side by side.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **threads},
        )
        self._processes.append(process)
        self._idle.put(process)

    def submit(self, job: ShardJob) -> Future[WrittenShard]:
        """Have a shard written; what goes wrong is raised by the future."""
        if self._threads is not None:
            return self._threads.submit(self._call, job)
        done: Future[WrittenShard] = Future()
        try:
            done.set_result(write_shard(self._maker, job, self._progress))
        except Exception as error:
            done.set_exception(error)
        return done

    def _call(self, job: ShardJob) -> WrittenShard:
        process = self._idle.get()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump((self._maker, job), process.stdin, pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
            while True:
                answer: Any = pickle.load(process.stdout)
                if isinstance(answer, int):
                    with self._lock:
                        self._progress(answer)
                    continue
                if isinstance(answer, Exception):
                    raise answer
                assert isinstance(answer, WrittenShard)
                return answer
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            status = process.wait()
            why = f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"
            raise OSError(
                f"a worker process ended while it wrote {job.planned.name}.tar ({why}; out of "
                "memory?): go on with --resume and fewer --workers"
            ) from None
        finally:
            self._idle.put(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the processes, whatever they are doing."""
        self._stop()

    def _stop(self) -> None:
        for process in self._processes:
            process.kill()
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    # A job may be left in its buffer, which closing would send to nobody.
                    try:
                        pipe.close()
                    except BrokenPipeError:
                        continue


def _end_with(parent: int) -> None:
    """Have the system end this process when the one that started it ends, however it does."""
    if prctl := getattr(ctypes.CDLL(None), "prctl", None):  # Linux; elsewhere, after its shard
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    def answer(what: object) -> None:
        pickle.dump(what, answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()

    while True:
        try:
            maker, job = pickle.load(requests)
        except EOFError:
            return
        try:
            answer(write_shard(maker, job, answer))
        except Exception as error:
            answer(error)


def _main() -> None:
    _end_with(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything prints must not come between the answers
    _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    _main()
