"""Figures: the clinical 12-lead page true to scale, the training curves, the forest plot.

Matplotlib is imported only when a figure is asked for, here, in ``plot_page`` and ``plot_marks``.
Figures are made with its object interface: nothing is shown, and no global backend or style is
touched.

Provenance: page conventions (25 mm/s, 10 mm/mV, 1 mm and 5 mm grid, calibration pulse, time-aligned
columns) after the AHA/ACC/HRS recommendations for the standardization of the electrocardiogram,
Part I (Circulation 2007;115:1306). The drawing code is this project's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from esi_fast.leads import canonical_lead
from esi_fast.plot_marks import Strip, draw_fiducials, draw_legend, draw_rhythm, values_line
from esi_fast.plot_page import PAGE_SECONDS, Page, Place, points

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from esi_fast.signal.measurements import Measurements

_INK = "#101010"
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
    layout: str = "3x4",
    rhythm: bool | None = None,
    speed: float = 25,
    gain: float = 10,
    theme: str = "light",
    title: str | None = None,
    caption: str | None = None,
    measurements: Measurements | None = None,
) -> Figure:
    """Draw one ECG on a clinical page: 3 x 4 strips of 2.5 s above a 10 s rhythm strip of lead II.

    The figure's axis units are millimetres of paper, so that ``figure.savefig("page.pdf")`` printed
    at 100 % is to scale: by default 25 mm/s and 10 mm/mV. Columns follow each other in time and
    stand above the same moment of the rhythm strip. At 25 mm/s and up to 10 mm/mV the page is A4
    across (297 x 210 mm), for ``12x1`` A3 upright (297 x 420 mm). At 50 mm/s it is 552 mm wide, at
    20 mm/mV its grid is half as high again.

    Two things are done to the trace, and the footer says the first: each lead is moved by a
    constant, so that its median lies on the row's line (an electrocardiograph is AC-coupled and
    prints no offset); and a deflection too large for its row runs on into the neighbouring row, as
    it does on an electrocardiograph's paper, and ends at the edge of the grid. Cutting it at the
    row would print a voltage that was not measured. No filter is applied.

    With ``measurements`` the page also shows what was measured: in every strip ticks at onset and
    end and a dot at the peak of each P, QRS and T of that lead; along the lowest row (the rhythm
    strip, where there is one) the beats that are premature, wide or paced, the P waves that no QRS
    follows and the pacing spikes; under the title rate, PR, QRS, QT, QTc and axes, ``--`` where one
    is NaN; and a legend. An absent mark is not drawn, nor is one of a lead that was not recorded.

    Args:
        record: signal (leads, samples) in mV with NaN for missing samples, rate in Hz, lead names
            in any order. Only the first 10 s are drawn; a shorter record leaves the rest empty.
        layout: ``"3x4"``, ``"6x2"`` (six rows, two columns of 5 s) or ``"12x1"`` (twelve rows of
            10 s).
        rhythm: whether 10 s of lead II run along the bottom; by default for ``3x4`` only.
        speed: 25 or 50 mm/s.
        gain: 5, 10 or 20 mm/mV.
        theme: ``"light"``, red grid on white, or ``"dark"``, for screens.
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
            that is not positive; the measurements are of another rate; or layout, speed, gain or
            theme are none of those above.
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
    known = [canonical_lead(name) for name in record.leads]
    row_of_lead = {lead: row for row, lead in enumerate(known) if lead is not None}
    if len(row_of_lead) < len(known) - known.count(None):
        raise ValueError(f"a lead occurs twice among {', '.join(record.leads)}")

    page = Page(layout, rhythm, speed, gain, theme)
    page.draw_grid()
    page.draw_calibration_pulses()
    traces = {place.lead: _centred(signal, row_of_lead.get(place.lead)) for place in page.places()}
    for place in page.places():
        strip = _draw_strip(page, place, traces[place.lead], fs)
        if strip is not None and measurements is not None:
            draw_fiducials(page, strip, measurements)
            if place.is_lowest:
                draw_rhythm(page, strip, measurements)
    values = ""
    if measurements is not None:
        draw_legend(page)
        values = values_line(measurements)
    if title is None:
        title = Path(str(getattr(record, "path", ""))).name
    absent = [lead for lead, trace in traces.items() if trace is None]
    # Of read_ecg: which limb leads come from two others.
    status = str(getattr(record, "status", ""))
    notes = [part for part in status.split("; ") if part.startswith("computed: ")]
    if absent:
        notes.append(f"not recorded: {', '.join(absent)}")
    page.draw_texts(title, values, caption or "", _footer(page, fs, signal.shape[1] / fs, notes))
    return page.figure


def _centred(signal: npt.NDArray[np.float64], row: int | None) -> npt.NDArray[np.float64] | None:
    """The lead less its median in mV, or None where nothing of it was recorded."""
    if row is None or not np.isfinite(signal[row]).any():
        return None
    trace: npt.NDArray[np.float64] = signal[row] - np.nanmedian(signal[row])
    return trace


def _draw_strip(
    page: Page, place: Place, trace: npt.NDArray[np.float64] | None, fs: float
) -> Strip | None:
    """One lead with its label; NaN samples leave a gap.

    Returns what was drawn, or None where the lead was not recorded.
    """
    from matplotlib.patches import Rectangle

    ax, ink = page.ax, page.theme.ink
    lead, line = place.lead, page.row_line(place.row)
    left = page.x_of(place.start_s)
    if place.start_s > 0:
        # The tick that separates two leads of a row.
        ax.plot([left, left], [line + 4.0, line + 8.0], color=ink, linewidth=points(0.25))
    label = ax.text(
        left + 1.0,
        line + 0.275 * page.row_height,
        lead if trace is not None else f"{lead} (not recorded)",
        fontsize=9,
        fontweight="bold",
        color=ink if trace is not None else page.theme.faint,
        zorder=4,
    )
    label.set_path_effects(page.halo())
    if trace is None:
        return None
    first, last = (round(seconds * fs) for seconds in (place.start_s, place.end_s))
    samples = np.arange(first, min(last, trace.size))
    x = page.x_of(samples / fs)
    y = line + trace[samples] * page.gain
    (drawn,) = ax.plot(x, y, color=ink, linewidth=points(0.25), solid_joinstyle="round", zorder=3)
    name = f"{lead} {place.start_s:g}-{place.end_s:g} s"
    drawn.set_gid(name)
    left_edge, bottom, width, height = page.grid
    paper = Rectangle((left_edge, bottom), width, height, transform=ax.transData)
    drawn.set_clip_path(paper)
    return Strip(name, lead, first, x, y, line, paper)


def _footer(page: Page, fs: float, seconds: float, notes: Sequence[str]) -> str:
    parts = [
        f"{page.speed:g} mm/s",
        f"{page.gain:g} mm/mV",
        f"{fs:g} Hz",
        "no filter applied; each lead centred on its median",
    ]
    if seconds > PAGE_SECONDS:
        parts.append(f"first {PAGE_SECONDS:g} s of {seconds:g} s")
    return "    ".join((*parts, *notes))


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
