"""A record as it lies on disk: samples, what they are worth, and the pieces it is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from esi_fast.leads import millivolts_per_unit
from esi_fast.signal.record_error import header_name, record_error
from esi_fast.signal.resample import _core

# The sample value that means "no sample" in the formats that the core does not know: FLAC's.
MISSING_FLAC = {508: -(1 << 7), 516: -(1 << 15), 524: -(1 << 23)}

Digital = npt.NDArray[np.int16] | npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class StoredSignal:
    """What is needed to turn one signal's ADC units into millivolts."""

    name: str
    gain: float
    baseline: int
    unit: str
    missing: int | None
    adc_zero: int

    @classmethod
    def from_header(cls, spec: _core.SignalSpec) -> StoredSignal:
        """The calibration of a header's signal line."""
        missing = MISSING_FLAC.get(spec.format, spec.missing)
        return cls(spec.description, spec.gain, spec.baseline, spec.unit, missing, spec.adc_zero)

    def with_gain(self, adc_units_per_mv: float) -> StoredSignal:
        """The same signal by another gain, from its ADC zero."""
        return replace(self, gain=adc_units_per_mv, baseline=self.adc_zero, unit="mV")

    def millivolts_per_step(self, stem: str) -> float:
        """What one ADC unit is worth.

        Raises:
            RecordError: ``units`` or ``non-finite``; ``stem`` is the record to name.
        """
        try:
            step = millivolts_per_unit(self.unit) / self.gain
        except ValueError as error:
            message = f"{header_name(stem)}: lead {self.name}: {error}"
            raise record_error("units", message) from None
        if not (abs(step) < 1e9 and abs(self.baseline) <= 1 << 30):
            message = f"has the absurd gain {self.gain} or baseline {self.baseline}"
            message = f"{header_name(stem)}: lead {self.name} {message}"
            raise record_error("non-finite", message)
        return step


@dataclass(frozen=True, slots=True)
class Piece:
    """One segment of a record, or a record that is its own only segment.

    Attributes:
        stem: its path without suffix, for messages.
        begin: where it begins in the record, samples.
        digital: ``(num_signals, T)`` ADC units.
        signals: the calibration of each row.
        rows: for each signal of the record its row here, None where it was not recorded.
    """

    stem: str
    begin: int
    digital: Digital
    signals: list[StoredSignal]
    rows: list[int | None]


@dataclass(frozen=True)
class StoredRecord:
    """A record as read.

    Attributes:
        header: its header.
        fs: sampling rate, Hz.
        names: its signals, as the header spells them.
        num_samples: of each signal.
        pieces: in order; gaps between them lack samples.
        status: ``"ok"``, ``"joined: several segments"`` or ``"read through wfdb: <reason>"``.
    """

    header: _core.Header
    fs: float
    names: tuple[str, ...]
    num_samples: int
    pieces: list[Piece]
    status: str = "ok"

    @classmethod
    def of_one(cls, stem: str, header: _core.Header, fs: float, digital: Digital) -> StoredRecord:
        """A record of one segment."""
        signals = [StoredSignal.from_header(spec) for spec in header.signals]
        piece = Piece(stem, 0, digital, signals, list(range(len(signals))))
        names = tuple(signal.name for signal in signals)
        return cls(header, fs, names, digital.shape[1], [piece])

    @cached_property
    def digital(self) -> Digital:
        """``(num_signals, T)`` ADC units; gaps hold the value that means "no sample"."""
        if len(self.pieces) == 1 and self.pieces[0].digital.shape[1] == self.num_samples:
            return self.pieces[0].digital
        joined = np.empty((len(self.names), self.num_samples), dtype=np.int32)
        for row in range(len(self.names)):
            marks = [
                piece.signals[at].missing
                for piece in self.pieces
                if (at := piece.rows[row]) is not None
            ]
            # Segments may differ in their mark; one of them serves for the whole.
            mark = next((one for one in marks if one is not None), -(1 << 15))
            joined[row] = mark
            for piece in self.pieces:
                if (at := piece.rows[row]) is None:
                    continue
                samples = piece.digital[at]
                own = piece.signals[at].missing
                end = piece.begin + samples.size
                joined[row, piece.begin : end] = (
                    samples if own is None else np.where(samples == own, mark, samples)
                )
        return joined

    def millivolts(
        self, rows: list[int], adc_units_per_mv: float | None
    ) -> npt.NDArray[np.float32]:
        """``(len(rows), T)`` mV, NaN where a sample is missing, each piece by its own calibration.

        Raises:
            RecordError: ``units`` or ``non-finite``.
        """
        parts = []
        for piece in self.pieces:
            present = [(out, piece.rows[row]) for out, row in enumerate(rows)]
            found = [(out, at) for out, at in present if at is not None]
            signals = [piece.signals[at] for _, at in found]
            if adc_units_per_mv:
                signals = [signal.with_gain(adc_units_per_mv) for signal in signals]
            scaled = _core.to_millivolts(
                piece.digital,
                rows=[at for _, at in found],
                baselines=[signal.baseline for signal in signals],
                steps=[signal.millivolts_per_step(piece.stem) for signal in signals],
                missing=[signal.missing for signal in signals],
            )
            if scaled.shape == (len(rows), self.num_samples):
                return scaled
            parts.append((piece.begin, [out for out, _ in found], scaled))
        joined = np.full((len(rows), self.num_samples), np.nan, dtype=np.float32)
        for begin, outs, scaled in parts:
            joined[outs, begin : begin + scaled.shape[1]] = scaled
        return joined
