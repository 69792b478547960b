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

from esi_fast.plot_page import Page, Theme, points

if TYPE_CHECKING:
    from matplotlib.patches import Patch

    from esi_fast.signal.measurements import Measurements

# A wave's name, its marks (the peak, then where it begins and ends), and the theme's colour.
_WAVES = (
    ("P", "p_peak", ("p_onset", "p_end")),
    ("QRS", "r_peak", ("qrs_onset", "qrs_end")),
    ("T", "t_peak", ("t_onset", "t_end")),
)

# In millimetres.
_TICK_HEIGHT, _TICK_WIDTH, _DOT_SIZE, _SPIKE_SIZE = 3.0, 0.2, 0.9, 1.5
# The labels stand at fixed distances from the row's zero line, in heights of a row, so that they
# can be read along the strip: beats above, blocked P below, spikes at the lower edge.
_BEAT_LABEL, _BLOCKED_LABEL, _SPIKES = 14.5 / 40, -9.0 / 40, -17.5 / 40


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


def draw_fiducials(page: Page, strip: Strip, measurements: Measurements) -> None:
    """Onset, peak and end of each P, QRS and T that the strip shows, in the wave's colour."""
    from matplotlib.collections import LineCollection

    marks = measurements.fiducials.get(strip.lead, {})
    for wave, peak, bounds in _WAVES:
        colour = _colour(page.theme, wave)
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
                    segments, colors=colour, linewidths=points(_TICK_WIDTH), zorder=4
                )
                ticks.set_gid(f"{strip.name} {mark}")
                page.ax.add_collection(ticks, autolim=False)
                ticks.set_clip_path(strip.paper)
        if peak in marks:
            at = strip.within(marks[peak])
            _draw_markers(page, strip, peak, strip.x[at], strip.y[at], "o", _DOT_SIZE, colour)


def draw_rhythm(page: Page, strip: Strip, measurements: Measurements) -> None:
    """What the lowest row says of the beats: early, wide, paced; blocked P; pacing spikes."""
    ink = page.theme.ink
    for beat, label in _beat_labels(measurements):
        for at in strip.within(beat):
            _draw_label(page, strip, "beat", strip.x[at], _BEAT_LABEL, label, ink)
    for at in strip.within(measurements.blocked_p):
        colour = page.theme.p
        _draw_label(page, strip, "blocked P", strip.x[at], _BLOCKED_LABEL, "blocked P", colour)
    x = strip.x[strip.within(measurements.pacing_spikes)]
    height = np.full(x.size, strip.line + _SPIKES * page.row_height)
    _draw_markers(page, strip, "pacing spikes", x, height, "^", _SPIKE_SIZE, ink)


def _colour(theme: Theme, wave: str) -> str:
    return {"P": theme.p, "QRS": theme.qrs, "T": theme.t}[wave]


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
    page: Page, strip: Strip, kind: str, x: float, height: float, text: str, colour: str
) -> None:
    """Words above or below the zero line of the strip, centred on ``x``."""
    label = page.ax.text(
        x,
        strip.line + height * page.row_height,
        text,
        fontsize=6,
        linespacing=1.0,
        color=colour,
        horizontalalignment="center",
        verticalalignment="bottom" if height > 0 else "top",
        zorder=5,
    )
    label.set_gid(f"{strip.name} {kind}")
    label.set_path_effects(page.halo())


def _draw_markers(
    page: Page,
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
    (drawn,) = page.ax.plot(
        x,
        y,
        marker,
        color=colour,
        markersize=points(size),
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


def draw_legend(page: Page) -> None:
    """One line that says what the colours are, under the footer."""
    left, bottom, *_ = page.grid
    ink = page.theme.ink
    words = [(wave, _colour(page.theme, wave), 2.2 * len(wave) + 2.0) for wave, *_ in _WAVES]
    words.append(("ticks: onset and end    dots: peak    triangles: pacing spikes", ink, 0.0))
    for text, colour, width in words:
        bold = "normal" if colour == ink else "bold"
        word = page.ax.text(
            left, bottom - 8.5, text, fontsize=8, fontweight=bold, va="top", color=colour
        )
        word.set_gid("legend")
        left += width
