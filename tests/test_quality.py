"""Quality flags: each on a signal that has the fault, and how rare they are on real recordings."""

from __future__ import annotations

import csv
import json
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from esi_fast._core import find_beats
from esi_fast.leads import STANDARD_LEADS
from esi_fast.signal.quality import QualityFlags, assess
from esi_fast.signal.records import read_record
from esi_fast.signal.resample import resample
from esi_fast.signal.simulate import simulate

Signal = NDArray[np.float32]
FS = 500.0
LIMB_EXCHANGES = ("RA/LA", "RA/LL", "LA/LL", "RA/RL", "LA/RL", "RA/RL+LA/LL")
CHEST_EXCHANGES = tuple(f"V{a}/V{b}" for a, b in combinations(range(1, 7), 2))


def clean(seed: int = 2) -> Signal:
    return next(simulate(1, seed=seed)).signal


def sine(hz: float, rms_uv: float, num_samples: int = 5000, fs: float = FS) -> Signal:
    time = np.arange(num_samples) / fs
    return (np.sqrt(2) * rms_uv / 1000 * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def exchanged(signal: Signal, name: str) -> Signal:
    """The record had two electrodes (or two pairs) been exchanged, by the definitions of the leads.

    With an electrode of an arm on the right leg, which is as good as on the left one, the central
    terminal moves too; what is left between the legs is a slow noise of about 10 uV RMS.
    """
    lead_i, lead_ii, lead_iii = signal[:3]
    chest = signal[6:]
    noise = np.random.default_rng(len(name)).normal(0, 0.03, signal.shape[1] + 9)
    legs = np.convolve(noise, np.ones(10) / 10, "valid").astype(np.float32)
    if name in CHEST_EXCHANGES:
        order = np.arange(6)
        pair = [int(electrode[1]) - 1 for electrode in name.split("/")]
        order[pair] = order[pair[::-1]]
        return np.concatenate([signal[:6], chest[order]])
    new_i, new_ii, new_chest = {
        "RA/LA": (-lead_i, lead_iii, chest),
        "RA/LL": (-lead_iii, -lead_ii, chest),
        "LA/LL": (lead_ii, lead_i, chest),
        "RA/RL": (-lead_iii, legs, chest - lead_ii / 3),
        "LA/RL": (lead_ii, lead_ii + legs, chest - lead_iii / 3),
        "RA/RL+LA/LL": (legs, -lead_iii, chest - lead_ii / 3),
    }[name]
    return with_limbs(new_i, new_ii, new_chest)


def with_limbs(lead_i: Signal, lead_ii: Signal, chest: Signal) -> Signal:
    augmented = -(lead_i + lead_ii) / 2, lead_i - lead_ii / 2, lead_ii - lead_i / 2
    limbs = np.stack([lead_i, lead_ii, lead_ii - lead_i, *augmented])
    return np.concatenate([limbs, chest]).round(3).astype(np.float32)


def test_a_clean_record_has_no_flag() -> None:
    for seed in range(6):
        assert assess(clean(seed), FS) == {}, seed


def test_what_is_wrong_is_named() -> None:
    signal = clean()
    signal[7, 1000:1500] = np.nan
    signal[8, 2000:2050] = signal[8].max() + 2
    signal[10] *= 100
    assert assess(signal, FS) == {
        "missing": {"V2": 0.1},
        "clipped": ["V3"],
        "out_of_range": ["V5"],
    }
    signal[3] = 0.004
    assert assess(signal, FS)["flat"] == ["aVR"]
    signal[0] = np.nan
    found = assess(signal, FS)
    assert (found["flat"], found["missing"]["I"]) == (["I", "aVR"], 1.0)


def test_a_quiet_stretch_under_a_tall_r_is_not_clipped() -> None:
    signal = np.zeros((12, 1000), np.float32)
    signal += np.sin(np.arange(1000) / 7)[None].astype(np.float32) * 0.05
    signal[:, ::200] = 1.2
    signal[:, -30:] = -0.1
    assert "clipped" not in assess(signal, FS)


@pytest.mark.parametrize("fs", [100.0, 250.0, 500.0, 1000.0, 2000.0])
def test_a_plateau_is_clipped_by_its_duration(fs: float) -> None:
    signal = np.tile(sine(1.0, 1500, round(8 * fs), fs), (12, 1)).round(3)
    assert "clipped" not in assess(signal, fs)
    assert assess(np.clip(signal, -5, 1.6), fs)["clipped"] == list(STANDARD_LEADS)
    short = signal.copy()
    short[4, 1000 : 1000 + round(0.025 * fs)] = 3.0
    assert "clipped" not in assess(short, fs)


def test_a_last_value_held_to_fill_the_record_up_is_not_clipped() -> None:
    signal = clean()
    signal[9, -40:] = signal[9].max() + 0.2
    assert "clipped" not in assess(signal, FS)
    signal[9, -150:] = signal[9].max()
    assert assess(signal, FS)["clipped"] == ["V4"]


@pytest.mark.parametrize(("a", "b"), list(combinations(range(6), 2)))
def test_exchanged_limb_leads_are_told(a: int, b: int) -> None:
    signal = clean()
    signal[[a, b]] = signal[[b, a]]
    found = assess(signal, FS)
    assert found["limb_leads"]["exchanged"] == [STANDARD_LEADS[a], STANDARD_LEADS[b]]
    assert "lead" not in found["limb_leads"]
    assert "reversal" not in found  # the limb leads contradict each other: nothing follows


@pytest.mark.parametrize("lead", range(6))
@pytest.mark.parametrize("gain", [-1.0, 0.5, 1.3, 2.0])
def test_a_wrong_gain_is_told(lead: int, gain: float) -> None:
    signal = clean()
    signal[lead] *= np.float32(gain)
    found = assess(signal, FS)["limb_leads"]
    assert found["lead"] == STANDARD_LEADS[lead]
    assert found["gain"] == pytest.approx(gain, rel=0.05)
    # Each lead but III is absent from some equation, and that one holds.
    named = {name for name in found["equations"] if STANDARD_LEADS[lead] in _leads_of(name)}
    assert named == set(found["equations"])


def _leads_of(equation: str) -> set[str]:
    for mark in "=+-()/2":
        equation = equation.replace(mark, " ")
    return set(equation.split())


def test_a_lead_of_another_signal_is_told_without_a_gain() -> None:
    signal = clean()
    signal[2] = np.roll(signal[2], 333)
    found = assess(signal, FS)["limb_leads"]
    assert found["lead"] == "III"
    assert "gain" not in found
    signal[4] = signal[7]
    found = assess(signal, FS)["limb_leads"]
    assert set(found) == {"equations"}
    assert set(found["equations"]) == {"I+III=II", "aVL=(I-III)/2", "aVF=(II+III)/2"}


def test_equations_are_judged_where_all_limb_leads_have_samples() -> None:
    signal = clean()
    signal[1, 700:1800] = np.nan
    signal[4, 100:140] = np.nan
    assert set(assess(signal, FS)) == {"missing"}
    signal[5] *= 1.5
    assert assess(signal, FS)["limb_leads"]["lead"] == "aVF"
    signal[2] = 0.0
    found = assess(signal, FS)
    assert found["flat"] == ["III"]
    assert "limb_leads" not in found  # the equations with III are not judged; aVR's holds


@pytest.mark.parametrize("fs", [250.0, 360.0, 500.0, 1000.0])
@pytest.mark.parametrize("hz", [49.8, 50.0, 60.2])
def test_the_mains_level_is_measured(fs: float, hz: float) -> None:
    signal = resample(clean(), FS, fs)
    signal[6] += sine(hz, 40, signal.shape[1], fs)
    signal[7] += sine(hz, 12, signal.shape[1], fs)
    found = assess(signal, fs)
    assert set(found) == {"mains"}
    assert found["mains"] == {"V1": pytest.approx(40, rel=0.15)}


def test_muscle_noise_is_not_the_mains() -> None:
    rng = np.random.default_rng(3)
    signal = clean() + rng.normal(0, 0.1, (12, 5000)).astype(np.float32)
    assert "mains" not in assess(signal, FS)


@pytest.mark.parametrize("fs", [100.0, 500.0])
@pytest.mark.parametrize("hz", [0.1, 0.3])
def test_the_wander_level_is_measured(fs: float, hz: float) -> None:
    signal = resample(clean(), FS, fs)
    before = assess(signal, fs)
    signal[6] += sine(hz, 600, signal.shape[1], fs)
    signal[7] += sine(hz, 200, signal.shape[1], fs)
    signal[8] += 5.0
    assert before == {}
    assert assess(signal, fs) == {"wander": {"V1": pytest.approx(600, rel=0.15)}}


def test_levels_are_absent_where_they_cannot_be_told() -> None:
    signal = np.tile(sine(45.0, 500, 1000, 100.0), (12, 1))
    assert "mains" not in assess(signal, 100.0)
    drift = clean()[:, :1500] + np.linspace(-3, 3, 1500, dtype=np.float32)
    assert "wander" not in assess(drift, FS)


def test_noise_is_no_reversal() -> None:
    rng = np.random.default_rng(5)
    for trial in range(40):
        leads = rng.normal(0, 0.1, (8, 5000))
        if trial % 2:
            leads = np.cumsum(leads, axis=1) / 10
        assert "reversal" not in assess(with_limbs(leads[0], leads[1], leads[2:]), FS)


def test_a_mirrored_heart_is_not_a_reversal_of_the_arms() -> None:
    signal = exchanged(clean(), "RA/LA")
    assert assess(signal, FS)["reversal"] == ["RA/LA"]
    fading = np.array([1.0, 0.9, 0.75, 0.6, 0.5, 0.4], np.float32)
    signal[6:] = signal[6] * fading[:, None]
    assert "reversal" not in assess(signal, FS)


def test_beats_are_found(shared_data: Path) -> None:
    signal = read_record(shared_data / "ludb" / "data" / "1").signal
    blocks = signal.reshape(12, -1, 5).mean(axis=2)
    wfdb = pytest.importorskip("wfdb")
    marks = wfdb.rdann(str(shared_data / "ludb" / "data" / "1"), "ii")
    peaks = [at for at, symbol in zip(marks.sample, marks.symbol, strict=True) if symbol == "N"]
    found = find_beats(blocks, 100.0) * 5
    for peak in peaks:
        assert np.abs(found - peak).min() < 25


class Recordings:
    """Real recordings at 500 Hz, in ADC units where a header's gains are not to be trusted."""

    def __init__(self, root: Path) -> None:
        with (root / "mimic-like" / "machine_measurements.csv").open() as file:
            self.normal = {row["study_id"] for row in csv.DictReader(file) if _is_normal(row)}
        self.names: list[str] = []
        self.signals: list[Signal] = []
        for folder in ("mimic-like", "cinc2021", "ludb"):
            for path in sorted((root / folder).rglob("*.hea")):
                record = read_record(path.with_suffix(""))
                signal = record.signal
                if folder == "ludb":
                    signal = record.digital.astype(np.float32) / 1000
                self.names.append(path.stem)
                self.signals.append(signal.round(3))


def _is_normal(row: dict[str, str]) -> bool:
    return any(row[f"report_{i}"] == "Normal ECG" for i in range(18))


@pytest.fixture(scope="module")
def recordings(shared_data: Path) -> Recordings:
    return Recordings(shared_data)


def test_flags_are_rare_on_real_recordings(recordings: Recordings) -> None:
    found = [assess(signal, FS) for signal in recordings.signals]
    assert len(found) == 503
    names = recordings.names
    normal = [q for q, name in zip(found, names, strict=True) if name in recordings.normal]
    assert len(normal) > 200

    def share(flag: str, of: list[QualityFlags]) -> float:
        return sum(flag in quality for quality in of) / len(of)

    for flag, limit in (
        ("limb_leads", 0.0), ("reversal", 0.012), ("clipped", 0.01), ("out_of_range", 0.0),
        ("mains", 0.01), ("wander", 0.11),
    ):  # fmt: skip
        print(f"{flag}: {share(flag, found):.3f} of all, {share(flag, normal):.3f} of normal ones")
        assert share(flag, found) <= limit, flag
    assert share("reversal", normal) <= 0.01
    constant = [name for q, name in zip(found, names, strict=True) if "flat" in q]
    assert constant == ["JS20004", "JS20008"]


@pytest.mark.parametrize(
    ("name", "at_least"),
    [
        ("RA/LA", 0.82), ("RA/LL", 0.80), ("RA/RL", 0.92), ("LA/RL", 0.95), ("RA/RL+LA/LL", 0.92),
        ("V1/V2", 0.66), ("V2/V3", 0.76), ("V3/V4", 0.74), ("V4/V5", 0.50), ("V5/V6", 0.14),
        ("V1/V3", 0.84), ("V1/V6", 0.88), ("V2/V5", 0.88), ("V3/V6", 0.85),
    ],
)  # fmt: skip
def test_simulated_reversals_are_told(recordings: Recordings, name: str, at_least: float) -> None:
    """The share with the right name and no other; both arms on their legs: RA/RL+LA/LL."""
    signals = recordings.signals[::2]
    told = sum(
        assess(exchanged(signal, name), FS).get("reversal") == [name] for signal in signals
    ) / len(signals)
    print(f"{name}: {told:.3f}")
    assert told >= at_least


def test_exchanged_left_limbs_are_not_told(recordings: Recordings) -> None:
    """The docstring says so: it must change with the code."""
    signals = recordings.signals[::5]
    told = sum("reversal" in assess(exchanged(signal, "LA/LL"), FS) for signal in signals)
    assert told / len(signals) < 0.03


def test_every_ludb_record_with_gains_per_lead_is_flagged(shared_data: Path) -> None:
    paths = sorted((shared_data / "ludb" / "data").glob("*.hea"))
    for path in paths:
        record = read_record(path.with_suffix(""))
        assert assess(record.signal, record.fs)["limb_leads"]["equations"], path


def test_the_sampling_rate_makes_no_difference(recordings: Recordings) -> None:
    for signal in recordings.signals[::25]:
        flags = [
            {name: assess(resample(signal, FS, fs).round(3), fs).get(name)
             for name in ("flat", "limb_leads", "out_of_range")}
            for fs in (100.0, 257.0, 360.0, 1000.0)
        ]  # fmt: skip
        assert all(a == b for a, b in pairwise(flags))
        for fs in (100.0, 257.0, 1000.0):
            changed = resample(exchanged(signal, "V1/V5"), FS, fs)
            same = assess(exchanged(signal, "V1/V5"), FS).get("reversal")
            assert assess(changed, fs).get("reversal") == same


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_no_data_raises_or_warns(data: st.DataObject) -> None:
    num_samples = data.draw(st.integers(1, 3000))
    fs = data.draw(st.sampled_from([0.5, 20.0, 100.0, 128.0, 257.0, 500.0, 999.5, 2000.0, 1e6]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    scale = data.draw(st.sampled_from([0.0, 1e-3, 1.0, 1e3, 1e20, 1e38]))
    signal = (scale * rng.normal(0, 1, (12, num_samples)).clip(-3, 3)).astype(np.float32)
    for value in (np.nan, np.inf, -np.inf, 0.0):
        if data.draw(st.booleans()):
            lead = data.draw(st.integers(0, 11))
            start = data.draw(st.integers(0, num_samples - 1))
            signal[lead, start : start + data.draw(st.integers(1, num_samples))] = value
    given_signal = signal.copy()
    found = assess(signal, fs)
    np.testing.assert_array_equal(signal, given_signal)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert assess(signal, fs) == found
    infinite = [STANDARD_LEADS[i] for i in np.flatnonzero(np.isinf(signal).any(axis=1))]
    assert set(infinite) <= set(found.get("out_of_range", []))
    assert set(found.get("missing", {})) == {
        STANDARD_LEADS[i] for i in np.flatnonzero(np.isnan(signal).any(axis=1))
    }


def test_empty_signals() -> None:
    for num_samples in (1, 5000):
        nothing = np.full((12, num_samples), np.nan, np.float32)
        everywhere = dict.fromkeys(STANDARD_LEADS, 1.0)
        assert assess(nothing, FS) == {"flat": list(STANDARD_LEADS), "missing": everywhere}
        assert assess(nothing * 0 + np.float32(0), FS)["flat"] == list(STANDARD_LEADS)


@pytest.mark.parametrize("shape", [(11, 100), (12, 0), (12,), (1, 12, 100)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \(12, T\) with T >= 1, not"):
        assess(np.zeros(shape, np.float32), FS)


@pytest.mark.parametrize("fs", [0.0, -500.0, np.nan, np.inf])
def test_another_rate_is_refused(fs: float) -> None:
    with pytest.raises(ValueError, match="fs must be in"):
        assess(np.zeros((12, 100), np.float32), fs)
