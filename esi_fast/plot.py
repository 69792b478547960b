"""Figures: the clinical 12-lead page true to scale, the training curves, the forest plot.

Matplotlib is imported only when a figure is asked for, here and in ``plot_marks``. Figures are made
with its object interface: nothing is shown, and no global backend or style is touched.

Provenance: page conventions (25 mm/s, 10 mm/mV, 1 mm and 5 mm grid, calibration pulse, time-aligned
columns) after the AHA/ACC/HRS recommendations for the standardization of the electrocardiogram,
Part I (Circulation 2007;115:1306). The drawing code is this project's own.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from esi_fast.leads import canonical_lead
from esi_fast.plot_marks import Strip, draw_fiducials, draw_legend, draw_rhythm, values_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from esi_fast.signal.measurements import Measurements

# The page is A4 across. Every number below is in millimetres, and so are the axis units.
PAGE_WIDTH_MM = 297.0
PAGE_HEIGHT_MM = 210.0
PAPER_SPEED_MM_PER_S = 25.0
GAIN_MM_PER_MV = 10.0
_GRID_LEFT, _GRID_BOTTOM, _GRID_WIDTH, _GRID_HEIGHT = 11.0, 14.0, 275.0, 160.0
_TRACE_LEFT = _GRID_LEFT + 15.0
_ROW_HEIGHT = 40.0

PAGE_SECONDS = 10.0
_COLUMN_SECONDS = 2.5
_RHYTHM_LEAD = "II"
_COLUMNS = (("I", "II", "III"), ("aVR", "aVL", "aVF"), ("V1", "V2", "V3"), ("V4", "V5", "V6"))

_PAPER, _FINE_GRID, _BOLD_GRID = "#fffafa", "#f9d3d3", "#eea4a4"
_INK, _FAINT_INK = "#101010", "#9a6a6a"
_BLUE, _ORANGE, _GREEN, _GREY = "#1f5fa8", "#d4691e", "#2e7d4f", "#8a8a8a"


class PlottableECG(Protocol):
    """What :func:`plot_ecg` needs of a record; :class:`esi_fast.ECGRecord` has it."""

    @property
    def signal(self) -> npt.NDArray[np.floating[Any]]:
        """(leads, samples) in mV, missing samples NaN."""

    @property
    def fs(self) -> float:
        """Sampling rate in Hz."""

    @property
    def leads(self) -> Sequence[str]:
        """Name of each row of ``signal``."""


def plot_ecg(
    record: PlottableECG,
    *,
    title: str | None = None,
    caption: str | None = None,
    measurements: Measurements | None = None,
) -> Figure:
    """Draw one ECG on a clinical page: 3 x 4 strips of 2.5 s above a 10 s rhythm strip of lead II.

    The figure is A4 across and its axis units are millimetres of paper, so that
    ``figure.savefig("page.pdf")`` printed at 100 % is to scale: 25 mm/s and 10 mm/mV. The four
    columns follow each other in time and stand above the same moment of the rhythm strip.

    Two things are done to the trace, and the footer says the first: each lead is moved by a
    constant, so that its median lies on the row's line (an electrocardiograph is AC-coupled and
    prints no offset); and a deflection too large for its row runs on into the neighbouring row, as
    it does on an electrocardiograph's paper, and ends at the edge of the grid. Cutting it at the
    row would print a voltage that was not measured. No filter is applied.

    With ``measurements`` the page also shows what was measured: in every strip ticks at onset and
    end and a dot at the peak of each P, QRS and T of that lead; along the rhythm strip the beats
    that are premature, wide or paced, the P waves that no QRS follows and the pacing spikes; under
    the title rate, PR, QRS, QT, QTc and axes, ``--`` where one is NaN; and a legend. An absent mark
    is not drawn, nor is one of a lead that was not recorded.

    Args:
        record: signal (leads, samples) in mV with NaN for missing samples, rate in Hz, lead names
            in any order. Only the first 10 s are drawn; a shorter record leaves the rest empty.
        title: one line above the page; by default the record's file name, where it has one.
        caption: text under the title; wrapped, and cut with an ellipsis after five lines (four
            with ``measurements``, whose values take one).
        measurements: of this record at its own rate: ``esi_fast.measure(record.signal, record.fs)``
            with the leads in standard order.

    Returns:
        A matplotlib ``Figure`` with an Agg canvas. Save it without ``bbox_inches="tight"``, which
        would break the scale.

    Raises:
        ValueError: the signal is not (leads, samples), disagrees with the lead names or has a rate
            that is not positive; or the measurements are of another rate.
    """
    signal = np.asarray(record.signal, dtype=np.float64)
    fs = float(record.fs)
    if signal.ndim != 2 or signal.shape[0] != len(record.leads):
        raise ValueError(
            f"signal {signal.shape} is not (leads, samples) of {len(record.leads)} leads"
        )
    if not fs > 0:
        raise ValueError(f"fs must be positive, got {record.fs}")
    if measurements is not None and measurements.fs != fs:
        raise ValueError(
            f"the measurements are at {measurements.fs:g} Hz and the record at {fs:g} Hz, so their "
            "samples differ: plot the record that was measured, or measure this one"
        )
    row_of_lead = {canonical_lead(name): row for row, name in enumerate(record.leads)}

    figure, ax = _millimetre_page()
    _draw_grid(ax)
    for row in range(4):
        _draw_calibration_pulse(ax, _row_line(row))
    absent = []
    strips = []
    for column, leads in enumerate(_COLUMNS):
        span = (column * _COLUMN_SECONDS, (column + 1) * _COLUMN_SECONDS)
        for row, lead in enumerate(leads):
            trace = _centred(signal, row_of_lead.get(lead))
            if trace is None:
                absent.append(lead)
            strips.append(_draw_strip(ax, lead, trace, fs, _row_line(row), *span))
    trace = _centred(signal, row_of_lead.get(_RHYTHM_LEAD))
    rhythm = _draw_strip(ax, _RHYTHM_LEAD, trace, fs, _row_line(3), 0.0, PAGE_SECONDS)

    values = ""
    if measurements is not None:
        for strip in (*strips, rhythm):
            if strip is not None:
                draw_fiducials(ax, strip, measurements)
        if rhythm is not None:
            draw_rhythm(ax, rhythm, measurements)
        draw_legend(ax, _GRID_LEFT, _GRID_BOTTOM - 8.5)
        values = values_line(measurements)

    if title is None:
        title = Path(str(getattr(record, "path", ""))).name
    _draw_texts(ax, title, values, caption or "", _footer(fs, signal.shape[1] / fs, absent))
    return figure


def _millimetre_page() -> tuple[Figure, Axes]:
    """An A4 figure whose one axes covers the page and counts in millimetres."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PAGE_WIDTH_MM / 25.4, PAGE_HEIGHT_MM / 25.4), dpi=150)
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.set_xlim(0.0, PAGE_WIDTH_MM)
    ax.set_ylim(0.0, PAGE_HEIGHT_MM)
    ax.set_axis_off()
    return figure, ax


