"""Does it learn? Models trained on simulated ECGs, scored on patients that they never saw.

Every stage is the tool that users run, so that what is measured is what they get. Controls beside
every figure: the same architecture with random weights, or the same model with each ECG swapped for
one of another record.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esi_fast.data.shard_set import ShardSet
from esi_fast.data.signals import fit_signals
from esi_fast.evaluation.retrieval import recall_at
from esi_fast.models.esi import ESI

PACKAGES = ("torch", "transformers", "deepspeed")
TOOLS = Path(__file__).resolve().parent.parent / "tools"
_BATCH = 64

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Size:
    """How much to do.

    Attributes:
        num_records: simulated.
        epochs: of the model.
        pooling_epochs: of each of the models that poolings are compared by.
        pooling_seeds: models of each pooling.
    """

    num_records: int
    epochs: float
    pooling_epochs: float
    pooling_seeds: int


FULL = Size(20_000, 8, 1.5, 2)
QUICK = Size(400, 1, 1, 1)


@dataclass(slots=True)
class Figure:
    """One number beside its control.

    Attributes:
        quantity: what it is.
        work: of which model, on which records.
        num_records: that were scored.
        value, low, high: with its 95 % interval over patients, where there is one.
        control: the same of what the control says.
        against: the control.
        bar, aim: what the value should reach.
    """

    quantity: str
    work: str
    num_records: int
    value: float
    control: float
    against: str
    low: float | None = None
    high: float | None = None
    bar: float | None = None
    aim: float | None = None

    @property
    def verdict(self) -> str:
        """How the value stands to bar and aim."""
        if self.bar is None or self.aim is None:
            return ""
        if self.value < self.bar:
            return "MISSED"
        return "met" if self.value < self.aim else "aim met"

    def as_row(self) -> dict[str, object]:
        """The columns of the result file."""
        numbers = {"value": self.value, "low": self.low, "high": self.high, "control": self.control}
        return {
            "quantity": self.quantity, "work": self.work, "num_records": self.num_records,
            **{name: "" if one is None else f"{one:.4f}" for name, one in numbers.items()},
            "against": self.against, "bar": self.bar or "", "aim": self.aim or "",
            "verdict": self.verdict,
        }  # fmt: skip


def build_shards(work: Path, num_records: int) -> Path:
    """Simulated ECGs with captions at 100 Hz, split by patient; those of an earlier call if any."""
    records, dictionary, shards = work / "records", work / "cqa.jsonl", work / "shards"
    if (shards / "index.json").exists():
        return shards
    _run("simulate", "--records", num_records, "--out", records, "--seed", 1)
    _run("caption", "--records", records, "--out", dictionary)
    _run(
        "shard", "--records", records, "--out", shards, "--cqa", dictionary, "--fs", 100,
        "--val-fraction", 0.05, "--test-fraction", 0.12,
    )  # fmt: skip
    return shards


def train(work: Path, name: str, shards: Path, epochs: float, *options: object) -> Path:
    """The demo's recipe on two processes; the exported model, that of an earlier call if any."""
    run, model = work / f"{name}-run", work / f"{name}-model"
    if model.exists():
        return model
    resume = ("--resume", "latest") if any(run.glob("checkpoints/*")) else ()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    _run(
        "pretrain.py", "--recipe", "demo", "--data.shards", shards, "--out", run,
        "--train.epochs", epochs, "--optim.decay-epochs", 3 * epochs / 8, *options, *resume,
        launcher=launcher,
    )  # fmt: skip
    _run("export", run, "--out", model)
    return model


def _run(tool: str, *arguments: object, launcher: list[str] | None = None) -> None:
    command = [sys.executable, *(launcher or []), str(TOOLS / tool), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"tools/{tool} failed: {done.stderr.strip().splitlines()[-1:]}")


def zero_shot(work: Path, name: str, model: Path, shards: Path) -> Figure:
    """Macro AUROC of zero-shot detection on the test patients."""
    out = work / f"{name}-evaluation"
    resume = ("--resume",) if out.exists() else ()
    _run(
        "evaluate", model, "--dataset", "shards", "--root", shards, "--task", "zeroshot",
        "--out", out, "--seeds", 1, *resume,
    )  # fmt: skip
    task: dict[str, Any] = json.loads((out / "report.json").read_text())["tasks"]["zeroshot"]
    macro, untrained = (
        task["contenders"][contender]["macro"]["auroc"] for contender in ("model", "random-0")
    )
    return Figure(
        "zero-shot macro AUROC", name, task["records"], macro["value"],
        untrained["value"], "random weights", macro["low"], macro["high"],
    )  # fmt: skip


