"""The clinical page must be true to scale on paper, and the other figures must show their data."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from esi_fast.leads import STANDARD_LEADS
from esi_fast.plot import plot_ecg, plot_forest, plot_training
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


def test_a_second_is_25_mm_and_a_millivolt_10_mm_in_axis_units():
    signal = flat()
    signal[1, 2500:3000] = 1.0
    x, y = strip(plot_ecg(Record(signal)), "II 0-10 s")
    assert x[1000] - x[500] == pytest.approx(25.0, abs=1e-9)
    assert x[-1] - x[0] == pytest.approx(250.0 - 25.0 / 500, abs=1e-9)
    assert y[2700] - y[100] == pytest.approx(10.0, abs=1e-9)


def test_an_axis_unit_is_a_millimetre_of_the_figure():
    figure = plot_ecg(Record(flat()))
    width_mm, height_mm = figure.get_size_inches() * 25.4
    assert (width_mm, height_mm) == pytest.approx(PAGE_MM)
    ax = figure.axes[0]
    corner, shifted = ax.transData.transform([(20.0, 30.0), (21.0, 31.0)])
    assert shifted - corner == pytest.approx(np.full(2, figure.dpi / 25.4))


def test_the_rendered_page_is_to_scale():
    """Measured on pixels: at 254 dpi a millimetre is 10 of them."""
    signal = flat()
    signal[1, 3000:4000] = 1.0
    image = pixels(plot_ecg(Record(signal)), dpi=254)
    assert image.shape == (2100, 2970)
    rhythm = image[1500:2000] < 100
    # The trace begins 26 mm from the left edge; look at 2 s and at 7 s.
    low, high = (np.flatnonzero(rhythm[:, 260 + second * 250]).mean() for second in (2, 7))
    assert low - high == pytest.approx(100.0, abs=1.0)
    # The step up and the step down are two seconds, 50 mm, apart.
    tall = np.flatnonzero(rhythm.sum(axis=0) > 90)
    tall = tall[tall > 300]  # the calibration pulse stands left of the trace
    assert tall.max() - tall.min() == pytest.approx(500.0, abs=5.0)


def test_the_pdf_page_is_a4_across():
    buffer = io.BytesIO()
    plot_ecg(Record(flat())).savefig(buffer, format="pdf")
    box = buffer.getvalue().split(b"/MediaBox [")[1].split(b"]")[0].split()
    expected = [0.0, 0.0, PAGE_MM[0] / 25.4 * 72, PAGE_MM[1] / 25.4 * 72]
    assert [float(number) for number in box] == pytest.approx(expected, abs=0.01)


def test_the_grid_has_a_line_every_millimetre_and_a_bold_one_every_five():
    ax = plot_ecg(Record(flat())).axes[0]
    for name, step in (("grid-fine", 1.0), ("grid-bold", 5.0)):
        (grid,) = [c for c in ax.collections if c.get_gid() == name]
        segments = np.array(grid.get_segments())
        for axis in (0, 1):
            upright = segments[segments[:, 0, axis] == segments[:, 1, axis]]
            positions = np.unique(upright[:, 0, axis])
            assert np.diff(positions) == pytest.approx(np.full(len(positions) - 1, step))
            assert np.ptp(positions) in (275.0, 160.0)


def test_the_calibration_pulse_is_a_millivolt_for_a_fifth_of_a_second_in_every_row():
    ax = plot_ecg(Record(flat())).axes[0]
    pulses = [np.array(line.get_data()) for line in ax.lines if line.get_gid() == "calibration"]
    assert len(pulses) == 4
    for x, y in pulses:
        top = x[y == y.max()]
        assert np.ptp(y) == pytest.approx(10.0)
        assert np.ptp(top) == pytest.approx(5.0)


def test_columns_stand_above_the_same_moment_of_the_rhythm_strip():
    signal = flat()
    for second in (1, 3, 6, 9):
        signal[:, second * 500] = 1.0
    figure = plot_ecg(Record(signal))
    x_rhythm, y_rhythm = strip(figure, "II 0-10 s")
    beats = x_rhythm[y_rhythm > y_rhythm.min() + 5]
    columns = ("I 0-2.5 s", "aVR 2.5-5 s", "V1 5-7.5 s", "V4 7.5-10 s")
    assert len(beats) == 4
    for name, beat in zip(columns, beats, strict=True):
        x, y = strip(figure, name)
        assert x[np.argmax(y)] == pytest.approx(beat)


def test_leads_are_found_by_name_in_any_order_and_spelling():
    names = ("I", "II", "III", "AVR", "avF", "aVL", "V6", "V5", "V4", "V3", "V2", "V1")
    signal = flat()
    signal[:, ::2] = np.arange(1, 13, dtype=np.float32)[:, None] / 10
    figure = plot_ecg(Record(signal, leads=names))
    for name, expected_mm in (("aVL 2.5-5 s", 6.0), ("aVF 2.5-5 s", 5.0), ("V1 5-7.5 s", 12.0)):
        assert np.ptp(strip(figure, name)[1]) == pytest.approx(expected_mm, abs=1e-5)


def test_an_offset_is_removed_and_nothing_else():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(12, 5000)).astype(np.float32)
    plain, moved = (
        strip(plot_ecg(Record(s)), "V6 7.5-10 s") for s in (signal, signal + np.float32(4.0))
    )
    assert moved == pytest.approx(plain, abs=1e-4)
    drawn_mv = np.diff(plain[1]) / 10
    assert drawn_mv == pytest.approx(np.diff(signal[11, 3750:]).astype(float), abs=1e-6)


def test_missing_samples_are_gaps():
    signal = flat()
    signal[7, 2600:2700] = np.nan
    _, y = strip(plot_ecg(Record(signal)), "V2 5-7.5 s")
    assert np.flatnonzero(np.isnan(y)).tolist() == list(range(100, 200))


def test_a_short_record_leaves_the_rest_empty():
    figure = plot_ecg(Record(flat(seconds=4.0)))
    assert strip(figure, "aVF 2.5-5 s").shape == (2, 750)
    assert strip(figure, "V4 7.5-10 s").shape == (2, 0)
    assert strip(figure, "II 0-10 s").shape == (2, 2000)


def test_a_long_record_shows_its_first_ten_seconds_and_says_so():
    figure = plot_ecg(Record(flat(seconds=30.0, fs=250.0), fs=250.0))
    assert strip(figure, "II 0-10 s").shape == (2, 2500)
    assert any("first 10 s of 30 s" in text.get_text() for text in figure.axes[0].texts)


def test_the_footer_names_speed_gain_rate_and_filter():
    texts = [text.get_text() for text in plot_ecg(Record(flat())).axes[0].texts]
    footer = texts[-1]
    for part in ("25 mm/s", "10 mm/mV", "500 Hz", "no filter applied"):
        assert part in footer


def test_a_lead_that_was_not_recorded_is_named_and_not_drawn():
    signal = flat()
    signal[10] = np.nan
    figure = plot_ecg(Record(signal))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "V5 (not recorded)" in texts
    assert "not recorded: V5" in texts[-1]
    assert not [line for line in figure.axes[0].lines if (line.get_gid() or "").startswith("V5")]


def test_a_huge_deflection_ends_at_the_edge_of_the_grid():
    signal = flat()
    signal[:, 2600:2604] = 50.0
    image = pixels(plot_ecg(Record(signal)), dpi=127)
    above = image[: round((PAGE_MM[1] - GRID_TOP_MM - 1) * 5)]
    assert above.min() > 250
    # It does run through the row above: V2's artefact crosses V1's row up to the grid's top.
    just_inside = image[round((PAGE_MM[1] - GRID_TOP_MM + 1) * 5)]
    assert just_inside.min() < 100


def test_title_and_caption_are_shown_verbatim():
    figure = plot_ecg(Record(flat()), title="$5 & $6", caption="word " * 400)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "$5 & $6" in texts
    (caption,) = [text for text in texts if text.startswith("word")]
    assert caption.endswith("…")
    assert caption.count("\n") == 4
    pixels(figure, dpi=40)


def test_the_title_is_the_records_name_by_default():
    texts = [t.get_text() for t in plot_ecg(Record(flat(), path="a/b/40000001")).axes[0].texts]
    assert "40000001" in texts


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (Record(np.zeros((12, 10, 1))), r"not \(leads, samples\)"),
        (Record(np.zeros((3, 10))), "of 12 leads"),
        (Record(flat(), fs=0.0), "fs must be positive"),
    ],
)
def test_a_malformed_record_is_refused(record, message):
    with pytest.raises(ValueError, match=message):
        plot_ecg(record)


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


def test_marks_stand_on_the_trace_at_their_samples():
    signal = flat()
    signal[:] = np.sin(np.arange(5000) / 40.0)
    figure = plot_ecg(Record(signal), measurements=measured(3000))
    for mark, offset in BEAT.items():
        x_mm = 26.0 + (3000 + offset) / 500 * 25
        for name in ("V2 5-7.5 s", "II 0-10 s"):
            ((x, y),) = marks_mm(figure, f"{name} {mark}")
            trace_x, trace_y = strip(figure, name)
            assert x == pytest.approx(x_mm, abs=1e-9)
            assert y == pytest.approx(np.interp(x_mm, trace_x, trace_y), abs=1e-6)
        # The first column shows another time.
        assert marks_mm(figure, f"II 0-2.5 s {mark}").size == 0


def test_a_strip_shows_the_marks_of_its_own_time_only():
    # The beat's T lies beyond the column's last sample, 1249; 1250 is the next column's first.
    edge = measured(1249, 1250)
    figure = plot_ecg(Record(flat()), measurements=edge)
    for name, samples in (("I 0-2.5 s", [1249]), ("aVR 2.5-5 s", [1250])):
        x = marks_mm(figure, f"{name} r_peak")[:, 0]
        assert x == pytest.approx([26.0 + sample / 20 for sample in samples])
    assert marks_mm(figure, "I 0-2.5 s t_peak").size == 0
    assert len(marks_mm(figure, "aVR 2.5-5 s t_peak")) == 2
    assert len(marks_mm(figure, "II 0-10 s r_peak")) == 2


def test_marks_beyond_a_short_record_or_on_missing_samples_are_not_drawn():
    signal = flat(seconds=4.0)
    signal[:, 1500:1600] = np.nan
    figure = plot_ecg(Record(signal), measurements=measured(700, 1550, 1950))
    # 1950's T would lie past the end.
    assert marks_mm(figure, "II 0-10 s t_end")[:, 0] == pytest.approx([26 + 870 / 20, 26 + 86.0])
    ticks = marks_mm(figure, "II 0-10 s qrs_onset")[:, 0]
    assert ticks == pytest.approx([26 + 678 / 20, 26 + 1928 / 20])


def test_an_absent_mark_draws_nothing():
    absent = dict.fromkeys(BEAT, np.array([-1, -1]))
    found = measured(1000, 2000, fiducials=dict.fromkeys(STANDARD_LEADS, absent), common=absent)
    marked, plain = (plot_ecg(Record(flat()), measurements=m).axes[0] for m in (found, None))
    assert len(marked.lines) == len(plain.lines)
    assert len(marked.collections) == len(plain.collections)


def test_a_lead_that_was_not_measured_or_not_recorded_is_not_marked():
    signal = flat()
    signal[[1, 10]] = np.nan
    leads = tuple(lead for lead in STANDARD_LEADS if lead != "V4")
    spikes = np.array([4000])
    found = measured(4000, leads=leads, is_wide=np.array([True]), pacing_spikes=spikes)
    figure = plot_ecg(Record(signal), measurements=found)
    counts = [len(marks_mm(figure, f"{lead} 7.5-10 s r_peak")) for lead in ("V4", "V5", "V6")]
    assert counts == [0, 0, 1]
    for kind in ("r_peak", "beat", "pacing spikes"):
        assert marks_mm(figure, f"II 0-10 s {kind}").size == 0


def test_the_rhythm_strip_names_unusual_beats_blocked_p_and_spikes():
    found = measured(
        500, 1500, 2500, 3500,
        is_premature=np.array([False, True, False, False]),
        is_wide=np.array([False, True, True, False]),
        is_paced=np.array([False, False, False, True]),
        blocked_p=np.array([1900, 9000]), pacing_spikes=np.array([3478, -1]),
    )  # fmt: skip
    figure = plot_ecg(Record(flat()), measurements=found)
    assert words(figure, "II 0-10 s beat") == ["premature\nwide", "wide", "paced"]
    x, y = marks_mm(figure, "II 0-10 s beat").T
    assert x == pytest.approx([101.0, 151.0, 201.0])
    ((x_blocked, y_blocked),) = marks_mm(figure, "II 0-10 s blocked P")
    assert x_blocked == pytest.approx(26 + 1900 / 20)
    ((x_spike, y_spike),) = marks_mm(figure, "II 0-10 s pacing spikes")
    assert x_spike == pytest.approx(26 + 3478 / 20)
    # Beats above the line, the others under it, all in the lowest 40 mm of the grid.
    line = strip(figure, "II 0-10 s")[1][0]
    assert 14.0 < y_spike < y_blocked < line < y.min() <= y.max() < 54.0


def test_the_values_of_a_clinical_page_are_printed_and_nan_is_a_dash():
    found = measured(
        500, heart_rate=82.6, pr=160.2, qrs=92.0, qt=380.4, qtc_bazett=446.4,
        p_axis=51.0, qrs_axis=-30.4, t_axis=40.0,
    )  # fmt: skip
    (line,) = [
        t.get_text()
        for t in plot_ecg(Record(flat()), measurements=found).axes[0].texts
        if t.get_text().startswith("Rate")
    ]
    assert line.split("     ") == [
        "Rate 83 bpm", "PR 160 ms", "QRS 92 ms", "QT/QTc (Bazett) 380/446 ms",
        "P-QRS-T axes 51  -30  40 deg",
    ]  # fmt: skip
    figure = plot_ecg(Record(flat()), measurements=Measurements(fs=500.0))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "Rate -- bpm     PR -- ms     QRS -- ms     QT/QTc (Bazett) --/-- ms" in "".join(texts)
    assert words(figure, "legend")[:3] == ["P", "QRS", "T"]
    assert "25 mm/s" in texts[-1]


def test_title_values_caption_page_footer_and_legend_do_not_overlap():
    figure = plot_ecg(
        Record(flat()), title="title", caption="word " * 400, measurements=measured(500)
    )
    figure.canvas.draw()
    scale = figure.dpi / 25.4
    boxes = {
        text.get_text()[:5]: text.get_window_extent()
        for text in figure.axes[0].texts
        if text.get_gid() in (None, "legend")
    }
    order = [boxes[start] for start in ("title", "Rate ", "word ", "25 mm", "ticks")]
    for above, below in pairwise(order):
        assert above.y0 >= below.y1
    assert order[2].y0 > GRID_TOP_MM * scale
    assert order[-1].y0 > 2.0 * scale
    legend = [boxes[start] for start in ("P", "QRS", "T", "ticks")]
    for left, right in pairwise(legend):
        assert left.x1 < right.x0


def test_marks_are_cut_at_the_edge_of_the_grid_like_the_trace():
    signal = flat()
    signal[:, 2990:3010] = 50.0
    image = pixels(plot_ecg(Record(signal), measurements=measured(3000)), dpi=127)
    above = image[35 * 5 : round((PAGE_MM[1] - GRID_TOP_MM - 0.5) * 5)]
    assert above.min() > 250


def test_measurements_of_another_rate_are_refused():
    with pytest.raises(ValueError, match="measurements are at 500 Hz and the record at 250 Hz"):
        plot_ecg(Record(flat(fs=250.0), fs=250.0), measurements=measured(500))


def test_neither_pyplot_nor_a_global_backend_is_touched():
    program = (
        "import sys, numpy as np\n"
        "from types import SimpleNamespace as S\n"
        "from esi_fast.leads import STANDARD_LEADS\n"
        "from esi_fast.plot import plot_ecg\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plot_ecg(S(signal=np.zeros((12, 100)), fs=100.0, leads=STANDARD_LEADS))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_real_recording_is_drawn_as_wfdb_reads_it(shared_data: Path):
    wfdb = pytest.importorskip("wfdb")
    from esi_fast.signal.records import read_record

    path = shared_data / "mimic-like/files/p1001/p10015709/s40000001/40000001"
    oracle = wfdb.rdrecord(str(path))
    lead = oracle.p_signal[:, oracle.sig_name.index("aVL")]
    x, y = strip(plot_ecg(read_record(path)), "aVL 2.5-5 s")
    assert np.diff(y) == pytest.approx(np.diff(lead[1250:2500]) * 10, abs=1e-4)
    assert np.diff(x) == pytest.approx(np.full(1249, 0.05))


def training_lines() -> list[dict[str, float]]:
    return [
        {"step": s, "loss": 5.0 / s, "contrastive": 3.0 / s, "captioning": 2.0 / s, "lr": 1e-3 * s}
        for s in range(1, 6)
    ]


def test_training_curves_are_the_logged_values(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in training_lines()))
    axes = plot_training(path).axes
    curves = {line.get_label(): np.array(line.get_data()) for line in axes[0].lines}
    assert set(curves) == {"total", "contrastive", "captioning"}
    assert curves["contrastive"].tolist() == [[1, 2, 3, 4, 5], [3 / s for s in range(1, 6)]]
    assert np.array(axes[1].lines[0].get_data())[1] == pytest.approx(
        [1e-3 * s for s in range(1, 6)]
    )


def test_a_step_repeated_after_resuming_counts_once():
    lines = [*training_lines(), {"step": 4, "loss": 9.0}]
    x, y = plot_training(lines).axes[0].lines[0].get_data()
    assert list(x) == [1, 2, 3, 4, 5]
    assert y[3] == 9.0


def test_unusable_training_metrics_are_refused(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2}\n{"step": 2, "lo')
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        plot_training(path)
    with pytest.raises(ValueError, match="no line"):
        plot_training([])
    with pytest.raises(ValueError, match="no 'step'"):
        plot_training([{"loss": 1.0}])
    with pytest.raises(FileNotFoundError):
        plot_training(tmp_path / "absent.jsonl")


def test_the_forest_plot_puts_every_estimate_in_its_row():
    values = np.array([[0.9, 0.8, 0.95], [np.nan] * 3, [0.6, 0.5, 0.7]])
    figure = plot_forest(["a", "b", "c"], {"trained": values})
    ax = figure.axes[0]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b", "c"]
    x, y = ax.lines[0].get_data()
    assert np.array(x)[[0, 2]].tolist() == [0.9, 0.6]
    assert list(y) == [0.0, 1.0, 2.0]
    segments = ax.collections[0].get_segments()
    assert segments[0].tolist() == [[0.8, 0.0], [0.95, 0.0]]
    with pytest.raises(ValueError, match=r"not \(2, 3\)"):
        plot_forest(["a", "b"], {"trained": values})
