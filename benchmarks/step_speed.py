"""One whole training step, beside the same model as research code writes it (`plain_step`).

Forward, both losses, backward, clipping and AdamW. Ours goes the way of ``tools/pretrain.py``: its
step, its losses, DeepSpeed's engine. On a CPU both take turns, at the sizes of the demo; on a GPU
each is alone on it, at those of the base recipe (hide the GPU to measure the CPU). Operations and
memory are counted from the models' sizes and need neither.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch

from benchmarks.comparison import Comparison, time_in_turn
from benchmarks.plain_step import (
    MEAN_TOKENS,
    Step,
    Task,
    compare,
    draw_batches,
    our_bare_step,
    our_step,
    plain_step,
)
from benchmarks.step_counts import count_step
from esi_fast.pretrain.flops import flops_of_record
from esi_fast.pretrain.sizes import sizes_of
from esi_fast.training import distributed

PACKAGES = ("torch", "transformers", "deepspeed")
PEAK_FLOPS = 989.5e12  # bf16, dense, of H100 and H200 (SXM): the data sheets
PAPER_RECORDS = 800_000 * 30
PAPER, RUN_HOURS = "the paper's run, base, 24 M records", "hours of one GPU"
# Of the two models, on as many records.
AGREED = (
    "equal losses and gradients on {} records where the plain decoder reads words; "
    "timed, it reads BERT's states, as published"
)
NUM_PARTS = 4
Kind = Literal["measured", "computed", "not measured"]
Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class Size:
    """How much a run does: rounds, and the recipes at ``samples`` of each record."""

    num_rounds: int
    cpu_recipe: str = "demo"
    cpu_samples: tuple[float, int] = (100.0, 1000)
    gpu_recipe: str = "base"
    gpu_samples: tuple[float, int] = (500.0, 5000)
    max_batch: int = 4096


FULL = Size(num_rounds=21)
QUICK = Size(num_rounds=1)


@dataclass(slots=True)
class Figure:
    """One quantity of ours and of the plain one.

    Attributes:
        quantity, work, device, batch: what it is, and of what.
        kind: where it comes from.
        ours, plain, ratio: the medians, and that of the rounds' ratios.
        ratios: round by round, where there are rounds.
        bar, aim: of the MFU itself, of the ratio of anything else; memory has to be below them.
        note: what else the reader must know.
    """

    quantity: str
    work: str
    device: str
    batch: int | None
    kind: Kind
    ours: float = math.nan
    plain: float = math.nan
    ratio: float = math.nan
    ratios: list[float] = field(default_factory=list)
    bar: float | None = None
    aim: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """How it stands to bar and aim; empty where nothing was measured or wanted."""
        value = self.ours if self.quantity.startswith("MFU") else self.ratio
        if self.kind != "measured" or self.bar is None or self.aim is None or math.isnan(value):
            return ""
        sign = -1 if "memory" in self.quantity else 1
        if sign * value < sign * self.bar:
            return "MISSED"
        return "met" if sign * value < sign * self.aim else "aim met"

    def as_row(self) -> dict[str, object]:
        """The columns of the result file."""
        low, high = min(self.ratios, default=math.nan), max(self.ratios, default=math.nan)
        numbers = {"ours": self.ours, "plain": self.plain, "ratio": self.ratio}
        numbers |= {"ratio_min": low, "ratio_max": high}
        return {
            "quantity": self.quantity, "work": self.work, "device": self.device,
            "batch": self.batch or "", "kind": self.kind,
            **{key: "" if math.isnan(value) else f"{value:.4g}" for key, value in numbers.items()},
            "num_rounds": len(self.ratios) or "", "bar": self.bar or "", "aim": self.aim or "",
            "verdict": self.verdict, "note": self.note,
        }  # fmt: skip


def measure_cpu(size: Size, progress: Progress) -> list[Figure]:
    """Both in turn, on two threads, at the demo's sizes."""
    torch.set_num_threads(2)
    device = torch.device("cpu")
    task = Task.of(size.cpu_recipe, size.cpu_samples)
    agreed = f"fp32; {AGREED.format(compare(task, device))}"
    num_records = task.recipe.data.batch_size
    batches = list(draw_batches(task, num_records, 4, device))
    names = [[str(number)] * num_records for number in range(len(batches))]
    steps = [make(task, device) for make in (our_step, our_bare_step, plain_step)]
    runs = [lambda names, step=step: step(batches[int(names[0])]) for step in steps]
    for run in runs:  # what only a first step does
        run(names[0])
    clocks: list[tuple[int, str, Literal["cpu", "wall"]]]
    clocks = [(0, "", "cpu"), (0, "", "wall"), (1, " without DeepSpeed", "cpu")]
    figures = []
    for done, (which, how, clock) in enumerate(clocks):
        progress(done, NUM_PARTS)
        row = Comparison(f"step{how}", "esi_fast", "plain", clock=clock)
        time_in_turn(row, runs[which], runs[2], names, size.num_rounds)
        ours, plain = zip(*row.rounds, strict=True)
        figure = Figure(
            f"ECGs a second of {'CPU time' if clock == 'cpu' else 'the clock'}",
            f"step{how}, {size.cpu_recipe}", "CPU, 2 threads", num_records, "measured", note=agreed,
            ours=1e6 / statistics.median(ours), plain=1e6 / statistics.median(plain),
            ratio=statistics.median(row.ratios), ratios=row.ratios,
        )  # fmt: skip
        if not which and clock == "cpu":
            figure.bar, figure.aim = 1.3, 2.0
        figures.append(figure)
    return figures


