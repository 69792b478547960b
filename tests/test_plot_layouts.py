"""Every layout, speed and gain is true to scale, on paper as in axis units; dark pages are dark."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from plot_fakes import Record, flat, marks_mm, measured, pixels, strip, words

from esi_fast.leads import STANDARD_LEADS
from esi_fast.plot import plot_ecg
from esi_fast.plot_page import THEMES
from esi_fast.signal.inputs import read_ecg

# Page in mm, for 3x4 and 6x2, and for 12x1.
WIDTHS = {25: 297.0, 50: 552.0}
HEIGHTS = {5: (210.0, 420.0), 10: (210.0, 420.0), 20: (290.0, 605.0)}


def step_record() -> Record:
    """1 mV from 1 s to 2 s, and again from 6 s to 7 s, in every lead; 100 Hz."""
    signal = flat(fs=100.0)
    signal[:, 100:200] = signal[:, 600:700] = 1.0
    return Record(signal, fs=100.0)


@pytest.mark.parametrize("gain", [5, 10, 20])
@pytest.mark.parametrize("speed", [25, 50])
@pytest.mark.parametrize("layout", ["3x4", "6x2", "12x1"])
def test_a_second_and_a_millivolt_are_what_the_page_says(
    layout: str, speed: int, gain: int
) -> None:
    figure = plot_ecg(step_record(), layout=layout, speed=speed, gain=gain)
    width_mm, height_mm = figure.get_size_inches() * 25.4
    assert width_mm == pytest.approx(WIDTHS[speed])
    assert height_mm == pytest.approx(HEIGHTS[gain][layout == "12x1"])
    ax = figure.axes[0]
    # A unit of the axes is a millimetre of the page.
    assert ax.get_position().bounds == (0.0, 0.0, 1.0, 1.0)
    assert (*ax.get_xlim(), *ax.get_ylim()) == pytest.approx((0.0, width_mm, 0.0, height_mm))
    seconds = {"3x4": 2.5, "6x2": 5.0, "12x1": 10.0}[layout]
    x, y = strip(figure, f"I 0-{seconds:g} s")
    assert x[100] - x[0] == pytest.approx(speed)
    assert np.ptp(y) == pytest.approx(gain)
    pulses = [np.array(line.get_data()) for line in ax.lines if line.get_gid() == "calibration"]
    assert len(pulses) == {"3x4": 4, "6x2": 6, "12x1": 12}[layout]
    for pulse_x, pulse_y in pulses:
        assert np.ptp(pulse_y) == pytest.approx(gain)
        assert np.ptp(pulse_x[pulse_y == pulse_y.max()]) == pytest.approx(0.2 * speed)
        assert pulse_x.max() <= x[0]
    assert f"{speed} mm/s    {gain} mm/mV" in ax.texts[-1].get_text()


def pdf_box_and_longest_line(figure: Figure) -> tuple[list[float], np.ndarray]:
    """The page's box, and x and y of the longest line on it, in PDF points."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="pdf")
    content = buffer.getvalue()
    box = [float(x) for x in content.split(b"/MediaBox [")[1].split(b"]")[0].split()]
    longest: list[list[float]] = []
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL):
        with contextlib.suppress(zlib.error):  # a font is no drawing
            text = zlib.decompress(stream).decode("latin1")
            for run in re.findall(r"(?:[\d.]+ [\d.]+ [ml]\n)+", text):
                line = [[float(x) for x in point.split()[:2]] for point in run.splitlines()]
                longest = max(longest, line, key=len)
    return box, np.unique(longest, axis=0).T


@pytest.mark.parametrize(("speed", "gain"), [(25, 10), (50, 5), (25, 20)])
def test_the_pdf_is_to_scale_in_its_own_points(speed: int, gain: int) -> None:
    """In points of 1/72 inch, as a printer takes them."""
    signal = flat(fs=100.0)
    signal[0, 1::2] = 0.5  # a zigzag, of which the writer leaves out no point
    figure = plot_ecg(Record(signal, fs=100.0), layout="12x1", speed=speed, gain=gain)
    box, (x, y) = pdf_box_and_longest_line(figure)
    page = [0, 0, WIDTHS[speed] * 72 / 25.4, HEIGHTS[gain][1] * 72 / 25.4]
    assert box == pytest.approx(page, abs=0.01)
    assert len(x) == 1000
    assert np.diff(x) * 25.4 / 72 == pytest.approx(np.full(999, speed / 100), abs=1e-4)
    assert np.abs(np.diff(y)) * 25.4 / 72 == pytest.approx(np.full(999, 0.5 * gain), abs=1e-4)