def _row_line(row: int) -> float:
    """Height of the zero line of a row; row 0 is the top one."""
    return _GRID_BOTTOM + _GRID_HEIGHT - (row + 0.5) * _ROW_HEIGHT


def _points(millimetres: float) -> float:
    """Matplotlib's line width for a width on paper."""
    return millimetres * 72.0 / 25.4


def _draw_grid(ax: Axes) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle

    right, top = _GRID_LEFT + _GRID_WIDTH, _GRID_BOTTOM + _GRID_HEIGHT
    ax.add_patch(
        Rectangle((_GRID_LEFT, _GRID_BOTTOM), _GRID_WIDTH, _GRID_HEIGHT, color=_PAPER, zorder=0)
    )
    for step, colour, width, name in ((1, _FINE_GRID, 0.1, "fine"), (5, _BOLD_GRID, 0.18, "bold")):
        across = np.arange(0, _GRID_WIDTH + step, step) + _GRID_LEFT
        along = np.arange(0, _GRID_HEIGHT + step, step) + _GRID_BOTTOM
        segments = [((x, _GRID_BOTTOM), (x, top)) for x in across]
        segments += [((_GRID_LEFT, y), (right, y)) for y in along]
        grid = LineCollection(segments, colors=colour, linewidths=_points(width), zorder=step / 10)
        grid.set_gid(f"grid-{name}")
        ax.add_collection(grid, autolim=False)


