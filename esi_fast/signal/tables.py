"""Numbers in tables as ECGs: text (csv, tsv) and NumPy's own files (npy, npz)."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from esi_fast.leads import canonical_lead, millivolts_per_unit

# "Time [s]", "time_s" and the like, by their words.
_TIME_IN_SECONDS = ("time", "t", "time s", "t s", "time sec", "time seconds", "sec", "seconds")
# Steps of a column of time may differ by the rounding of its text.
_UNEQUAL_STEP, _UNEQUAL_RATE = 0.1, 1e-3
_ARRAY_NAMES = ("signal", "fs", "leads", "unit")


class Table(NamedTuple):
    """An array and what its file says of it; None where it says nothing.

    Attributes:
        array: ``(leads, samples)`` or ``(samples, leads)``.
        names: of its leads.
        fs: Hz.
        unit: of the voltages.
        has_columns: whether each column is known to be a lead.
        left_out: names of columns of text.
    """

    array: npt.NDArray[Any]
    names: tuple[str, ...] | None = None
    fs: float | None = None
    unit: str | None = None
    has_columns: bool = False
    left_out: tuple[str, ...] = ()


def read_text_table(path: Path) -> Table:
    """A ``.csv`` (comma or semicolon) or ``.tsv``: a column a lead, a row a sample.

    The first line names the columns, or there are no names. An empty cell and ``nan`` are missing
    samples. A column of time in seconds (``time``, ``t [s]``, ``seconds``) tells the rate. Left out
    are a nameless first column that counts the rows, a nameless one that is empty, and columns that
    hold text and are no lead by their name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a row has another number of cells than the first, a cell of a lead is no number,
            or the steps of time differ.
    """
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
        comma = "\t" if path.suffix.lower() == ".tsv" else ";" if ";" in first else ","
        file.seek(0)
        try:
            rows = [(line, row) for line, row in enumerate(csv.reader(file, delimiter=comma), 1)]
        except csv.Error as error:
            raise ValueError(f"{path}: {error}") from None
    rows = [(line, row) for line, row in rows if row]
    if not rows:
        raise ValueError(f"{path} is empty")
    width = len(rows[0][1])
    names: tuple[str, ...] | None = None
    if not all(_is_number(cell) for cell in rows[0][1]):
        names = tuple(cell.strip() for cell in rows.pop(0)[1])
    for line, row in rows:
        if len(row) != width:
            raise ValueError(f"{path}, line {line}: {len(row)} cells, the first line has {width}")
    kept = [
        at
        for at in range(width)
        if names is None or canonical_lead(names[at]) or all(_is_number(row[at]) for _, row in rows)
    ]
    values = np.empty((len(rows), len(kept)))
    for at, (line, row) in enumerate(rows):
        cells = [row[column] for column in kept]
        try:
            values[at] = [float(cell) if cell.strip() else np.nan for cell in cells]
        except ValueError:
            bad = next(cell for cell in cells if not _is_number(cell))
            raise ValueError(f"{path}, line {line}: {bad[:40]!r} is no number") from None
    if names is None:
        return Table(values)
    left_out = tuple(names[at] for at in range(width) if at not in kept)
    table = _without_time(path, values, tuple(names[at] for at in kept))
    return table._replace(left_out=left_out)


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return not cell.strip()
    return True


def _without_time(path: Path, values: npt.NDArray[np.float64], names: tuple[str, ...]) -> Table:
    fs: float | None = None
    kept = list(range(len(names)))
    for at, name in enumerate(names):
        column = values[:, at]
        counts_rows = at == 0 and np.array_equal(column, np.arange(len(column)))
        if not name and (counts_rows or np.isnan(column).all()):
            kept.remove(at)
        elif " ".join(re.findall(r"\w+", name.casefold().replace("_", " "))) in _TIME_IN_SECONDS:
            kept.remove(at)
            fs = _rate_of(path, name, column)
    return Table(values[:, kept], tuple(names[at] for at in kept), fs, has_columns=True)


def _rate_of(path: Path, name: str, seconds: npt.NDArray[np.float64]) -> float:
    if len(seconds) < 2 or not np.isfinite(seconds).all() or not seconds[-1] > seconds[0]:
        raise ValueError(f"{path}: column {name!r} holds no rising times in seconds")
    step = (seconds[-1] - seconds[0]) / (len(seconds) - 1)
    if np.abs(np.diff(seconds) - step).max() > _UNEQUAL_STEP * step:
        raise ValueError(
            f"{path}: the steps of column {name!r} differ: samples must be evenly spaced in time"
        )
    rate = 1.0 / step
    # A whole rate, where the times are no more exact than to tell it.
    return float(round(rate)) if abs(rate - round(rate)) < _UNEQUAL_RATE * rate else float(rate)


def read_numpy_file(path: Path) -> Table:
    """An ``.npy`` array, or an ``.npz`` with ``signal`` and, if it likes, ``fs, leads, unit``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged or cannot be read without pickle, or the ``.npz`` holds something
            else.
    """
    try:
        return _numpy_table(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # NumPy and zipfile answer damage with whatever happens to break
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is no NumPy file of an ECG: {text}") from None


def _numpy_table(path: Path) -> Table:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return Table(loaded)
    with loaded:
        unknown = set(loaded.files) - set(_ARRAY_NAMES)
        if "signal" not in loaded.files or unknown:
            found = ", ".join(loaded.files) or "nothing"
            raise ValueError(f"it holds {found}: give it signal and, if known, fs, leads, unit")
        # What is no array comes as bytes.
        arrays = {name: np.asarray(loaded[name]) for name in loaded.files}
    for name in {"fs", "unit"} & arrays.keys():
        if arrays[name].size != 1:
            raise ValueError(f"its {name} is {arrays[name].size} values, not one")
    names = np.atleast_1d(arrays["leads"]) if "leads" in arrays else None
    unit = str(arrays["unit"].item()) if "unit" in arrays else None
    if unit is not None:
        millivolts_per_unit(unit)  # raises where it is no voltage
    return Table(
        arrays["signal"],
        None if names is None else tuple(str(name) for name in names),
        float(arrays["fs"].item()) if "fs" in arrays else None,
        unit,
    )