@pytest.mark.parametrize("rhythm", [None, True, False])
@pytest.mark.parametrize("layout", ["3x4", "6x2"])
def test_every_lead_is_drawn_once_at_its_time(layout: str, rhythm: bool | None) -> None:
    figure = plot_ecg(step_record(), layout=layout, rhythm=rhythm)
    seconds = 2.5 if layout == "3x4" else 5.0
    names = [line.get_gid() for line in figure.axes[0].lines if " s" in (line.get_gid() or "")]
    has_rhythm = layout == "3x4" if rhythm is None else rhythm
    expected = [
        f"{lead} {at * seconds:g}-{(at + 1) * seconds:g} s"
        for at in range(round(10 / seconds))
        for lead in STANDARD_LEADS[at * round(1.2 * seconds) : (at + 1) * round(1.2 * seconds)]
    ]
    assert names == expected + ["II 0-10 s"] * has_rhythm
    # Rows stand below each other, on lines of the grid.
    lines = [
        strip(figure, name)[1].min() for name in expected if name.startswith(("I ", "II ", "III "))
    ]
    assert lines == sorted(lines, reverse=True)
    assert [line % 1 for line in lines] == pytest.approx([0.0] * len(lines))


def test_twelve_rows_of_ten_seconds() -> None:
    figure = plot_ecg(step_record(), layout="12x1")
    heights = [strip(figure, f"{lead} 0-10 s")[1].min() for lead in STANDARD_LEADS]
    gaps = -np.diff(heights)
    assert gaps.min() >= 30
    assert gaps.max() <= 31
    assert heights[-1] > 14.0


def test_beats_are_named_along_the_lowest_row() -> None:
    found = measured(1000, 3000, is_premature=np.array([True, True]))
    for layout, names in (
        ("6x2", ["aVF 0-5 s", "V6 5-10 s"]),
        ("12x1", ["V6 0-10 s"]),
        ("3x4", ["II 0-10 s"]),
    ):
        figure = plot_ecg(Record(flat()), layout=layout, measurements=found)
        assert [words(figure, f"{name} beat") for name in names] == [
            ["premature"] * (2 // len(names))
        ] * len(names)
        every = [text for text in figure.axes[0].texts if "beat" in (text.get_gid() or "")]
        assert len(every) == 2
        assert len(marks_mm(figure, f"{names[-1]} r_peak")) == 2 // len(names)


def test_dark_pages_are_dark_and_their_ink_is_light() -> None:
    record = step_record()
    dark, light = (
        pixels(plot_ecg(record, layout="6x2", theme=theme), dpi=60) for theme in ("dark", "light")
    )
    assert np.median(dark) < 60
    assert np.median(light) > 220
    for theme in THEMES.values():
        paper = _luminance(theme.paper)
        for ink in (theme.ink, theme.p, theme.qrs, theme.t):
            bright, dim = sorted((_luminance(ink), paper), reverse=True)
            # Of normal text, after the WCAG 2.
            assert (bright + 0.05) / (dim + 0.05) > 4.5


def _luminance(colour: str) -> float:
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_computed_leads_are_named_in_the_footer() -> None:
    ecg = read_ecg(np.random.default_rng(0).normal(size=(2, 500)), fs=100.0, leads=["I", "II"])
    footer = plot_ecg(ecg, layout="6x2").axes[0].texts[-1].get_text()
    assert "computed: III, aVR, aVL, aVF    not recorded: V1, V2, V3, V4, V5, V6" in footer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "4x3"}, "layout is '4x3'; known: 3x4, 6x2, 12x1"),
        ({"speed": 30}, "speed is 30; known: 25, 50"),
        ({"gain": 15}, "gain is 15; known: 5, 10, 20"),
        ({"theme": "pink"}, "theme is 'pink'; known: light, dark"),
        ({"layout": "12x1", "rhythm": True}, "12x1 shows ten seconds of every lead"),
    ],
)
def test_what_there_is_not_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot_ecg(Record(flat()), **options)  # type: ignore[arg-type]


def test_the_tool_draws_a_table_of_two_leads(root: Path, tmp_path: Path) -> None:
    table = tmp_path / "ecg.csv"
    table.write_text("II,I\n" + "".join(f"{at % 7 / 10},{at % 5 / 10}\n" for at in range(300)))
    page = tmp_path / "page.pdf"
    tool = [sys.executable, str(root / "tools/plot"), str(table), "--out", str(page)]
    failed = subprocess.run(tool, capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "does not say its rate: give fs= in Hz" in failed.stderr
    options = ["--fs", "100", "--layout", "6x2", "--rhythm", "--speed", "50", "--theme", "dark"]
    done = subprocess.run([*tool, *options], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{page}\n"), done.stderr
    box = page.read_bytes().split(b"/MediaBox [")[1].split(b"]")[0].split()
    assert float(box[2]) == pytest.approx(WIDTHS[50] * 72 / 25.4, abs=0.01)
    wrong = [*tool, "--fs", "100", "--layout", "12x1", "--rhythm", "--overwrite"]
    refused = subprocess.run(wrong, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "leave out --rhythm" in refused.stderr
