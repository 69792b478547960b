"""The benchmarks of ``tools/bench``, each with its table on the console and in a file.

What each needs is imported by it alone: one lacks a GPU, another faiss.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import comparison
from esi_fast.cli import UsageError


def run_signal(args: argparse.Namespace, command: str) -> None:
    """Reading and resampling, or with ``--shard`` building shards."""
    if args.shard:
        from benchmarks import shard_speed

        _compare(shard_speed, args, command)
        return
    from benchmarks import resample_figures, signal_speed

    figures = resample_figures.measure_all()
    print(f"{resample_figures.table(figures)}\n")
    _compare(signal_speed, args, command)
    if args.accuracy_csv is not None:
        header = comparison.provenance(command, signal_speed.PACKAGES)
        comparison.write_csv(args.accuracy_csv, header, [asdict(row) for row in figures])


def run_loader(args: argparse.Namespace, command: str) -> None:
    """Loading shards as batches."""
    from benchmarks import loader_speed

    _compare(loader_speed, args, command)


def run_measure(args: argparse.Namespace, command: str) -> None:
    """Waveform measurements, and LUDB's marks with ``--ludb``."""
    if args.accuracy_csv is not None and args.ludb is None:
        raise UsageError("--accuracy-csv is of --ludb DIR; give that too")
    if args.ludb is not None and not (args.ludb / "ludb.csv").is_file():
        raise UsageError(f"--ludb is {args.ludb}; it must be the folder with ludb.csv")
    from benchmarks import measure_speed

    if args.ludb is not None:
        _mark_ludb(args, command)
    print(f"compiling took {measure_speed.compile_seconds():.0f} s, once an installation\n")
    _compare(measure_speed, args, command)


def _mark_ludb(args: argparse.Namespace, command: str) -> None:
    from benchmarks import ludb_marks

    with _progress("LUDB", "record") as show:
        ids = [1, 2, 6] if args.quick else None
        scores = ludb_marks.score_ludb(args.ludb, ludb_marks.markers(), ids, show)
    rows = ludb_marks.as_rows(scores)
    for row in [dict(zip(rows[0], rows[0], strict=True)), *rows]:
        print(" ".join(f"{value!s:<{len(name) + 2}}" for name, value in row.items()))
    print()
    if args.accuracy_csv is not None:
        header = comparison.provenance(command, ludb_marks.PACKAGES)
        comparison.write_csv(args.accuracy_csv, header, rows)


def run_kernels(args: argparse.Namespace, command: str) -> None:
    """The kernels and the encoder's step, on a GPU."""
    import torch

    if not torch.cuda.is_available():
        raise UsageError("the kernels are measured on a CUDA GPU, and torch sees none")
    from benchmarks import kernel_speed
    from benchmarks.kernel_verdicts import verdicts
    from esi_fast.kernels import tuning

    about = comparison.provenance(command, kernel_speed.PACKAGES)
    about["tiles"] = "tuned on this GPU" if tuning.autotune() else "as shipped"
    about["clock"] = "us: CUDA graphs, cold L2; host_us: until the call returns, idle GPU"
    found = []
    for bandwidth, rows, encoders in kernel_speed.measure(args.quick):
        gpu = f"{torch.cuda.get_device_name()}, copy of 1 GiB {bandwidth / 1e12:.3f} TB/s"
        header = about | {"gpu": gpu}
        for step in encoders:
            header[f"encoder step, {step.model}, bf16, B={step.batch}, {step.who}"] = (
                f"{step.graph_ms:.2f} ms as a CUDA graph, {step.wall_ms:.2f} ms by the wall, "
                f"peak {step.peak_gib:.2f} GiB"
            )
        found = verdicts(rows, encoders)
        for one in found:
            wanted = f"(bar {one.bar:g}, aim {one.aim:g}): {one.word}"
            header[one.what] = f"{one.value:.2f} {wanted}"
        if args.csv is not None:  # as it comes: a run that is broken off leaves what it has
            comparison.write_csv(args.csv, header, [row._asdict() for row in rows])
    for one in found:
        print(f"{one.what:<64}{one.value:>8.2f}{one.bar:>8g}{one.aim:>8g}  {one.word}")


def run_step(args: argparse.Namespace, command: str) -> None:
    """A training step beside a plainly written one."""
    _choose_accelerator()
    from benchmarks import step_speed

    header = comparison.provenance(command, step_speed.PACKAGES)
    header["clock"] = "medians of the rounds; ratios are medians of the rounds' ratios"
    with _progress("step", "part") as show:
        figures = step_speed.measure(step_speed.QUICK if args.quick else step_speed.FULL, show)
    _print(header)
    rows = [figure.as_row() for figure in figures]
    shown = ("batch", "kind", "ours", "plain", "ratio", "bar", "aim", "verdict")
    print(f"\n{'':<70}{''.join(f'{name:>13}' for name in shown)}")
    for row in rows:
        name = f"{row['quantity']}: {row['work']}, {row['device']}"
        print(f"{name:<70}{''.join(f'{row[column]!s:>13}' for column in shown)}  {row['note']}")
    _write(args, header, rows)


