"""What the clinical page shows of the measurements stands where it was measured."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from plot_fakes import (
    BEAT,
    GRID_TOP_MM,
    PAGE_MM,
    Record,
    flat,
    marks_mm,
    measured,
    pixels,
    strip,
    words,
)  # fmt: skip

from esi_fast.leads import STANDARD_LEADS
from esi_fast.plot import plot_ecg
from esi_fast.signal.measurements import Measurements


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
