"""The compiled assessment against its restatement, and what a batch promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from quality_reference import peaks, reference
from test_quality import CHEST_EXCHANGES, FS, LIMB_EXCHANGES, clean, exchanged, sine

from esi_fast import _core
from esi_fast.signal.quality import assess, assess_records
from esi_fast.signal.records import read_record
from esi_fast.signal.resample import resample
from esi_fast.signal.simulate import simulate

Signal = NDArray[np.float32]


@pytest.fixture(params=_core.instruction_sets())
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    _core.use_instruction_set(request.param)
    yield request.param
    _core.use_instruction_set(_core.instruction_sets()[0])


def matches(found: Any, expected: Any) -> bool:
    """Equal, but for the rounding of levels."""
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(
            matches(found[key], value) for key, value in expected.items()
        )
    if isinstance(expected, float):
        return bool(found == pytest.approx(expected, rel=4e-3, abs=1e-3))
    return bool(found == expected)


def check(signal: Signal, fs: float, what: object = "") -> None:
    found, expected = assess(signal, fs), reference(signal, fs)
    assert matches(found, expected), (what, found, expected)


def stored(signal: Signal) -> NDArray[np.int16]:
    with np.errstate(invalid="ignore"):
        microvolts = (signal * np.float32(1000)).round().clip(-32767, 32767)
    return np.where(np.isnan(signal), -32768, microvolts).astype(np.int16)


def unstored(ecg: NDArray[np.int16]) -> Signal:
    signal = ecg.astype(np.float32) / np.float32(1000)
    signal[ecg == -32768] = np.nan
    return signal


def faulty(signal: Signal, fs: float, rng: np.random.Generator) -> Iterator[tuple[str, Signal]]:
    """The record with one fault after the other."""
    num_samples = signal.shape[1]
    lead, other = rng.choice(6, 2, replace=False)
    start, length = rng.integers(num_samples), rng.integers(1, num_samples)
    for name in (*LIMB_EXCHANGES, *CHEST_EXCHANGES[::4]):
        yield name, exchanged(signal, name)
    for name, value in (
        ("gap", np.nan), ("infinite", np.inf), ("absurd", -3e7), ("tall", 21.0), ("still", 0.0),
    ):  # fmt: skip
        changed = signal.copy()
        changed[lead, start : start + length] = value
        yield name, changed
    changed = signal.copy()
    changed[:, num_samples - length // 2 :] = np.nan
    yield "padded", changed
    changed = signal.copy()
    changed[rng.random(signal.shape) < 0.002] = np.nan
    yield "specks", changed
    yield "clipped", signal.clip(-0.6, 0.7)
    changed = signal.copy()
    changed[lead, start : start + round(rng.uniform(0.02, 0.04) * fs)] = changed[lead].max() + 1
    yield "plateau", changed
    changed = signal.copy()
    changed[[lead, other]] = changed[[other, lead]]
    yield "exchanged leads", changed
    changed = signal.copy()
    changed[lead] *= np.float32(rng.choice([-1.0, 0.4, 1.3]))
    yield "gain", changed
    changed = signal.copy()
    changed[lead] = np.roll(signal[other], num_samples // 3)
    yield "other lead", changed
    changed = signal.copy()
    changed[lead] = 0.25
    changed[other, :] *= 2
    yield "flat and gain", changed
    for hz, rms in ((50.0, 25.0), (60.3, 60.0), (55.0, 40.0), (0.2, 500.0)):
        yield f"{hz} Hz", signal + sine(hz, rms, num_samples, fs)
    yield "noise", (signal + rng.normal(0, 0.08, signal.shape)).astype(np.float32)
    yield "times 9", signal * np.float32(9)


@pytest.mark.parametrize("fs", [90.0, 100.0, 250.0, 257.0, 500.0, 1000.0])
def test_faults_are_found_as_specified(instruction_set: str, fs: float) -> None:
    rng = np.random.default_rng(7)
    for record in simulate(2, seed=11):
        signal = resample(record.signal, FS, fs).round(3)
        check(signal, fs)
        for name, changed in faulty(signal, fs, rng):
            check(changed, fs, name)


def test_recordings_are_judged_as_specified(shared_data: Path) -> None:
    rng = np.random.default_rng(8)
    for folder in ("mimic-like", "cinc2021", "ludb"):
        for path in sorted((shared_data / folder).rglob("*.hea"))[::12]:
            signal = read_record(path.with_suffix("")).signal
            check(signal, FS, path)
            faults = list(faulty(signal, FS, rng))
            name, changed = faults[rng.integers(len(faults))]
            check(changed, FS, (path, name))


@pytest.mark.parametrize("fs", [0.5, 100.0, 257.0, 360.0, 500.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_plateau_behind_the_last_segment_is_clipped(fs: float, sign: int) -> None:
    segment = 20 * max(1, round(0.01 * fs))
    enough = max(5, round(0.03 * fs))
    rng = np.random.default_rng(0)
    for rest in range(segment // 2, segment, max(1, segment // 7)):
        signal = rng.normal(0, 0.01, (12, 4 * segment + rest)).astype(np.float32)
        for start in (4 * segment - enough // 2, 4 * segment + 1):  # across its end, and behind it
            changed = signal.copy()
            changed[7, start : start + enough] = sign * 0.7
            check(changed, fs, (rest, start))
            if start + enough < signal.shape[1]:  # at the very end a run must be longer
                assert assess(changed, fs)["clipped"] == ["V2"]


@settings(deadline=None, max_examples=120)
@given(st.data())
def test_any_length_rate_and_gap_is_judged_as_specified(data: st.DataObject) -> None:
    fs = data.draw(st.sampled_from([0.5, 20.0, 99.0, 112.0, 134.5, 149.0, 150.0, 360.0, 500.0]))
    segment = 20 * max(1, round(0.01 * fs))
    num_segments = data.draw(st.one_of(st.integers(0, 3), st.integers(0, 60)))
    num_samples = max(1, num_segments * segment + data.draw(st.integers(-1, 1)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    leads = rng.normal(0, data.draw(st.sampled_from([0.01, 0.3, 4.0])), (8, num_samples))
    if data.draw(st.booleans()):
        leads = np.cumsum(leads, axis=1) / 10
    lead_i, lead_ii, *chest = leads
    augmented = -(lead_i + lead_ii) / 2, lead_i - lead_ii / 2, lead_ii - lead_i / 2
    signal = np.stack([lead_i, lead_ii, lead_ii - lead_i, *augmented, *chest]).astype(np.float32)
    for value in data.draw(st.lists(st.sampled_from([np.nan, np.inf, -np.inf, 2e6, 0.5, 25.0]))):
        start = data.draw(st.integers(0, num_samples - 1))
        rows = data.draw(st.sampled_from([slice(0, 12), slice(2, 3), slice(7, 8), slice(0, 6)]))
        signal[rows, start : start + data.draw(st.integers(1, num_samples))] = value
    check(signal, fs)
    ecg = stored(signal)
    assert assess_records(ecg[None], fs) == [assess(unstored(ecg), fs)]


def test_beats_are_where_they_are_specified() -> None:
    for seed in range(5):
        blocks = clean(seed).reshape(12, -1, 5).mean(axis=2)
        assert _core.find_beats(blocks, 100.0).tolist() == list(peaks(blocks.astype(float), 100.0))
    assert not len(_core.find_beats(blocks[:, :300], 100.0))


def test_every_int16_is_as_good_as_its_quotient(instruction_set: str) -> None:
    steps = np.arange(-32768, 32768, dtype=np.int16)
    ecg = np.resize(np.random.default_rng(3).permutation(steps) // 2, (9, 12, 7000))
    ecg[4:] = stored(np.stack([resample(clean(seed), FS, 700.0) for seed in range(5)]))
    ecg[5, 3, 100:300] = ecg[6, :, 5000:] = -32768
    ecg[7, 2, 4000:4100] = 32767
    for part in (ecg, np.sort(ecg, axis=2), ecg[:, :, :6999]):
        assert assess_records(part, 700.0) == [assess(unstored(one), 700.0) for one in part]


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_a_batch_is_each_record_alone_on_any_number_of_threads(dtype: type) -> None:
    rng = np.random.default_rng(4)
    signals = np.stack([changed for _, changed in faulty(clean(3), FS, rng)])
    batch = signals if dtype is np.float32 else stored(signals)
    alone = [assess_records(one[None], FS)[0] for one in batch]
    assert sum(map(bool, alone)) > 20
    for threads in (1, 2, 5, 0):
        assert assess_records(batch, FS, threads=threads) == alone
    apart = np.repeat(batch, 2, axis=2)[:, :, ::2]
    assert not apart.flags.c_contiguous
    assert assess_records(apart, FS) == alone
    assert assess_records(batch[:0], FS) == []


def test_other_batches_are_refused() -> None:
    signal = np.zeros((2, 12, 100), np.float32)
    for shape in ((12, 100), (2, 11, 100), (2, 12, 0)):
        with pytest.raises(ValueError, match=r"must be \(n, 12, T\) with T >= 1, not"):
            assess_records(np.zeros(shape, np.float32), FS)
    with pytest.raises(ValueError, match="float64: it must be float32"):
        assess_records(signal.astype(np.float64), FS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="threads must be 0"):
        assess_records(signal, FS, threads=-1)
    for fs in (0.4, np.nan, 2e6):
        with pytest.raises(ValueError, match="fs must be in"):
            assess_records(signal, fs)
    for wrong in (signal[0], signal.astype(np.float64), signal[:, :, ::2], signal[:, :11]):
        with pytest.raises(ValueError, match="signal must be"):
            _core.assess_records(wrong, FS, threads=1)
    for leads, rate in ((signal, 100.0), (signal[0], 49.0), (signal[0], np.nan)):
        with pytest.raises(ValueError, match="50 Hz or more"):
            _core.find_beats(leads, rate)