class Alone(NamedTuple):
    """A step that has the device to itself."""

    batch: int
    seconds: float
    peak_gib: float

    @property
    def ecgs_per_s(self) -> float:
        """By the clock."""
        return self.batch / self.seconds


def alone(
    make: Callable[[Task, torch.device], Step], task: Task, device: torch.device, size: Size
) -> tuple[Alone, Alone]:
    """Time and peak memory at the recipe's batch, and at the largest doubling of it that fits."""
    on_gpu = device.type == "cuda"
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    before = torch.cuda.memory_allocated() if on_gpu else 0
    step = make(task, device)
    found: list[Alone] = []
    num_records = task.recipe.data.batch_size
    while num_records <= size.max_batch:
        seconds = []
        try:
            batches = list(draw_batches(task, num_records, 2, device))
            for number in range(-2, size.num_rounds):
                if number == 0 and on_gpu:
                    torch.cuda.reset_peak_memory_stats()
                started = time.perf_counter()
                step(batches[number % 2])
                wait()
                seconds.append(time.perf_counter() - started)
        except torch.cuda.OutOfMemoryError:
            if not found:
                raise
            break
        peak = torch.cuda.max_memory_allocated() - before if on_gpu else math.nan
        found.append(Alone(num_records, statistics.median(seconds[2:]), peak / 2**30))
        num_records *= 2
    del step, batches
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
    return found[0], found[-1]


def gpu_figures(device: str, kind: Kind, note: str) -> list[Figure]:
    """What is wanted of a GPU, at the base recipe in bf16."""
    same, largest = "step, base, same batch", "step, base, largest batches"
    return [
        Figure("ECGs a second", same, device, None, kind, bar=1.8, aim=3.0, note=note),
        Figure("peak memory, GiB", same, device, None, kind, bar=0.6, aim=0.4, note=note),
        Figure("ECGs a second", largest, device, None, kind, note=note),
        Figure("MFU of 989.5 TFLOP/s", largest, device, None, kind, bar=0.35, aim=0.5, note=note),
    ]


