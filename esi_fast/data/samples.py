"""From a catalogue entry to what a shard stores of it: signal, description, caption."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esi_fast.cqa.caption import CaptionDictionary, compose, concept_key_of_report, findings_of
from esi_fast.data.shard_index import MISSING, SATURATED, UNIT_PER_MV
from esi_fast.leads import STANDARD_LEADS
from esi_fast.signal.catalogue import CatalogueEntry
from esi_fast.signal.measure import measure as measure_signal
from esi_fast.signal.quality import QualityFlags, assess_records
from esi_fast.signal.record_batch import read_records


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a record is not written: a word to count by, and a line that names what is wrong."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Planned:
    """A catalogue entry, and why it cannot be written, if that shows before its signal is read."""

    entry: CatalogueEntry
    problem: Rejection | None


@dataclass(frozen=True, slots=True)
class Sample:
    """What a shard stores of a record.

    Attributes:
        key: the record's key.
        ecg: (12, T) int16, 1 uV per LSB, -32768 where missing.
        meta: the content of the json.
        caption: the caption, or None where none is baked in.
    """

    key: str
    ecg: NDArray[np.int16]
    meta: dict[str, Any]
    caption: str | None


@dataclass(slots=True)
class SampleMaker:
    """Reads, measures and captions the records below ``root`` by a build's settings."""

    root: Path
    settings: dict[str, Any]  # adc_units_per_mv among them, of a catalogue without calibration
    captions: CaptionDictionary | None
    workers: int
    num_samples: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.num_samples = round(self.settings["fs"] * self.settings["duration"])

    def samples(self, batch: list[Planned]) -> Iterator[tuple[CatalogueEntry, Sample | Rejection]]:
        """Each entry with its sample, or with the reason for which it has none."""
        readable = [one.entry for one in batch if not one.problem]
        results = iter(self._read(readable) if readable else ())
        for one in batch:
            yield one.entry, one.problem or next(results)

    def _read(self, entries: list[CatalogueEntry]) -> Iterator[Sample | Rejection]:
        records = read_records(
            [entry.path for entry in entries],
            fs=self.settings["fs"],
            duration=self.settings["duration"],
            dtype="int16",
            threads=self.workers,
            adc_units_per_mv=self.settings["adc_units_per_mv"],
        )
        assert records.signal.shape[2] == self.num_samples
        if all(records.errors) and not self.root.is_dir():
            raise FileNotFoundError(f"the folder of the records has vanished: {self.root}")
        flags = assess_records(records.signal, records.fs, threads=self.workers)
        for row, entry in enumerate(entries):
            ecg = records.signal[row]
            if records.errors[row]:
                yield Rejection(records.status[row], records.errors[row])
            elif "flat" in flags[row] and (ecg == MISSING).all():
                yield Rejection("empty", "no lead has a sample")
            else:
                try:
                    yield self._sample(
                        entry, ecg, flags[row], records.source_leads[row], records.status[row]
                    )
                except ValueError as error:
                    yield Rejection("description", " ".join(str(error).split()))

    def _sample(
        self,
        entry: CatalogueEntry,
        ecg: NDArray[np.int16],
        flags: QualityFlags,
        source_leads: tuple[str, ...],
        status: str,
    ) -> Sample:
        fs = self.settings["fs"]
        measured: dict[str, float] = {}
        if self.settings["measure"]:
            signal = ecg.astype(np.float32) / np.float32(UNIT_PER_MV)
            signal[ecg == MISSING] = np.nan
            measured = measure_signal(signal, fs).measured()
        measurements = {
            name: round(float(value), 3)
            for name, value in {**measured, **entry.measurements}.items()
            if math.isfinite(value)
        }
        findings = findings_of(entry.statements)
        meta = {
            "subject_id": entry.subject_id,
            "study_id": entry.study_id,
            "fs": fs,
            "age": entry.age,
            "sex": entry.sex,
            "statements": list(entry.statements),
            "findings": list(findings),
            "concept_key": concept_key_of_report(entry.statements),
            "measurements": measurements,
            "quality": self._quality(flags, ecg),
            "source_leads": list(source_leads),
        }
        if status != "ok":
            meta["status"] = status
        caption = None
        if self.captions is not None:
            caption = compose(
                entry.statements,
                measurements=measurements,
                age=entry.age,
                sex=entry.sex,
                dictionary=self.captions,
                seed=_paraphrase_seed(entry.key),
            ).text
        return Sample(entry.key, ecg, meta, caption)

    def _quality(self, flags: QualityFlags, ecg: NDArray[np.int16]) -> dict[str, Any]:
        """The signal's flags, with leads at the int16 limit (32.767 mV) counted as clipped."""
        quality: dict[str, Any] = dict(flags)
        if "out_of_range" in flags:  # where the limit is
            at_limit = ((ecg == SATURATED) | (ecg == -SATURATED)).any(axis=1)
            clipped = [
                lead
                for lead, saturated in zip(STANDARD_LEADS, at_limit, strict=True)
                if saturated or lead in flags.get("clipped", ())
            ]
            if clipped:
                quality["clipped"] = clipped
        if gain := self.settings["adc_units_per_mv"]:
            quality["amplitude"] = f"assumed: {gain:g} ADC units per mV"
        return quality


def _paraphrase_seed(key: str) -> int:
    """A number of the record's own, so that equal findings are not always in equal words."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4])
