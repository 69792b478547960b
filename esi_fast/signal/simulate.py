"""Simulated 12-lead ECGs with exact ground truth: test data and demo data, nothing else.

One moving cardiac vector (x to the patient's left, y to the feet, z to the front; the dipole model
of McSharry et al., IEEE TBME 2003, and Sameni et al., EURASIP 2007) is a sum of Gaussians, P, QRS,
ST and T, placed at every beat. Eight leads are projections of it; III, aVR, aVL and aVF follow from
I and II, so Einthoven's and Goldberger's relations hold in the stored numbers. A wave begins and
ends 2.5 standard deviations from its centre: the intervals are set first and the waves fitted into
them, so the ground truth is exact by construction.

These recordings resemble real ones only in what the findings are defined by. Nothing learned or
measured on them says how well a model reads real hearts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esi_fast.leads import STANDARD_LEADS
from esi_fast.signal.simulate_plan import Plan, draw_plans

ADC_UNITS_PER_MV = 200
PATIENTS_PER_CHUNK = 64
NOISE_BANK_EXTRA = 200_000
MAINS_HZ = 60.0
_ABSENT = -(1 << 40)  # far before any sample
TEMPLATE_START_S, TEMPLATE_END_S = -0.55, 0.75
FIDUCIALS = (
    "p_onset",
    "p_peak",
    "p_end",
    "qrs_onset",
    "r_peak",
    "qrs_end",
    "t_onset",
    "t_peak",
    "t_end",
)
FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SimulatedRecord:
    """One simulated study and its ground truth.

    Attributes:
        digital: (12, T) int16, standard lead order, 200 ADC units a millivolt, nothing missing.
        fs: sampling rate in Hz.
        subject_id, study_id: small integers; a subject keeps its dipole geometry across studies.
        age, sex: years; "male" or "female".
        findings: concept names, sorted.
        statements: the report, in the wording of the devices.
        measurements: the keys of ``signal.measurements``; what does not exist (PR in AF) is absent.
        fiducials: sample indices, one a beat, -1 where absent or outside; for all leads together.
        is_pvc: (num_beats,) bool.
    """

    digital: NDArray[np.int16]
    fs: float
    subject_id: int
    study_id: int
    age: int
    sex: str
    findings: tuple[str, ...]
    statements: tuple[str, ...]
    measurements: dict[str, float]
    fiducials: dict[str, NDArray[np.int64]]
    is_pvc: NDArray[np.bool_]

    @property
    def leads(self) -> tuple[str, ...]:
        """The standard leads, in their order."""
        return STANDARD_LEADS

    @property
    def signal(self) -> FloatArray:
        """(12, T) float32 in mV."""
        return self.digital.astype(np.float32) / np.float32(ADC_UNITS_PER_MV)


def simulate(
    num_records: int, *, seed: int = 0, fs: float = 500.0, duration: float = 10.0
) -> Iterator[SimulatedRecord]:
    """Simulated studies, patient after patient (1 to 5 studies each); equal seeds, equal records.

    Args:
        num_records: how many studies.
        seed: of everything random.
        fs: sampling rate in Hz, at least 100 (a QRS needs it).
        duration: seconds, at least 5 (a premature beat needs neighbours).

    Yields:
        ``SimulatedRecord``.

    Raises:
        ValueError: a number is out of its range.
    """
    if num_records < 1:
        raise ValueError(f"num_records is {num_records}; it must be at least 1")
    if not (100 <= fs < math.inf and 5 <= duration < math.inf):
        raise ValueError(f"fs is {fs} Hz and duration {duration} s; at least 100 Hz and 5 s")
    made = chunk = 0
    while made < num_records:
        rng = np.random.default_rng([seed, chunk])
        plans = draw_plans(rng, PATIENTS_PER_CHUNK, first_subject=chunk * PATIENTS_PER_CHUNK)
        for record in _synthesise(rng, plans[: num_records - made], made, fs, duration):
            yield record
            made += 1
        chunk += 1


def _synthesise(
    rng: np.random.Generator, plans: list[Plan], first_study: int, fs: float, duration: float
) -> Iterator[SimulatedRecord]:
    num_samples = round(fs * duration)
    grid = np.arange(round(TEMPLATE_START_S * fs), round(TEMPLATE_END_S * fs))
    grid_s = (grid / fs).astype(np.float32)
    # One bank of noise a chunk; every record takes a stretch of it from a random place.
    bank = rng.standard_normal(8 * num_samples + NOISE_BANK_EXTRA, dtype=np.float32)
    time = np.arange(num_samples, dtype=np.float32) / np.float32(fs)
    drift_and_mains = np.stack(
        [f(2 * np.pi * hz * time) for hz in (0.11, MAINS_HZ) for f in (np.sin, np.cos)]
    )
    sources = np.empty((9, num_samples), np.float32)
    sources[5:] = drift_and_mains
    eight, noise = np.empty((2, 8, num_samples), np.float32)
    for i, plan in enumerate(plans):
        r_times, is_pvc = plan.beat_times(rng, duration)
        r_samples = np.round(r_times * fs).astype(np.int64)
        sources[:4] = 0
        beat = _template(plan.waves, grid_s)
        ectopic = beat if plan.pvc_waves is None else _template(plan.pvc_waves, grid_s)
        for sample, wide in zip(r_samples, is_pvc, strict=True):
            template = ectopic if wide else beat
            start = sample + grid[0]
            low, high = max(0, start), min(num_samples, start + len(grid))
            if low < high:
                sources[:3, low:high] += template[:, low - start : high - start]
        if plan.f_wave_mv > 0:
            sources[3] = plan.f_wave(rng, time)
        phase = np.float32(rng.uniform(0, 2 * np.pi))
        np.sin(np.float32(2 * np.pi * plan.breath_hz) * time + phase, out=sources[4])
        np.matmul(plan.mixing_8S, sources, out=eight)
        start = rng.integers(NOISE_BANK_EXTRA)
        stretch = bank[start : start + 8 * num_samples].reshape(8, num_samples)
        np.multiply(stretch, np.float32(plan.noise_mv), out=noise)
        eight += noise
        digital = _twelve_leads(eight)
        fiducials, is_pvc = _fiducials(plan, r_samples, is_pvc, num_samples, fs)
        yield SimulatedRecord(
            digital=digital,
            fs=fs,
            subject_id=plan.subject,
            study_id=first_study + i,
            age=plan.age,
            sex=plan.sex,
            findings=plan.findings,
            statements=plan.statements(),
            measurements=_measurements(plan, fiducials, is_pvc, fs),
            fiducials=fiducials,
            is_pvc=is_pvc,
        )


def _template(waves: FloatArray, grid_s: FloatArray) -> FloatArray:
    """(3, W): one beat, from its waves (see ``simulate_waves``)."""
    z = grid_s - waves[:, 0:1]
    z /= np.where(z < 0, waves[:, 1:2], waves[:, 2:3])
    z *= z
    z *= np.float32(-0.5)
    beat: FloatArray = waves[:, 3:].T @ np.exp(z, out=z)
    return beat


def _twelve_leads(eight: FloatArray) -> NDArray[np.int16]:
    """I, II, V1..V6 in mV -> 12 leads in ADC units, the derived ones from the rounded I and II."""
    np.multiply(eight, np.float32(ADC_UNITS_PER_MV), out=eight)
    np.rint(eight, out=eight)
    units = eight.astype(np.int16)
    lead_i, lead_ii = units[0], units[1]  # a few mV: sums of three stay within int16
    digital = np.empty((12, units.shape[1]), np.int16)
    digital[:2] = units[:2]
    digital[2] = lead_ii - lead_i
    digital[3] = -((lead_i + lead_ii) >> 1)
    digital[4] = (2 * lead_i - lead_ii) >> 1
    digital[5] = (2 * lead_ii - lead_i) >> 1
    digital[6:] = units[2:]
    return digital


def _fiducials(
    plan: Plan,
    r_samples: NDArray[np.int64],
    is_pvc: NDArray[np.bool_],
    num_samples: int,
    fs: float,
) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.bool_]]:
    inside = (r_samples >= 0) & (r_samples < num_samples)
    r_samples, is_pvc = r_samples[inside], is_pvc[inside]
    offsets = [
        [round(marks[name] * fs) if name in marks else _ABSENT for name in FIDUCIALS]
        for marks in (plan.marks, plan.pvc_marks)
    ]
    indices = r_samples + np.array(offsets, np.int64)[is_pvc.astype(np.int64)].T
    indices[(indices < 0) | (indices >= num_samples)] = -1
    return dict(zip(FIDUCIALS, indices, strict=True)), is_pvc


def _measurements(
    plan: Plan, fiducials: dict[str, NDArray[np.int64]], is_pvc: NDArray[np.bool_], fs: float
) -> dict[str, float]:
    r_peak = fiducials["r_peak"]
    between_normal = ~(is_pvc[1:] | is_pvc[:-1])
    rr = np.diff(r_peak)[between_normal]
    found: dict[str, float] = {}
    if len(rr):
        rr.sort()  # np.median costs several times as much on a handful of values
        rr_ms = float(rr[(len(rr) - 1) // 2] + rr[len(rr) // 2]) * 500.0 / fs
        found = {"rr_interval": rr_ms, "heart_rate": 60000.0 / rr_ms}
    marks = {name: round(offset * fs) * 1000.0 / fs for name, offset in plan.marks.items()}
    if "p_onset" in marks:
        found["p_duration"] = marks["p_end"] - marks["p_onset"]
        found["pr"] = marks["qrs_onset"] - marks["p_onset"]
    found["qrs"] = marks["qrs_end"] - marks["qrs_onset"]
    found["qt"] = marks["t_end"] - marks["qrs_onset"]
    if "rr_interval" in found:
        rr_s = found["rr_interval"] / 1000.0
        found["qtc_bazett"] = found["qt"] / rr_s**0.5
        found["qtc_fridericia"] = found["qt"] / rr_s ** (1 / 3)
    return found | plan.axes
