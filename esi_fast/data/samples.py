"""From a catalogue entry to what a shard stores of it: signal, description, caption."""

from __future__ import annotations

import errno
import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esi_fast.cqa.caption import CaptionDictionary, compose, concept_key_of_report, findings_of
from esi_fast.data.plan import Planned, Rejection
from esi_fast.data.settings import BuildSettings
from esi_fast.data.shard_index import MISSING, SATURATED
from esi_fast.data.token_count import TokenCounter
from esi_fast.leads import NUM_LEADS, STANDARD_LEADS, canonical_lead
from esi_fast.signal.catalogue import Catalogue, CatalogueEntry
from esi_fast.signal.quality import QualityFlags, assess_records
from esi_fast.signal.record_batch import RecordBatch, read_records

_Description = tuple[dict[str, Any], str | None]  # the json's content, the caption
_LEAD_FLAGS = ("flat", "missing", "clipped", "out_of_range", "mains", "wander")


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """What shards store of some records.

    Attributes:
        entries: (n,) the catalogue's.
        ecg: (n, leads, T) int16, 1 uV per LSB, -32768 where missing.
        metas: (n,) the contents of the jsons.
        captions: (n,) each None where none is baked in.
        rejected: the records that are not stored, in the catalogue's order, and why.
    """

    entries: list[CatalogueEntry]
    ecg: NDArray[np.int16]
    metas: list[dict[str, Any]]
    captions: list[str | None]
    rejected: list[tuple[CatalogueEntry, Rejection]]


@dataclass(slots=True)
class _Recording:
    """What became of one record's signal; ``kept`` says what is wrong with one that is kept."""

    status: str
    error: str
    source_leads: tuple[str, ...]
    source_fs: float
    source_duration: float
    clipped: bool
    kept: str = ""

    @classmethod
    def of(cls, batch: RecordBatch, row: int, kept: str = "") -> _Recording:
        return cls(
            batch.status[row],
            batch.errors[row],
            batch.source_leads[row],
            float(batch.source_fs[row]),
            float(batch.source_duration[row]),
            bool(batch.clipped[row]),
            kept,
        )


# The machine's trouble, not the record's: waiting or mending helps, rejecting loses what is sound.
_TROUBLE = (
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.ENOTCONN,
    errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO, errno.EHOSTDOWN, errno.EREMOTEIO, errno.ENOSPC,
    errno.EDQUOT,
)  # fmt: skip
_TROUBLE_MESSAGES = (
    *map(os.strerror, _TROUBLE),
    "out of memory",
    "Unable to allocate",
    "a temporary folder for wfdb",
)


