"""Records and measurements to draw, and how to find on a page what was drawn."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from esi_fast.leads import STANDARD_LEADS
from esi_fast.signal.measurements import Measurements

GRID_TOP_MM = 174.0
PAGE_MM = (297.0, 210.0)


@dataclass
class Record:
    signal: np.ndarray
    fs: float = 500.0
    leads: tuple[str, ...] = STANDARD_LEADS
    path: str = ""


def flat(seconds: float = 10.0, fs: float = 500.0) -> np.ndarray:
    return np.zeros((12, round(seconds * fs)), np.float32)


def strip(figure, name: str) -> np.ndarray:
    """x and y in mm of one strip, (2, samples)."""
    (line,) = [line for line in figure.axes[0].lines if line.get_gid() == name]
    return np.array(line.get_data())


def pixels(figure, dpi: float) -> np.ndarray:
    """The rendered page as (rows from the top, columns) of brightness 0-255."""
    from matplotlib.image import imread

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    buffer.seek(0)
    return imread(buffer)[..., :3].mean(axis=2) * 255


# Samples of a beat at 500 Hz, counted from its R peak.
BEAT = {
    "p_onset": -90, "p_peak": -70, "p_end": -50, "qrs_onset": -22, "r_peak": 0, "qrs_end": 22,
    "t_onset": 80, "t_peak": 130, "t_end": 170,
}  # fmt: skip


def measured(*r_peaks: int, leads: tuple[str, ...] = STANDARD_LEADS, **values) -> Measurements:
    """Beats at these samples, the same in every lead; every single value NaN unless given."""
    marks = {name: np.array([r + offset for r in r_peaks]) for name, offset in BEAT.items()}
    plain = {name: np.zeros(len(r_peaks), bool) for name in ("is_premature", "is_wide", "is_paced")}
    return Measurements(
        **{"fs": 500.0, "fiducials": dict.fromkeys(leads, marks), "common": marks} | plain | values
    )


def marks_mm(figure, gid: str) -> np.ndarray:
    """Where the marks with this gid stand, (marks, 2) in mm; ticks by their middle."""
    ax = figure.axes[0]
    ticks = [np.mean(c.get_segments(), axis=1) for c in ax.collections if c.get_gid() == gid]
    dots = [np.transpose(line.get_data()) for line in ax.lines if line.get_gid() == gid]
    texts = [np.array([t.get_position()]) for t in ax.texts if t.get_gid() == gid]
    return np.concatenate([np.empty((0, 2)), *ticks, *dots, *texts])


def words(figure, gid: str) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts if text.get_gid() == gid]