def measure_gpu(size: Size, device: torch.device, flops: float) -> list[Figure]:
    """Each alone on the device; it runs on a CPU too, but for the memory.

    Args:
        size: how much to do.
        device: a GPU.
        flops: of a record.
    """
    task = Task.of(size.gpu_recipe, size.gpu_samples)
    note = f"bf16; in fp32 {AGREED.format(compare(task, device))}"
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    figures = gpu_figures(name, "measured", note)
    (ours, ours_most), (plain, plain_most) = (
        alone(make, task, device, size) for make in (our_step, plain_step)
    )
    # The peak is that of these cards; any other has no MFU here.
    peak = PEAK_FLOPS if "H100" in name or "H200" in name else math.nan
    pairs = [
        (ours.ecgs_per_s, plain.ecgs_per_s),
        (ours.peak_gib, plain.peak_gib),
        (ours_most.ecgs_per_s, plain_most.ecgs_per_s),
        (ours_most.ecgs_per_s * flops / peak, plain_most.ecgs_per_s * flops / peak),
    ]
    for figure, (figure.ours, figure.plain) in zip(figures, pairs, strict=True):
        figure.batch = ours.batch if "same" in figure.work else ours_most.batch
        figure.ratio = figure.ours / figure.plain
        if "largest" in figure.work:
            figure.note += f"; the plain one at {plain_most.batch}"
    hours = [PAPER_RECORDS / one.ecgs_per_s / 3600 for one in (ours_most, plain_most)]
    note = "from the ECGs a second"
    return [*figures, Figure(RUN_HOURS, PAPER, name, None, "computed", *hours, note=note)]


def measure(size: Size, progress: Progress = lambda done, total: None) -> list[Figure]:
    """All figures: the counted ones, and those of the GPU, or of the CPU where there is none.

    Args:
        size: how much to do.
        progress: called with the parts done and their number.

    Raises:
        ValueError: the two models are not the same.
    """
    import deepspeed

    on_gpu = torch.cuda.is_available()
    distributed.start(deepspeed, on_gpu=on_gpu)
    try:
        figures = [] if on_gpu else measure_cpu(size, progress)
        counted, flops = count_figures(size)
        figures += counted
        if on_gpu:
            figures += measure_gpu(size, torch.device("cuda"), flops)
        else:
            figures += gpu_figures("GPU", "not measured", "no GPU here")
        progress(NUM_PARTS, NUM_PARTS)
        return figures
    finally:
        distributed.shut_down()


def count_figures(size: Size) -> tuple[list[Figure], float]:
    """Operations and memory of the base recipe's step; and the operations of a record."""
    task = Task.of(size.gpu_recipe, size.gpu_samples)
    num_records, work = task.recipe.data.batch_size, f"step, {size.gpu_recipe}"
    (batch,) = draw_batches(task, num_records, 1, torch.device("cpu"))
    length_B = batch["attention_mask"].sum(1)
    ours, plain = (
        count_step(make, task.config.num_samples, length_B) for make in (task.ours, task.plain)
    )
    mean = min(MEAN_TOKENS, task.config.max_tokens)
    sizes = sizes_of(task.recipe, task.config, task.text_config)
    flops = sum(part.total for part in flops_of_record(sizes, mean, mean).values())
    parameters = f"{ours.num_parameters / 1e6:.1f} and {plain.num_parameters / 1e6:.1f} M weights"
    figures = [
        Figure(
            "GFLOP a record", work, "any", None, "computed", flops / 1e9, flops / 1e9,
            note=f"of both, captions of {mean} tokens without padding; {parameters}",
        ),
        Figure(
            "peak memory, GiB", work, "any", num_records, "computed",
            ours.peak_bytes / 2**30, plain.peak_bytes / 2**30, bar=0.6, aim=0.4,
            note="all in bf16, with 12 bytes a weight for AdamW",
        ),
        Figure(
            "activations, GiB", work, "any", num_records, "computed",
            ours.kept_bytes / 2**30, plain.kept_bytes / 2**30,
            note="what the forward pass keeps for the backward pass",
        ),
    ]  # fmt: skip
    for figure in figures:
        figure.ratio = figure.ours / figure.plain
    for mfu in (0.35, 0.5):
        hours = PAPER_RECORDS * flops / (mfu * PEAK_FLOPS) / 3600
        note = f"if the MFU were {mfu:.0%} of 989.5 TFLOP/s"
        figures.append(Figure(RUN_HOURS, PAPER, "one GPU", None, "computed", hours, note=note))
    return figures, flops
