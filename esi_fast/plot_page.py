"""The paper of the clinical page: its size, layouts, colours, grid, calibration pulses and texts.

Everything is in millimetres of paper, and so are the units of the page's axes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from esi_fast.leads import STANDARD_LEADS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patheffects import AbstractPathEffect

PAGE_SECONDS = 10.0
RHYTHM_LEAD = "II"
SPEEDS, GAINS = (25, 50), (5, 10, 20)
# Between the edge of the page and the grid.
_LEFT, _RIGHT, _BOTTOM, _TOP = 11.0, 11.0, 14.0, 36.0
# On the grid, beside the traces: room for the pulse, and what follows the last sample.
_BEFORE_PULSE, _AFTER_PULSE, _AFTER_TRACE = 5.0, 5.0, 10.0
_A4_HEIGHT, _A3_HEIGHT = 210.0, 420.0
_PULSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours.

    Attributes:
        page, paper: around the grid and under it.
        fine, bold: the grid's lines.
        ink, faint: of traces and words, and of what was not recorded.
        p, qrs, t: of the marks of each wave.
    """

    page: str
    paper: str
    fine: str
    bold: str
    ink: str
    faint: str
    p: str
    qrs: str
    t: str


THEMES = {
    "light": Theme(
        page="#ffffff", paper="#fffafa", fine="#f9d3d3", bold="#eea4a4", ink="#101010",
        faint="#9a6a6a", p="#1f5fa8", qrs="#c2410c", t="#2e7d4f",
    ),
    "dark": Theme(
        page="#0f1214", paper="#14181b", fine="#23282c", bold="#3a4349", ink="#eceae6",
        faint="#a08a8a", p="#6cb2f5", qrs="#ff8f5e", t="#6fd39b",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layout:
    """Which lead stands where.

    Attributes:
        columns: leads of each column from top to bottom; the columns share the ten seconds.
        has_rhythm: whether ten seconds of lead II run along the bottom unless it is asked for.
        height: of the page in mm, at 10 mm/mV and less.
    """

    columns: tuple[tuple[str, ...], ...]
    has_rhythm: bool
    height: float = _A4_HEIGHT


LAYOUTS = {
    "3x4": Layout(tuple(STANDARD_LEADS[at : at + 3] for at in range(0, 12, 3)), has_rhythm=True),
    "6x2": Layout((STANDARD_LEADS[:6], STANDARD_LEADS[6:]), has_rhythm=False),
    "12x1": Layout((STANDARD_LEADS,), has_rhythm=False, height=_A3_HEIGHT),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a strip stands: a lead, a row from the top, and seconds of the recording."""

    lead: str
    row: int
    start_s: float
    end_s: float
    is_lowest: bool


class Page:
    """A page that is true to scale.

    Attributes:
        figure, ax: the figure, and its axes over the whole page, which count in millimetres.
        theme: its colours.
        speed, gain: mm/s and mm/mV.
        row_height: mm.
    """

    def __init__(
        self, layout: str, rhythm: bool | None, speed: float, gain: float, theme: str
    ) -> None:
        """Choose the size of the page.

        Raises:
            ValueError: an unknown layout, speed, gain or theme; or a rhythm strip for ``12x1``.
        """
        for name, value, known in (
            ("layout", layout, tuple(LAYOUTS)),
            ("speed", speed, SPEEDS),
            ("gain", gain, GAINS),
            ("theme", theme, tuple(THEMES)),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; known: {', '.join(map(str, known))}")
        if rhythm and layout == "12x1":
            raise ValueError("12x1 shows ten seconds of every lead: leave out rhythm=True")
        self._layout = LAYOUTS[layout]
        self._has_rhythm = self._layout.has_rhythm if rhythm is None else rhythm
        self.theme = THEMES[theme]
        self.speed, self.gain = float(speed), float(gain)
        self._trace_left = _LEFT + _BEFORE_PULSE + _AFTER_PULSE + _PULSE_SECONDS * self.speed
        self.grid_width = self._trace_left - _LEFT + PAGE_SECONDS * self.speed + _AFTER_TRACE
        # At 20 mm/mV the traces are twice as high: half of that is paper, the rest overlaps.
        self.grid_height = (self._layout.height - _BOTTOM - _TOP) * (1.5 if gain > 10 else 1.0)
        self.num_rows = len(self._layout.columns[0]) + self._has_rhythm
        self.row_height = self.grid_height / self.num_rows
        self.figure, self.ax = self._millimetre_page()

    def _millimetre_page(self) -> tuple[Figure, Axes]:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        width = _LEFT + self.grid_width + _RIGHT
        height = _BOTTOM + self.grid_height + _TOP
        figure = Figure(figsize=(width / 25.4, height / 25.4), dpi=150, facecolor=self.theme.page)
        FigureCanvasAgg(figure)
        ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        ax.set_xlim(0.0, width)
        ax.set_ylim(0.0, height)
        ax.set_axis_off()
        return figure, ax

    @property
    def grid(self) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of the grid."""
        return _LEFT, _BOTTOM, self.grid_width, self.grid_height

    def places(self) -> Iterator[Place]:
        """Every strip, column by column, the rhythm strip last."""
        columns = self._layout.columns
        seconds = PAGE_SECONDS / len(columns)
        for at, leads in enumerate(columns):
            for row, lead in enumerate(leads):
                yield Place(
                    lead, row, at * seconds, (at + 1) * seconds, is_lowest=row == self.num_rows - 1
                )
        if self._has_rhythm:
            yield Place(RHYTHM_LEAD, self.num_rows - 1, 0.0, PAGE_SECONDS, is_lowest=True)

    def row_line(self, row: int) -> float:
        """Height of the zero line of a row, on a line of the grid; row 0 is the top one."""
        return _BOTTOM + self.grid_height - round((row + 0.5) * self.row_height)

    def x_of(self, seconds: Any) -> Any:
        """Where a moment of the recording stands."""
        return self._trace_left + seconds * self.speed

    def draw_grid(self) -> None:
        """The lines of the millimetre and of the five millimetres."""
        from matplotlib.collections import LineCollection
        from matplotlib.patches import Rectangle

        left, bottom, width, height = self.grid
        paper = Rectangle((left, bottom), width, height, color=self.theme.paper, zorder=0)
        self.ax.add_patch(paper)
        for step, colour, line_width, name in (
            (1, self.theme.fine, 0.1, "fine"),
            (5, self.theme.bold, 0.18, "bold"),
        ):
            across = np.arange(0, width + step, step) + left
            along = np.arange(0, height + step, step) + bottom
            segments = [((x, bottom), (x, bottom + height)) for x in across]
            segments += [((left, y), (left + width, y)) for y in along]
            grid = LineCollection(
                segments, colors=colour, linewidths=points(line_width), zorder=step / 10
            )
            grid.set_gid(f"grid-{name}")
            self.ax.add_collection(grid, autolim=False)

    def draw_calibration_pulses(self) -> None:
        """1 mV for 0.2 s in every row, with a little of the zero line on each side."""
        width, rise = _PULSE_SECONDS * self.speed, _LEFT + _BEFORE_PULSE
        x = [rise - 2.5, rise, rise, rise + width, rise + width, rise + width + 2.5]
        for row in range(self.num_rows):
            low = self.row_line(row)
            high = low + self.gain
            y = [low, low, high, high, low, low]
            (pulse,) = self.ax.plot(x, y, color=self.theme.ink, linewidth=points(0.25), zorder=3)
            pulse.set_gid("calibration")

    def halo(self) -> list[AbstractPathEffect]:
        """Paper around the letters of a word that stands on a trace."""
        from matplotlib.patheffects import withStroke

        return [withStroke(linewidth=points(0.7), foreground=self.theme.paper)]

    def draw_texts(self, title: str, values: str, caption: str, footer: str) -> None:
        """Title, values and caption above the grid, the footer below; empty ones leave no gap."""
        # parse_math off: a "$" in somebody's text is a dollar sign.
        top = _BOTTOM + self.grid_height + _TOP - 6.0
        options: dict[str, Any] = {"va": "top", "color": self.theme.ink, "parse_math": False}
        self.ax.text(_LEFT, top, title, fontsize=11, fontweight="bold", **options)
        below, max_lines = top - 6.5, 5
        if values:
            self.ax.text(_LEFT, below, values, fontsize=8.5, fontweight="bold", **options)
            below, max_lines = below - 4.5, 4
        # 165 characters of this size are 275 mm wide.
        width = int(165 * self.grid_width / 275)
        wrapped = textwrap.wrap(caption, width=width, max_lines=max_lines, placeholder=" …")
        self.ax.text(_LEFT, below, "\n".join(wrapped), fontsize=8.5, linespacing=1.25, **options)
        self.ax.text(_LEFT, _BOTTOM - 4.0, footer, fontsize=8, **options)


def points(millimetres: float) -> float:
    """Matplotlib's line width for a width on paper."""
    return millimetres * 72.0 / 25.4