@dataclass(slots=True)
class SampleMaker:
    """Reads, measures and captions records by a build's settings.

    Attributes:
        root: the catalogue's folder.
        settings: of the build.
        adc_units_per_mv: the gain of a catalogue without calibration.
        captions: what captions are composed from; None bakes none in.
        lists_files: whether the catalogue lists the files that it has seen.
        witness: the header of the record that was read last, relative to ``root``; "" if none was.
            Where it has gone, the source has, and records that are missing now are not rejected.
        count_tokens: by which captions are cut; None counts words and marks.
    """

    root: Path
    settings: BuildSettings
    adc_units_per_mv: float | None
    captions: CaptionDictionary | None
    lists_files: bool = False
    witness: str = ""
    count_tokens: TokenCounter | None = None

    @classmethod
    def of(
        cls, catalogue: Catalogue, settings: BuildSettings, captions: CaptionDictionary | None
    ) -> SampleMaker:
        """The one of a catalogue."""
        gain, lists_files = catalogue.adc_units_per_mv, catalogue.lists_files
        count = TokenCounter(settings.tokenizer) if settings.tokenizer else None
        return cls(catalogue.root, settings, gain, captions, lists_files, count_tokens=count)

    def require_source(self) -> None:
        """Make sure that the recordings are still where they were.

        Raises:
            FileNotFoundError: they are not.
        """
        if not self.root.is_dir():
            raise FileNotFoundError(f"the folder of the records has vanished: {self.root}")
        if self.witness:
            path = self.root / self.witness
            try:
                path.open("rb").close()
            except OSError as error:
                raise FileNotFoundError(
                    f"the recordings have vanished: {path} could be read before, and now: "
                    f"{error.strerror}"
                ) from None

    def samples(self, planned: Sequence[Planned]) -> SampleBatch:
        """The samples of some records, and why the others have none.

        Raises:
            FileNotFoundError: the recordings have vanished.
            OSError: the machine could not read, whatever the record.
        """
        entries = [one.entry for one in planned if not one.problem]
        outcomes: list[Rejection | _Description] = []
        ecg = np.empty((0, NUM_LEADS, self.settings.num_samples), np.int16)
        if entries:
            ecg, recordings = self._read(entries)
            flags = self._assessed(ecg, recordings)
            measured = self._measured(ecg)
            for row, (entry, recording) in enumerate(zip(entries, recordings, strict=True)):
                outcomes.append(
                    self._outcome(entry, recording, ecg[row], dict(flags[row]), measured[row])
                )
        kept = [row for row, outcome in enumerate(outcomes) if not isinstance(outcome, Rejection)]
        if len(kept) < len(ecg):
            ecg = ecg[kept]
        if self.settings.leads != STANDARD_LEADS:
            ecg = ecg[:, self.settings.lead_rows]
        described = [outcome for outcome in outcomes if not isinstance(outcome, Rejection)]
        remaining = iter(outcomes)
        reasons = [(one.entry, one.problem or next(remaining)) for one in planned]
        return SampleBatch(
            entries=[entries[row] for row in kept],
            ecg=ecg,
            metas=[meta for meta, _ in described],
            captions=[caption for _, caption in described],
            rejected=[(entry, why) for entry, why in reasons if isinstance(why, Rejection)],
        )

    def _assessed(
        self, ecg: NDArray[np.int16], recordings: Sequence[_Recording]
    ) -> list[QualityFlags]:
        """Flags of what was recorded; only the missing samples are counted with the padding."""
        num_samples = ecg.shape[2]
        # A batch has rows for records that could not be read, whose duration is NaN.
        seconds = np.array([one.source_duration for one in recordings])
        spans = np.nan_to_num(np.rint(seconds * self.settings.fs), nan=num_samples)
        spans = spans.clip(1, num_samples).astype(np.int64)
        flags: list[QualityFlags] = [{} for _ in recordings]
        for span in np.unique(spans):
            rows = np.flatnonzero(spans == span)
            whole = len(rows) == len(ecg) and span == num_samples
            recorded = ecg if whole else ecg[rows, :, :span]
            found = assess_records(recorded, self.settings.fs)
            for row, one in zip(rows, found, strict=True):
                flags[row] = one
                if span < num_samples:
                    missing = one.get("missing", {})
                    one["missing"] = {
                        lead: round(1 - (1 - missing.get(lead, 0)) * span / num_samples, 6)
                        for lead in STANDARD_LEADS
                    }
        return flags

    def _measured(self, ecg: NDArray[np.int16]) -> list[dict[str, float]]:
        """What each record measures; nothing where the build does not measure."""
        if not self.settings.measure:
            return [{} for _ in ecg]
        from esi_fast.signal.measure import measure_records  # numba, which takes a second to load

        return [found.measured() for found in measure_records(ecg, self.settings.fs)]

    def _read(self, entries: list[CatalogueEntry]) -> tuple[NDArray[np.int16], list[_Recording]]:
        batch = self._read_batch(entries)
        ecg = batch.signal.view(np.int16)
        recordings = [_Recording.of(batch, row) for row in range(len(entries))]
        for row, entry in enumerate(entries):
            recording = recordings[row]
            if recording.status == "checksum" and "checksum" in self.settings.keep_rejected:
                again = self._read_batch([entry], verify=False)
                ecg[row] = again.signal[0]
                recordings[row] = _Recording.of(again, 0, kept=recording.error)
            if self.settings.longer == "center" and self._num_extra(recordings[row]) > 0:
                whole = self._read_batch([entry], duration=None, verify=not recordings[row].kept)
                if whole.errors[0]:  # it has changed since it was read a moment ago
                    recordings[row] = _Recording.of(whole, 0)
                    continue
                start = (whole.signal.shape[2] - self.settings.num_samples) // 2
                ecg[row] = whole.signal[0, :, start : start + self.settings.num_samples]
                recordings[row].clipped |= bool(whole.clipped[0])
        return ecg, recordings

    def _require_record(self, entry: CatalogueEntry, status: str, error: str) -> None:
        """Raise where a record is unreadable for no fault of its own."""
        if status in ("missing", "io"):
            self.require_source()
            if self.lists_files and not os.path.lexists(f"{entry.path}.hea"):
                raise FileNotFoundError(f"{entry.path}.hea has vanished since it was listed")
        if any(message in error for message in _TROUBLE_MESSAGES):
            raise OSError(f"{entry.path} could not be read: {error}")

    def _read_batch(self, entries: list[CatalogueEntry], **options: Any) -> RecordBatch:
        settings = self.settings
        wanted: dict[str, Any] = {"duration": settings.duration} | options
        batch = read_records(
            [entry.path for entry in entries],
            fs=settings.fs,
            dtype="int16",
            threads=1,
            required_leads=() if "leads" in settings.keep_rejected else settings.leads,
            adc_units_per_mv=self.adc_units_per_mv,
            **wanted,
        )
        sound = None
        for entry, status, error in zip(entries, batch.status, batch.errors, strict=True):
            if error:
                self._require_record(entry, status, error)
            else:
                sound = entry
        if sound is not None:
            self.witness = os.path.relpath(f"{sound.path}.hea", self.root)
        return batch

    def _num_extra(self, recording: _Recording) -> int:
        """Samples that a recording has at the shards' rate beyond (or, negative, short of) T."""
        if math.isnan(recording.source_duration):
            return 0
        extra = recording.source_duration * self.settings.fs - self.settings.num_samples
        if abs(extra) <= 0.5 + 1e-6:  # T itself is rounded
            return 0
        return math.ceil(extra) if extra > 0 else math.floor(extra)

    def _outcome(
        self,
        entry: CatalogueEntry,
        recording: _Recording,
        ecg: NDArray[np.int16],
        quality: dict[str, Any],
        measured: dict[str, float],
    ) -> Rejection | _Description:
        settings = self.settings
        if recording.error:
            return Rejection(recording.status, recording.error)
        extra = self._num_extra(recording)
        policy = settings.longer if extra > 0 else settings.shorter
        if extra != 0 and policy == "reject":
            length = f"{recording.source_duration:g} s, not {settings.duration:g}"
            return Rejection("length", f"the recording lasts {length}")
        incomplete = quality.get("missing", ())
        if (
            all(lead in incomplete for lead in settings.leads)
            and (ecg[settings.lead_rows] == MISSING).all()
        ):
            return Rejection("empty", "no lead has a sample")
        try:
            meta = self._meta(entry, recording, ecg, quality, measured)
            return meta, self._caption(entry, meta["measurements"])
        except ValueError as error:
            return Rejection("description", " ".join(str(error).split()))

    def _meta(
        self,
        entry: CatalogueEntry,
        recording: _Recording,
        ecg: NDArray[np.int16],
        quality: dict[str, Any],
        measured: dict[str, float],
    ) -> dict[str, Any]:
        measurements = {
            name: round(float(value), 3)
            for name, value in {**measured, **entry.measurements}.items()
            if math.isfinite(value)
        }
        findings, concept_key = _said(entry.statements)
        meta = {
            "subject_id": entry.subject_id,
            "study_id": entry.study_id,
            "ecg_time": entry.ecg_time,
            "fs": float(self.settings.fs),
            "leads": list(self.settings.leads),
            "age": entry.age,
            "sex": entry.sex,
            "statements": list(entry.statements),
            "findings": list(findings),
            "concept_key": concept_key,
            "measurements": measurements,
            "quality": self._quality(recording, ecg, quality),
            "source_leads": list(recording.source_leads),
            "source_fs": recording.source_fs,
            "source_duration": round(recording.source_duration, 6),
        }
        if recording.status != "ok":
            meta["status"] = recording.status
        return meta

    def _caption(self, entry: CatalogueEntry, measurements: dict[str, float]) -> str | None:
        if self.captions is None:
            return None
        return compose(
            entry.statements,
            measurements=measurements,
            age=entry.age,
            sex=entry.sex,
            dictionary=self.captions,
            max_tokens=self.settings.max_tokens,
            count_tokens=self.count_tokens,
            seed=_paraphrase_seed(entry.key),
        ).text

    def _quality(
        self, recording: _Recording, ecg: NDArray[np.int16], quality: dict[str, Any]
    ) -> dict[str, Any]:
        """The signal's flags, and what only the reader knows, of the leads that are stored."""
        if recording.clipped:  # beyond 16 bits of uV
            at_limit = (np.abs(ecg) == SATURATED).any(axis=1)
            quality["clipped"] = [
                lead
                for lead, saturated in zip(STANDARD_LEADS, at_limit, strict=True)
                if saturated or lead in quality.get("clipped", ())
            ]
        if self.settings.leads != STANDARD_LEADS:
            for name in _LEAD_FLAGS:
                found = quality.pop(name, ())
                stored = [lead for lead in found if lead in self.settings.leads]
                if stored:
                    is_list = isinstance(found, list)
                    quality[name] = stored if is_list else {lead: found[lead] for lead in stored}
        if self.adc_units_per_mv:
            quality["amplitude"] = f"assumed: {self.adc_units_per_mv:g} ADC units per mV"
        if recording.kept:
            quality["kept"] = recording.kept
        elif recording.status.startswith("lacks") and not _has_leads(recording, self.settings):
            quality["kept"] = recording.status
        return quality


def _has_leads(recording: _Recording, settings: BuildSettings) -> bool:
    named = {canonical_lead(name) for name in recording.source_leads}
    return named.issuperset(settings.leads)


def compile_measuring() -> None:
    """Have the measuring compiled and cached, so that the workers need not each do it."""
    from esi_fast.signal.measure import measure_records

    time = np.arange(2500) / 500
    beats = np.tile(np.exp(-(((time % 1 - 0.5) / 0.01) ** 2)), (1, 12, 1))
    measure_records(beats.astype(np.float32), 500.0)


@lru_cache(maxsize=1 << 16)  # 800,000 reports repeat each other
def _said(statements: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """Findings and concept key of a report."""
    return findings_of(statements), concept_key_of_report(statements)


def _paraphrase_seed(key: str) -> int:
    """A number of the record's own, so that equal findings are not always in equal words."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4])