def _draw_calibration_pulse(ax: Axes, line: float) -> None:
    """1 mV for 0.2 s, with a little of the zero line on each side."""
    width, height = 0.2 * PAPER_SPEED_MM_PER_S, GAIN_MM_PER_MV
    rise = _GRID_LEFT + 5.0
    x = [rise - 2.5, rise, rise, rise + width, rise + width, rise + width + 2.5]
    y = [line, line, line + height, line + height, line, line]
    (pulse,) = ax.plot(x, y, color=_INK, linewidth=_points(0.25), zorder=3)
    pulse.set_gid("calibration")


def _centred(signal: npt.NDArray[np.float64], row: int | None) -> npt.NDArray[np.float64] | None:
    """The lead less its median in mV, or None where nothing of it was recorded."""
    if row is None or not np.isfinite(signal[row]).any():
        return None
    trace: npt.NDArray[np.float64] = signal[row] - np.nanmedian(signal[row])
    return trace


def _draw_strip(
    ax: Axes,
    lead: str,
    trace: npt.NDArray[np.float64] | None,
    fs: float,
    line: float,
    start_s: float,
    end_s: float,
) -> Strip | None:
    """One lead from ``start_s`` to ``end_s`` with its label; NaN samples leave a gap.

    Returns what was drawn, or None where the lead was not recorded.
    """
    from matplotlib.patches import Rectangle

    left = _TRACE_LEFT + start_s * PAPER_SPEED_MM_PER_S
    if start_s > 0:
        # The tick that separates two leads of a row.
        ax.plot([left, left], [line + 4.0, line + 8.0], color=_INK, linewidth=_points(0.25))
    ax.text(
        left + 1.0,
        line + 11.0,
        lead if trace is not None else f"{lead} (not recorded)",
        fontsize=9,
        fontweight="bold",
        color=_INK if trace is not None else _FAINT_INK,
        zorder=4,
    )
    if trace is None:
        return None
    first, last = (round(seconds * fs) for seconds in (start_s, end_s))
    samples = np.arange(first, min(last, trace.size))
    x = _TRACE_LEFT + samples / fs * PAPER_SPEED_MM_PER_S
    y = line + trace[samples] * GAIN_MM_PER_MV
    (drawn,) = ax.plot(x, y, color=_INK, linewidth=_points(0.25), solid_joinstyle="round", zorder=3)
    name = f"{lead} {start_s:g}-{end_s:g} s"
    drawn.set_gid(name)
    paper = Rectangle((_GRID_LEFT, _GRID_BOTTOM), _GRID_WIDTH, _GRID_HEIGHT, transform=ax.transData)
    drawn.set_clip_path(paper)
    return Strip(name, lead, first, x, y, line, paper)


def _footer(fs: float, seconds: float, absent: Sequence[str]) -> str:
    parts = [
        f"{PAPER_SPEED_MM_PER_S:g} mm/s",
        f"{GAIN_MM_PER_MV:g} mm/mV",
        f"{fs:g} Hz",
        "no filter applied; each lead centred on its median",
    ]
    if seconds > PAGE_SECONDS:
        parts.append(f"first {PAGE_SECONDS:g} s of {seconds:g} s")
    if absent:
        parts.append(f"not recorded: {', '.join(absent)}")
    return "    ".join(parts)


def _draw_texts(ax: Axes, title: str, values: str, caption: str, footer: str) -> None:
    # parse_math off: a "$" in somebody's text is a dollar sign.
    top = PAGE_HEIGHT_MM - 6.0
    options: dict[str, Any] = {"va": "top", "color": _INK, "parse_math": False}
    ax.text(_GRID_LEFT, top, title, fontsize=11, fontweight="bold", **options)
    below, max_lines = top - 6.5, 5
    if values:
        ax.text(_GRID_LEFT, below, values, fontsize=8.5, fontweight="bold", **options)
        below, max_lines = below - 4.5, 4
    wrapped = textwrap.wrap(caption, width=165, max_lines=max_lines, placeholder=" …")
    ax.text(_GRID_LEFT, below, "\n".join(wrapped), fontsize=8.5, linespacing=1.25, **options)
    ax.text(_GRID_LEFT, _GRID_BOTTOM - 4.0, footer, fontsize=8, **options)