class Held:
    """A model over the test records of a shard set."""

    def __init__(self, model: Path, shards: Path) -> None:
        self.model = ESI.from_pretrained(model).eval()
        self.shards = ShardSet([shards], "test")
        self.keys_N = np.asarray(self.shards.concept_keys)
        # Another record's ECG for each: the same number of steps on, so that all are used once.
        self.swapped_N = np.roll(np.arange(len(self.shards)), len(self.shards) // 2)

    def signals(self, rows: NDArray[np.int64]) -> Tensor:
        """(n, 12, T) float32 mV."""
        config = self.model.config
        signals = self.shards.read_ecg(rows)
        fitted = fit_signals(signals, self.shards.fs, config.fs, config.num_samples)
        return torch.from_numpy(np.ascontiguousarray(fitted))

    def captions(self, rows: NDArray[np.int64]) -> list[str]:
        """As they are baked into the shards."""
        return [self.shards.read_caption(int(row)) or "" for row in rows]

    def batches(self) -> Iterator[NDArray[np.int64]]:
        """Rows, a batch at a time."""
        for start in range(0, len(self.shards), _BATCH):
            yield np.arange(start, min(start + _BATCH, len(self.shards)))

    def recall(self) -> Figure:
        """Text to ECG: is one that says the same among the ten nearest?"""
        pairs = [
            (self.model.encode_ecg(self.signals(rows)), self.model.encode_text(self.captions(rows)))
            for rows in self.batches()
        ]
        ecg_ND, text_ND = (torch.cat(side).numpy() for side in zip(*pairs, strict=True))
        found, by_chance = (
            recall_at(text_ND, ecg_ND[order], self.keys_N, self.keys_N, (10,))[10]
            for order in (np.arange(len(ecg_ND)), self.swapped_N)
        )
        return Figure(
            "text to ECG recall@10, equal concept_key a hit", "", len(ecg_ND), found, by_chance,
            "ECGs swapped between records",
        )  # fmt: skip

    def caption_accuracy(self) -> Figure:
        """Share of the captions' tokens that are the likeliest next ones."""
        right = [self._num_right(rows, rows) for rows in self.batches()]
        swapped = [self._num_right(rows, self.swapped_N[rows]) for rows in self.batches()]
        num_tokens = sum(tokens for _, tokens in right)
        return Figure(
            "caption token accuracy", "", len(self.shards), sum(n for n, _ in right) / num_tokens,
            sum(n for n, _ in swapped) / num_tokens, "ECGs swapped between records",
        )  # fmt: skip

    @torch.inference_mode()
    def _num_right(
        self, text_rows: NDArray[np.int64], ecg_rows: NDArray[np.int64]
    ) -> tuple[int, int]:
        """Tokens that are the likeliest next one, and all tokens."""
        text = self.model.tokenize(self.captions(text_rows))
        ids_BN, is_word_BN = text["input_ids"], text["attention_mask"][:, 1:] > 0
        logits_BNV = self.model.caption_logits(self.signals(ecg_rows), ids_BN)
        hits = (logits_BNV.argmax(-1) == ids_BN[:, 1:])[is_word_BN]
        return int(hits.sum()), int(is_word_BN.sum())


def probe(work: Path, model: Path, shards: Path) -> list[Figure]:
    """How far the linear probe of the model is above that of random encoders, on other shards."""
    out = work / f"probe-{shards.name}"
    resume = ("--resume",) if out.exists() else ()
    _run(
        "evaluate", model, "--dataset", "shards", "--root", shards, "--task", "probe",
        "--out", out, *resume,
    )  # fmt: skip
    task: dict[str, Any] = json.loads((out / "report.json").read_text())["tasks"]["probe"]
    return [
        Figure(
            f"linear probe, macro AUROC above that of {other}", shards.name, task["records"],
            comparison["differences"]["auroc"]["value"],
            task["contenders"][other]["macro"]["auroc"]["value"], f"{other} itself",
            comparison["differences"]["auroc"]["low"], comparison["differences"]["auroc"]["high"],
        )
        for other, comparison in task["comparisons"].items()
    ]  # fmt: skip


def measure(
    work: Path, size: Size, progress: Progress, probed: Sequence[Path] = ()
) -> list[Figure]:
    """All of it, in a folder; what an earlier call finished there is taken up.

    Args:
        work: the folder.
        size: how much to do.
        progress: called with how many of how many stages are done.
        probed: shard folders of other recordings, whose labels probes of the model learn.
    """
    num_parts = 3 + 2 * size.pooling_seeds
    progress(0, num_parts)
    shards = build_shards(work, size.num_records)
    progress(1, num_parts)
    model = train(work, "model", shards, size.epochs)
    figures = score(work, model, shards, size)
    figures += [figure for other in probed for figure in probe(work, model, other)]
    progress(2, num_parts)
    done = 2
    for seed in range(size.pooling_seeds):
        for pooling in ("attention", "mean"):
            name = f"{pooling} pooling, seed {seed}"
            options = ("--model.pooling", pooling, "--train.seed", seed)
            pooled = train(work, f"{pooling}-{seed}", shards, size.pooling_epochs, *options)
            figure = zero_shot(work, f"{pooling}-{seed}", pooled, shards)
            figure.work = f"{name}, {size.pooling_epochs:g} epochs"
            figures.append(figure)
            done += 1
            progress(done, num_parts)
    progress(num_parts, num_parts)
    return figures


def score(work: Path, model: Path, shards: Path, size: Size) -> list[Figure]:
    """The three figures of the model on test patients."""
    held = Held(model, shards)
    figures = [zero_shot(work, "model", model, shards), held.recall(), held.caption_accuracy()]
    figures[0].bar, figures[0].aim = 0.92, 0.97
    for figure in figures:
        figure.work = f"{size.num_records:,} simulated records, {size.epochs:g} epochs"
    return figures
