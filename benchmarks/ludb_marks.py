"""How well P, QRS and T are marked on LUDB, by us and by others, against its annotators.

Every lead by itself. A mark is found if one lies within 150 ms of it, each counting once; only the
span from the first to the last annotated QRS of the lead counts; no error is trimmed.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from esi_fast.leads import STANDARD_LEADS

Indices = npt.NDArray[np.int64]
Marks = dict[str, Indices]  # name of the mark -> ascending sample indices
Marker = Callable[[npt.NDArray[np.float32], float], dict[str, Marks]]

TOLERANCE_S = 0.15
TUNED = 5  # ids that are a multiple of it were tuned on, and are not reported
WAVES = {"p": "p", "N": "qrs", "t": "t"}
MARK_NAMES = (
    "p_onset", "p_peak", "p_end", "qrs_onset", "r_peak", "qrs_end", "t_onset", "t_peak", "t_end",
)  # fmt: skip
QRS_MARKS = ("qrs_onset", "r_peak", "qrs_end")
PACKAGES = ("numpy", "numba", "neurokit2", "wfdb")


@dataclass(slots=True)
class MarkScore:
    """What became of one kind of mark.

    Attributes:
        num_matched, num_missed, num_false: marks.
        errors_ms: of the matched ones, found less annotated.
        num_af_beats, num_false_in_af: beats of records in atrial fibrillation, and what was marked
            there although nobody annotated it.
    """

    num_matched: int = 0
    num_missed: int = 0
    num_false: int = 0
    errors_ms: list[float] = field(default_factory=list)
    num_af_beats: int = 0
    num_false_in_af: int = 0

    def add(self, truth: Indices, found: Indices, *, fs: float, first: float, last: float) -> int:
        """Count one lead of one record; only what lies within [first, last] can be false.

        Returns the number of false marks.
        """
        tolerance = TOLERANCE_S * fs
        taken: set[int] = set()
        for mark in truth:
            if len(found) == 0:
                break
            nearest = int(np.argmin(np.abs(found - mark)))
            if abs(found[nearest] - mark) <= tolerance and nearest not in taken:
                taken.add(nearest)
                self.errors_ms.append(float(found[nearest] - mark) * 1000 / fs)
        inside = (found >= first) & (found <= last)
        num_false = sum(bool(inside[k]) for k in range(len(found)) if k not in taken)
        self.num_matched += len(taken)
        self.num_missed += len(truth) - len(taken)
        self.num_false += num_false
        return num_false

    @property
    def num_annotated(self) -> int:
        """By the annotators."""
        return self.num_matched + self.num_missed

    @property
    def sensitivity(self) -> float:
        """Share of the annotated marks that was found."""
        return self.num_matched / max(1, self.num_annotated)

    @property
    def ppv(self) -> float:
        """Share of the found marks that was annotated."""
        return self.num_matched / max(1, self.num_matched + self.num_false)

    @property
    def f1(self) -> float:
        """Harmonic mean of the two."""
        wrong = self.num_missed + self.num_false
        return 2 * self.num_matched / max(1, 2 * self.num_matched + wrong)

    @property
    def mean_ms(self) -> float:
        """Mean error."""
        return float(np.mean(self.errors_ms)) if self.errors_ms else float("nan")

    @property
    def sd_ms(self) -> float:
        """Standard deviation of the error, nothing trimmed."""
        return float(np.std(self.errors_ms)) if self.errors_ms else float("nan")

    @property
    def trimmed_sd_ms(self) -> float:
        """The same of the 98 % of the errors nearest to the median."""
        if not self.errors_ms:
            return float("nan")
        errors = np.array(self.errors_ms)
        distance = np.abs(errors - np.median(errors))
        return float(np.std(errors[distance <= np.quantile(distance, 0.98)]))

    @property
    def false_per_af_beat(self) -> float:
        """False marks a beat in atrial fibrillation."""
        return self.num_false_in_af / self.num_af_beats if self.num_af_beats else float("nan")


def annotated(stem: Path, lead: str) -> tuple[Marks, int, int]:
    """A lead's annotated marks by name, and its first and last QRS."""
    import wfdb

    annotation = wfdb.rdann(str(stem), lead.lower())
    marks: dict[str, list[int]] = {name: [] for name in MARK_NAMES}
    symbols, samples = annotation.symbol, annotation.sample
    for k, symbol in enumerate(symbols):
        if symbol not in WAVES:
            continue
        wave = WAVES[symbol]
        marks["r_peak" if wave == "qrs" else f"{wave}_peak"].append(int(samples[k]))
        if k > 0 and symbols[k - 1] == "(":
            marks[f"{wave}_onset"].append(int(samples[k - 1]))
        if k + 1 < len(symbols) and symbols[k + 1] == ")":
            marks[f"{wave}_end"].append(int(samples[k + 1]))
    found = {name: np.array(sorted(places), np.int64) for name, places in marks.items()}
    return found, int(found["r_peak"][0]), int(found["r_peak"][-1])