def run_learning(args: argparse.Namespace, command: str) -> None:
    """Whether training learns."""
    _choose_accelerator()
    from benchmarks import learning

    header = comparison.provenance(command, learning.PACKAGES)
    size = learning.QUICK if args.quick else learning.FULL
    with (
        tempfile.TemporaryDirectory(prefix="esi_bench_") as passing,
        _progress("learning", "stage") as show,
    ):
        work = args.work or Path(passing)
        work.mkdir(parents=True, exist_ok=True)
        rows = [figure.as_row() for figure in learning.measure(work, size, show, args.probe)]
    _print(header)
    _print_rows(rows)
    _write(args, header, rows)


def run_retriever(args: argparse.Namespace, command: str) -> None:
    """Nearest vectors, and the whole caption job."""
    from benchmarks import caption_job, retriever_speed

    header = comparison.provenance(command, retriever_speed.PACKAGES)
    header["clock"] = "CPU time of the process, one thread, the median of the rounds"
    size = retriever_speed.QUICK if args.quick else retriever_speed.FULL
    with _progress("retriever", "index") as show:
        figures = retriever_speed.measure(size, show)
    _print(header)
    print(f"\n{retriever_speed.table(figures)}\n")
    for line in retriever_speed.verdicts(figures):
        print(line)
    job = caption_job.caption_job(*((400, 2_000) if args.quick else ()))
    header["caption job"] = job.summary()
    print(job.summary())
    _write(args, header, [figure.as_row() for figure in figures])


def run_search(args: argparse.Namespace, command: str) -> None:
    """Searching ECGs, and with ``--spread`` how a model's embeddings lie."""
    if args.spread_csv is not None and args.spread is None:
        raise UsageError("--spread-csv is of --spread MODEL SHARDS; give that too")
    from benchmarks import search_speed, search_spread

    header = comparison.provenance(command, search_speed.PACKAGES)
    header["clock"] = "a query: CPU time of one thread, the median of 3 rounds"
    if args.spread is not None:
        spread, about = search_spread.spread_of_model(*args.spread)
        if args.spread_csv is not None:
            spread.save(args.spread_csv, {"command": command, "date": header["date"], **about})
    else:
        spread, about = search_spread.Spread.load(), search_spread.read_about()
    header |= about
    size = search_speed.QUICK if args.quick else search_speed.FULL
    with tqdm(desc="search", disable=None) as bar:

        def show(stage: str, done: int, total: int) -> None:
            bar.set_description(stage, refresh=False)
            bar.total = total
            bar.update(done - bar.n)

        figures: list[Any] = []
        for more in search_speed.measure(size, spread, show):
            figures += more  # written each time: the next index takes long
            _write(args, header, [figure.as_row() for figure in figures])
    _print(header)
    print(f"\n{search_speed.table(figures)}")


def run_probe(args: argparse.Namespace, command: str) -> None:
    """The linear probe of an evaluation and its intervals."""
    from benchmarks import probe_speed

    header = comparison.provenance(command, probe_speed.PACKAGES)
    with _progress("probe", "part") as show:
        rows = probe_speed.measure(probe_speed.QUICK if args.quick else probe_speed.FULL, show)
    _print(header)
    _print_rows(rows)
    _write(args, header, rows)


def _compare(speed: Any, args: argparse.Namespace, command: str) -> None:
    """A module of comparisons, whose work needs a folder."""
    header = comparison.provenance(command, speed.PACKAGES)
    size = speed.QUICK if args.quick else speed.FULL
    with (
        tempfile.TemporaryDirectory(prefix="esi_bench_") as folder,
        _progress("speed", "row") as show,
    ):
        rows = speed.measure(Path(folder), size, show)
    _print(header)
    print(f"\n{comparison.table(rows)}")
    _write(args, header, [comparison.as_csv_row(row) for row in rows])


@contextmanager
def _progress(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, moved by how many of how many are done."""
    with tqdm(unit=unit, desc=what, disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _choose_accelerator() -> None:
    """DeepSpeed asks the environment, and takes a GPU for granted."""
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def _print(header: dict[str, str]) -> None:
    for name, value in header.items():
        print(f"{name:<9} {value}")


def _print_rows(rows: list[dict[str, object]]) -> None:
    print()
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items() if value != ""))


def _write(args: argparse.Namespace, header: dict[str, str], rows: list[dict[str, object]]) -> None:
    if args.csv is not None:
        comparison.write_csv(args.csv, header, rows)