def plot_training(metrics: Path | str | Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the curves of a training run: the losses, the learning rate and the throughput.

    Args:
        metrics: a ``metrics.jsonl`` file, or its lines as mappings: ``step`` and any of ``loss``,
            ``contrastive``, ``captioning``, ``lr``, ``samples_per_s``. Where a step occurs twice
            (a resumed run) the later line counts.

    Returns:
        A matplotlib ``Figure`` with three axes that share the step axis.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is not a JSON object with a ``step``, or no line has a ``loss``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = read_training_metrics(metrics) if isinstance(metrics, str | Path) else list(metrics)
    curves = {
        name: _curve(lines, name)
        for name in ("loss", "contrastive", "captioning", "lr", "samples_per_s")
    }
    if not curves["loss"][0].size:
        raise ValueError("no line of the training metrics has a 'loss'; did the run log anything?")

    figure = Figure(figsize=(9.0, 6.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    loss_ax, lr_ax, speed_ax = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1, 1)}
    )
    for name, label, colour in (
        ("loss", "total", _INK),
        ("contrastive", "contrastive", _BLUE),
        ("captioning", "captioning", _ORANGE),
    ):
        steps, values = curves[name]
        if steps.size:
            loss_ax.plot(steps, values, color=colour, linewidth=1.4, label=label)
    loss_ax.set_ylabel("loss (nats)")
    loss_ax.legend(frameon=False)
    lr_ax.plot(*curves["lr"], color=_GREEN, linewidth=1.4)
    lr_ax.set_ylabel("learning rate")
    lr_ax.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    speed_ax.plot(*curves["samples_per_s"], color=_GREY, linewidth=1.2)
    speed_ax.set_ylabel("samples/s")
    speed_ax.set_ylim(bottom=0)
    speed_ax.set_xlabel("step")
    for ax in (loss_ax, lr_ax, speed_ax):
        ax.grid(color="#e4e4e4", linewidth=0.7)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def read_training_metrics(path: Path | str) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl`` file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is not a JSON object; the message has its number.
    """
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(Path(path).read_text().splitlines(), start=1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from None
        if not isinstance(line, dict):
            raise ValueError(f"{path}, line {number} is not a JSON object: {text[:60]!r}")
        lines.append(line)
    return lines


def _curve(
    lines: Sequence[Mapping[str, Any]], name: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    by_step: dict[float, float] = {}
    for line in lines:
        if "step" not in line:
            raise ValueError(f"a line of the training metrics has no 'step': {dict(line)}")
        if line.get(name) is not None:
            by_step[float(line["step"])] = float(line[name])
    steps = sorted(by_step)
    return np.array(steps), np.array([by_step[step] for step in steps])


def plot_forest(
    names: Sequence[str],
    series: Mapping[str, npt.NDArray[np.float64]],
    *,
    title: str = "",
    xlabel: str = "AUROC",
    reference: float = 0.5,
) -> Figure:
    """Draw estimates with their intervals, one row a name, one colour a series.

    Args:
        names: (n) row labels, drawn from top to bottom.
        series: for each series an array (n, 3) of estimate, low and high; NaN rows stay empty.
        title: above the axes.
        xlabel: what the estimates are.
        reference: where the dashed vertical line stands (0.5: chance, for an AUROC).

    Raises:
        ValueError: a series is not (n, 3).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 1.4 + 0.34 * len(names)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    rows = np.arange(len(names), dtype=np.float64)
    colours = (_BLUE, _GREY, _ORANGE, _GREEN)
    for index, (label, values) in enumerate(series.items()):
        if values.shape != (len(names), 3):
            raise ValueError(f"series {label!r} is {values.shape}, not ({len(names)}, 3)")
        offset = (index - (len(series) - 1) / 2) * 0.28
        colour = colours[index % len(colours)]
        ax.hlines(rows + offset, values[:, 1], values[:, 2], color=colour, linewidth=1.6)
        ax.plot(values[:, 0], rows + offset, "o", color=colour, markersize=4.5, label=label)
    ax.axvline(reference, color="#555555", linewidth=0.9, linestyle="--")
    ax.set_yticks(rows, names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel(xlabel)
    ax.set_title(title, fontsize=11, loc="left")
    ax.grid(axis="x", color="#e4e4e4", linewidth=0.7)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, ncols=len(series), loc="outside upper right")
    return figure
