"""The clinical page must be true to scale on paper."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from plot_fakes import GRID_TOP_MM, PAGE_MM, Record, flat, pixels, strip

from esi_fast.plot import plot_ecg


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
        (Record(np.zeros((2, 10)), leads=("I", "lead I")), "a lead occurs twice among I, lead I"),
    ],
)
def test_a_malformed_record_is_refused(record, message):
    with pytest.raises(ValueError, match=message):
        plot_ecg(record)


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
