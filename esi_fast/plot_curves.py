"""Figures of scores: curves in small panels, reliability, tables of right and wrong.

Matplotlib is imported only when a figure is asked for, with its object interface, as in ``plot``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#1f5fa8", "#8a8a8a", "#d4691e", "#2e7d4f")
_FAINT = "#555555"
_COLUMNS = 4
_TICKS = (0.0, 0.5, 1.0)  # few: labels take most of the time that a small panel takes

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Panel:
    """One small panel of curves.

    Attributes:
        title: above it; wrapped.
        curves: name to x (n,) and y (n,), both from 0 to 1.
        chance: y of a horizontal dashed line; None for the diagonal.
    """

    title: str
    curves: Mapping[str, tuple[FloatArray, FloatArray]]
    chance: float | None = None


def plot_panels(
    panels: Sequence[Panel], *, xlabel: str, ylabel: str, min_x: float | None = None
) -> Figure:
    """Draw panels of curves, four in a row, with one legend.

    Args:
        panels: at least one; the curves of one name have one colour, up to four names.
        xlabel: of all panels.
        ylabel: of all panels.
        min_x: if given, x is logarithmic from there to 1.

    Raises:
        ValueError: there is no panel, or there are more than four names.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    if not panels or len(names) > len(_COLOURS):
        raise ValueError(f"{len(panels)} panels of {len(names)} curves: one to four are drawn")
    figure, axes = _grid(len(panels), height=2.55)
    handles = {}
    for ax, panel in zip(axes, panels, strict=True):
        if min_x is None and panel.chance is None:
            ax.plot([0, 1], [0, 1], color=_FAINT, linewidth=0.8, linestyle="--")
        elif panel.chance is not None:
            ax.axhline(panel.chance, color=_FAINT, linewidth=0.8, linestyle="--")
        for name, (x, y) in list(panel.curves.items())[::-1]:  # the first on top
            colour = _COLOURS[names.index(name)]
            (handles[name],) = ax.plot(x, y, color=colour, linewidth=1.5)
        if min_x is None:
            ax.set(xlim=(-0.02, 1.02), xticks=_TICKS)
        else:
            ax.set(xscale="log", xlim=(min_x, 1.0))
        ax.set(ylim=(-0.02, 1.02), yticks=_TICKS)
        ax.set_title(_wrapped(panel.title), fontsize=8.5, loc="left", parse_math=False)
        _tidy(ax)
    figure.supxlabel(xlabel, fontsize=9.5)
    figure.supylabel(ylabel, fontsize=9.5)
    figure.legend(
        [handles[name] for name in names], names, frameon=False, ncols=2 if len(axes) == 1 else 4,
        loc="outside upper left", fontsize=9,
    )  # fmt: skip
    return figure


def plot_reliability(curves: Mapping[str, tuple[FloatArray, FloatArray, FloatArray]]) -> Figure:
    """Draw what probabilities foretold against what came, above how often each was given.

    Args:
        curves: up to four names to (mean probability, share of positives, number) of each bin; a
            bin without probabilities is NaN, NaN, 0.

    Raises:
        ValueError: there is no curve, or there are more than four.
    """
    if not 0 < len(curves) <= len(_COLOURS):
        raise ValueError(f"{len(curves)} reliability curves: one to four are drawn")
    figure = _figure(5.2, 5.4)
    ax, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1)})
    ax.plot([0, 1], [0, 1], color=_FAINT, linewidth=0.8, linestyle="--")
    width = 0.8 / len(next(iter(curves.values()))[2]) / len(curves)
    for index, (name, (foretold, observed, counts)) in enumerate(curves.items()):
        filled, colour = counts > 0, _COLOURS[index]
        ax.plot(
            foretold[filled], observed[filled], "o-", color=colour, linewidth=1.4, markersize=4,
            label=name,
        )  # fmt: skip
        centre = (np.arange(len(counts)) + 0.5) / len(counts)
        place = centre + (index - (len(curves) - 1) / 2) * width
        below.bar(place, counts, width=width, color=colour)
    ax.set_ylabel("share of positive records")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    below.set_yscale("symlog", linthresh=10)
    below.set_ylabel("number")
    below.set_xlabel("probability")
    for each in (ax, below):
        _tidy(each)
    return figure


def plot_confusion(tables: Sequence[tuple[str, npt.NDArray[np.int64]]]) -> Figure:
    """Draw 2 x 2 counts: rows labelled yes and no, columns called yes and no.

    Args:
        tables: title and (2, 2) counts ((true positives, false negatives), (false positives, true
            negatives)) of each panel; a cell is shaded by its share of its row.

    Raises:
        ValueError: there is no table.
    """
    if not tables:
        raise ValueError("0 tables of counts: at least one is drawn")
    figure, axes = _grid(len(tables), height=2.0)
    for ax, (title, counts) in zip(axes, tables, strict=True):
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        ax.imshow(share, cmap="Blues", vmin=0.0, vmax=1.4, aspect="auto")
        for (row, column), count in np.ndenumerate(counts):
            ink = "white" if share[row, column] > 0.8 else "#101010"
            ax.text(column, row, str(count), ha="center", va="center", fontsize=11, color=ink)
        ax.set_xticks([0, 1], ["called yes", "called no"], fontsize=8)
        ax.set_yticks([0, 1], ["is", "is not"], fontsize=8)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_title(_wrapped(title), fontsize=8.5, loc="left", parse_math=False)
    return figure


def _grid(number: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with so many axes, four in a row; what is left of the last row stays empty."""
    columns = min(number, _COLUMNS)
    rows = -(-number // _COLUMNS)
    figure = _figure(max(4.4, 2.6 * columns), 0.7 + height * rows * (1.5 if number == 1 else 1.0))
    axes = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    for ax in axes[number:]:
        ax.set_axis_off()
    return figure, axes[:number]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _tidy(ax: Axes) -> None:
    ax.tick_params(labelsize=8)
    ax.grid(color="#e4e4e4", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _wrapped(title: str) -> str:
    return "\n".join(textwrap.wrap(title, width=36, max_lines=2, placeholder=" …"))
