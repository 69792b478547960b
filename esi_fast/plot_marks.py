"""What the clinical page shows of the measurements: marks on the traces, labels, a line of values.

The page itself is :mod:`esi_fast.plot`'s; here is only what it draws where a record was measured.
Every mark has a gid that says what it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

    from esi_fast.signal.measurements import Measurements

_INK = "#101010"
# A wave's name, its colour, and its marks: the peak, then where it begins and ends.
_WAVES = (
    ("P", "#1f5fa8", "p_peak", ("p_onset", "p_end")),
    ("QRS", "#c2410c", "r_peak", ("qrs_onset", "qrs_end")),
    ("T", "#2e7d4f", "t_peak", ("t_onset", "t_end")),
)
_P_COLOUR = _WAVES[0][1]

# In millimetres. The rhythm strip's labels stand at fixed distances from its zero line, so that
# they can be read along the strip: beats above, blocked P below, spikes at the lower edge.
_TICK_HEIGHT, _TICK_WIDTH, _DOT_SIZE, _SPIKE_SIZE = 3.0, 0.2, 0.9, 1.5
_BEAT_LABEL, _BLOCKED_LABEL, _SPIKES = 14.5, -9.0, -17.5
_POINTS_PER_MM = 72.0 / 25.4


@dataclass(frozen=True, slots=True)
class Strip:
    """A drawn trace: its samples in millimetres of the page.

    Attributes:
        name: the gid of the trace, which the gids of its marks begin with.
        lead: standard name.
        first: position in the record of the first sample drawn.
        x, y: (samples) where they stand; y is NaN where a sample is missing.
        line: height of the zero line.
        paper: nothing is drawn outside it.
    """

    name: str
    lead: str
    first: int
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    line: float
    paper: Patch

    def within(self, samples: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Positions in this strip of the record's samples that it shows; -1 is none of them."""
        inside = (samples >= self.first) & (samples < self.first + self.x.size)
        return samples[inside] - self.first


def draw_fiducials(ax: Axes, strip: Strip, measurements: Measurements) -> None:
    """Onset, peak and end of each P, QRS and T that the strip shows, in the wave's colour."""
    from matplotlib.collections import LineCollection

    marks = measurements.fiducials.get(strip.lead, {})
    for _, colour, peak, bounds in _WAVES:
        for mark in bounds:
            if mark not in marks:
                continue
            at = strip.within(marks[mark])
            at = at[np.isfinite(strip.y[at])]
            half = _TICK_HEIGHT / 2
            segments = [
                ((x, y - half), (x, y + half))
                for x, y in zip(strip.x[at], strip.y[at], strict=True)
            ]
            if segments:
                ticks = LineCollection(
                    segments, colors=colour, linewidths=_TICK_WIDTH * _POINTS_PER_MM, zorder=4
                )
                ticks.set_gid(f"{strip.name} {mark}")
                ax.add_collection(ticks, autolim=False)
                ticks.set_clip_path(strip.paper)
        if peak in marks:
            at = strip.within(marks[peak])
            _draw_markers(ax, strip, peak, strip.x[at], strip.y[at], "o", _DOT_SIZE, colour)


def draw_rhythm(ax: Axes, strip: Strip, measurements: Measurements) -> None:
    """What the rhythm strip says of the beats: early, wide, paced; blocked P; pacing spikes."""
    for beat, label in _beat_labels(measurements):
        for at in strip.within(beat):
            _draw_label(ax, strip, "beat", strip.x[at], _BEAT_LABEL, label, _INK)
    for at in strip.within(measurements.blocked_p):
        _draw_label(ax, strip, "blocked P", strip.x[at], _BLOCKED_LABEL, "blocked P", _P_COLOUR)
    x = strip.x[strip.within(measurements.pacing_spikes)]
    height = np.full(x.size, strip.line + _SPIKES)
    _draw_markers(ax, strip, "pacing spikes", x, height, "^", _SPIKE_SIZE, _INK)


def _beat_labels(measurements: Measurements) -> Iterator[tuple[npt.NDArray[np.int64], str]]:
    """Where each beat that is not an ordinary one stands, and what it is."""
    kinds = (
        ("premature", measurements.is_premature),
        ("wide", measurements.is_wide),
        ("paced", measurements.is_paced),
    )
    for beat, sample in enumerate(measurements.common.get("r_peak", ())):
        label = "\n".join(kind for kind, holds in kinds if holds[beat])
        if label:
            yield np.array([sample]), label


def _draw_label(
    ax: Axes, strip: Strip, kind: str, x: float, height: float, text: str, colour: str
) -> None:
    """Words above or below the zero line of the strip, centred on ``x``."""
    label = ax.text(
        x,
        strip.line + height,
        text,
        fontsize=6,
        linespacing=1.0,
        color=colour,
        horizontalalignment="center",
        verticalalignment="bottom" if height > 0 else "top",
        zorder=5,
    )
    label.set_gid(f"{strip.name} {kind}")


def _draw_markers(
    ax: Axes,
    strip: Strip,
    kind: str,
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    marker: str,
    size: float,
    colour: str,
) -> None:
    if not np.isfinite(y).any():
        return
    (drawn,) = ax.plot(
        x,
        y,
        marker,
        color=colour,
        markersize=size * _POINTS_PER_MM,
        markeredgewidth=0.0,
        zorder=5,
    )
    drawn.set_gid(f"{strip.name} {kind}")
    drawn.set_clip_path(strip.paper)


def values_line(measurements: Measurements) -> str:
    """The values that a clinical page prints; ``--`` where one was not measured."""
    axes = (measurements.p_axis, measurements.qrs_axis, measurements.t_axis)
    qt, qtc = _rounded(measurements.qt), _rounded(measurements.qtc_bazett)
    return "     ".join(
        (
            f"Rate {_rounded(measurements.heart_rate)} bpm",
            f"PR {_rounded(measurements.pr)} ms",
            f"QRS {_rounded(measurements.qrs)} ms",
            f"QT/QTc (Bazett) {qt}/{qtc} ms",
            f"P-QRS-T axes {'  '.join(_rounded(axis) for axis in axes)} deg",
        )
    )


def _rounded(value: float) -> str:
    return "--" if math.isnan(value) else f"{round(value)}"


def draw_legend(ax: Axes, left: float, top: float) -> None:
    """One line that says what the colours are."""
    words = [(wave, colour, 2.2 * len(wave) + 2.0) for wave, colour, *_ in _WAVES]
    words.append(("ticks: onset and end    dots: peak    triangles: pacing spikes", _INK, 0.0))
    for text, colour, width in words:
        bold = "normal" if colour == _INK else "bold"
        word = ax.text(left, top, text, fontsize=8, fontweight=bold, va="top", color=colour)
        word.set_gid("legend")
        left += width
