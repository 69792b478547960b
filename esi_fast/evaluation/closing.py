"""The closing report of a run: one held-out record on its page, how training went, the scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from esi_fast.data.shard_index import read_shard_folder
from esi_fast.data.shard_set import ShardSet
from esi_fast.data.signals import fit_signals, twelve_leads
from esi_fast.evaluation.document import Document, Section, Table, picture, write_document
from esi_fast.evaluation.figures import forest_picture
from esi_fast.evaluation.report import read_report
from esi_fast.evaluation.report_sections import (
    comparison_section,
    method_section,
    summary_section,
    task_sections,
)
from esi_fast.plot import plot_ecg, plot_training, read_training_metrics

SIMULATED_NOTICE = (
    "Simulated recordings are test and demonstration data. If these are such, their scores show "
    "that the software runs and that a model can learn what was planted, and say nothing about "
    "patients."
)


class Captioner(Protocol):
    """What the report needs of a model to let it speak; :class:`esi_fast.ESI` has it."""

    @property
    def config(self) -> Any:
        """Holds at least ``fs`` in Hz and ``num_samples``."""

    def caption(self, x: Tensor) -> list[str]:
        """(B, 12, T) float32 mV, NaN missing, to one generated caption a record."""


@dataclass(frozen=True, slots=True)
class HeldOutRecord:
    """One record of a shard set, as :func:`esi_fast.plot_ecg` takes it.

    Attributes:
        key: of the record.
        split: that it belongs to.
        signal: (leads, T) float32 mV, missing samples NaN.
        fs: sampling rate in Hz.
        leads: names of the rows: those that the shards hold, in their order.
        caption: baked into the shard; None if none was.
        meta: its json.
    """

    key: str
    split: str
    signal: npt.NDArray[np.float32]
    fs: float
    leads: tuple[str, ...]
    caption: str | None
    meta: Mapping[str, Any]


def held_out_record(shards: Path, split: str = "test") -> HeldOutRecord:
    """The first clean record of a split with at least two findings, or else its first record.

    The choice looks at no score, so that the page shows a usual case and not the best one.

    Raises:
        FileNotFoundError: ``shards`` is no finished shard folder.
        ValueError: the split is empty.
    """
    if not read_shard_folder(shards)["counts"].get(split):
        raise ValueError(f"{shards} has no records in split {split!r}")
    shard_set = ShardSet([shards], split)
    row = next(
        (row for row in range(len(shard_set)) if _is_instructive(shard_set.read_meta(row))), 0
    )
    return HeldOutRecord(
        key=shard_set.keys[row],
        split=split,
        signal=shard_set.read_ecg([row])[0],
        fs=shard_set.fs,
        leads=shard_set.leads,
        caption=shard_set.read_caption(row),
        meta=shard_set.read_meta(row),
    )


def _is_instructive(meta: Mapping[str, Any]) -> bool:
    # Wander and mains are common and do not hide the findings.
    return len(meta["findings"]) > 1 and not meta["quality"].keys() - {"wander", "mains"}


def write_closing_report(
    out: Path,
    *,
    run: Path,
    evaluation: Path,
    shards: Path,
    model: Captioner | None = None,
) -> dict[str, Any]:
    """Write ``out/report.md`` and the self-contained ``out/report.html``.

    Args:
        out: folder to write to; made if absent.
        run: a training run with ``metrics.jsonl`` and ``recipe.toml``.
        evaluation: a folder written by ``tools/evaluate``.
        shards: the shard folder the model was trained and evaluated on.
        model: if given, its own caption of the record stands beside the baked one.

    Returns:
        The evaluation's report, for whoever prints them.

    Raises:
        FileNotFoundError: a file of the three folders is missing.
        ValueError: one of them is damaged, or no record is held out.
    """
    report = read_report(evaluation)
    forests = {name: forest_picture(name, task) for name, task in report["tasks"].items()}
    sections = (
        summary_section(report),
        *comparison_section(report),
        _record_section(held_out_record(shards), model),
        _training_section(run),
        *task_sections(report, forests),
        method_section(report),
        _settings_section(run, shards),
    )
    document = Document("From recordings to a model that reads them", sections, (SIMULATED_NOTICE,))
    write_document(document, out)
    return report


def _record_section(record: HeldOutRecord, model: Captioner | None) -> Section:
    rows = [
        ("caption in the shard", record.caption or "none: the shards were built without --cqa"),
        ("findings", ", ".join(record.meta["findings"])),
        ("machine's statements", "; ".join(record.meta["statements"])),
    ]
    if model is not None:
        signals = twelve_leads(record.signal[None], record.leads)
        signals = fit_signals(signals, record.fs, model.config.fs, model.config.num_samples)
        (generated,) = model.caption(torch.from_numpy(signals))
        rows.insert(1, ("caption the model generates", generated))
    page = plot_ecg(record, title=f"Record {record.key}", caption=record.caption)
    return Section(
        "One held-out record",
        (
            f"Record {record.key}, of a patient of split {record.split} of these shards: the first "
            "with several findings and a clean signal. The numbers in a caption that a model "
            "generates are guessed, not measured.",
        ),
        (Table(("", ""), tuple(rows)),),
        (picture(page, "page", f"The clinical page of record {record.key}, 25 mm/s, 10 mm/mV"),),
    )


def _training_section(run: Path) -> Section:
    lines = read_training_metrics(run / "metrics.jsonl")
    curves = picture(
        plot_training(lines), "training", "Losses, learning rate and throughput over the steps"
    )
    logged = [line for line in lines if line.get("loss") is not None]
    names = ("step", "loss", "contrastive", "captioning", "lr", "samples_per_s", "data_wait")
    rows = tuple(
        (
            when,
            *(f"{line[name]:.4g}" if line.get(name) is not None else "" for name in names),
        )
        for when, line in (("first", logged[0]), ("last", logged[-1]))
    )
    return Section(
        "Training",
        ("data_wait is the share of the time that the steps waited for data.",),
        (Table(("", *names), rows),),
        (curves,),
    )


def _settings_section(run: Path, shards: Path) -> Section:
    folder = read_shard_folder(shards)
    settings = {"shards": folder["settings"], "counts": folder["counts"]}
    recipe = (run / "recipe.toml").read_text(encoding="utf-8").strip()
    return Section(
        "Settings",
        ("The shards' settings and the recipe as it ran.",),
        listings=(json.dumps(settings, indent=2), recipe),
    )