def score_ludb(
    root: Path,
    markers: dict[str, Marker],
    ids: Sequence[int] | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> dict[str, dict[str, MarkScore]]:
    """Scores by method and mark.

    Args:
        root: of LUDB, the folder with ``ludb.csv``.
        markers: methods by name.
        ids: of the records; all that were not tuned on if None.
        progress: called with the records done and their number.

    Raises:
        FileNotFoundError: it is not LUDB.
    """
    import wfdb

    with (root / "ludb.csv").open(newline="") as file:
        rhythms = {int(row["ID"]): row["Rhythms"] for row in csv.DictReader(file)}
    if ids is None:
        there = (int(path.stem) for path in (root / "data").glob("*.hea"))
        ids = sorted(number for number in there if number % TUNED)
    scores = {method: {name: MarkScore() for name in MARK_NAMES} for method in markers}
    for done, number in enumerate(ids):
        progress(done, len(ids))
        stem = root / "data" / str(number)
        record = wfdb.rdrecord(str(stem), physical=False)
        # The headers' gains stretch each lead by itself: the ADC units are taken as microvolts.
        signal = np.ascontiguousarray(record.d_signal.T, np.float32) / 1000
        is_af = "fibrillation" in rhythms[number]
        truths = [annotated(stem, lead) for lead in STANDARD_LEADS]
        for method, marker in markers.items():
            found = marker(signal, record.fs)
            for lead, (truth, first, last) in zip(STANDARD_LEADS, truths, strict=True):
                for name, places in found[lead].items():
                    score = scores[method][name]
                    # The limits of the first and the last QRS itself lie around its peak.
                    margin = TOLERANCE_S / 2 * record.fs if name in QRS_MARKS else 0
                    num_false = score.add(
                        truth[name], places, fs=record.fs, first=first - margin, last=last + margin
                    )
                    if is_af:
                        score.num_false_in_af += num_false
                        score.num_af_beats += len(truth["r_peak"])
    progress(len(ids), len(ids))
    return scores


def as_rows(scores: dict[str, dict[str, MarkScore]]) -> list[dict[str, object]]:
    """The columns of a result file; a mark that a method does not give has no row."""
    return [
        {
            "method": method,
            "mark": name,
            "num_annotated": score.num_annotated,
            "sensitivity": f"{score.sensitivity:.4f}",
            "ppv": f"{score.ppv:.4f}",
            "f1": f"{score.f1:.4f}",
            "mean_ms": f"{score.mean_ms:.1f}",
            "sd_ms": f"{score.sd_ms:.1f}",
            "sd_of_98_percent_ms": f"{score.trimmed_sd_ms:.1f}",
            "false_per_af_beat": f"{score.false_per_af_beat:.3f}",
        }
        for method, marks in scores.items()
        for name, score in marks.items()
        if score.num_annotated
    ]


def present(places: Iterable[Any]) -> Indices:
    """Ascending indices, without what is absent (NaN or negative)."""
    values = np.array([float(place) for place in places if place is not None])
    values = values[np.isfinite(values) & (values >= 0)] if len(values) else values
    return np.sort(values).astype(np.int64)


def mark_with_esi_fast(signal: npt.NDArray[np.float32], fs: float) -> dict[str, Marks]:
    """Ours."""
    from esi_fast.signal.measure import measure

    found = measure(signal, fs).fiducials
    return {
        lead: {name: present(places) for name, places in marks.items()}
        for lead, marks in found.items()
    }


def mark_with_neurokit(signal: npt.NDArray[np.float32], fs: float, method: str) -> dict[str, Marks]:
    """neurokit2's cleaning, R peaks and ``ecg_delineate``, lead by lead.

    A lead in which it fails counts as one without marks.
    """
    import neurokit2

    keys = {
        "ECG_P_Onsets": "p_onset", "ECG_P_Peaks": "p_peak", "ECG_P_Offsets": "p_end",
        "ECG_R_Onsets": "qrs_onset", "ECG_R_Offsets": "qrs_end",
        "ECG_T_Onsets": "t_onset", "ECG_T_Peaks": "t_peak", "ECG_T_Offsets": "t_end",
    }  # fmt: skip
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for lead, samples in zip(STANDARD_LEADS, signal, strict=True):
            marks = {name: present([]) for name in MARK_NAMES}
            try:
                cleaned = neurokit2.ecg_clean(samples, fs)
                peaks = neurokit2.ecg_peaks(cleaned, fs)[1]["ECG_R_Peaks"]
                marks["r_peak"] = present(peaks)
                _, waves = neurokit2.ecg_delineate(cleaned, peaks, fs, method=method)
                for key, name in keys.items():
                    marks[name] = present(waves.get(key, []))
            except (ValueError, IndexError, KeyError, TypeError, ZeroDivisionError):
                pass  # what it had found until then counts
            found[lead] = marks
    return found


def mark_with_xqrs(signal: npt.NDArray[np.float32], fs: float) -> dict[str, Marks]:
    """wfdb's xqrs: QRS complexes only."""
    from wfdb.processing import xqrs_detect

    found = {}
    for lead, samples in zip(STANDARD_LEADS, signal, strict=True):
        marks = {"r_peak": present(xqrs_detect(samples.astype(np.float64), fs, verbose=False))}
        found[lead] = marks
    return found


def markers() -> dict[str, Marker]:
    """Ours, then the others."""
    return {
        "esi_fast": mark_with_esi_fast,
        "neurokit2 dwt": lambda signal, fs: mark_with_neurokit(signal, fs, "dwt"),
        "neurokit2 prominence": lambda signal, fs: mark_with_neurokit(signal, fs, "prominence"),
        "wfdb xqrs": mark_with_xqrs,
    }
