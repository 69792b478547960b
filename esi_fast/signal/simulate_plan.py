"""What one simulated study will show: findings, geometry, waves, beats and wording."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esi_fast.signal.simulate_waves import (
    WAVE_SIGMAS,
    Dice,
    FloatArray,
    degrees,
    p_waves,
    pvc_waves,
    qrs_waves,
    rotation,
    t_and_st,
    voltage_scale,
)

# Projections of the cardiac vector (x left, y feet, z front) on I, II and V1..V6 of a usual chest.
_LEADS_8V = np.array(
    [
        [1.00, 0.00, 0.00],
        [0.50, 0.866, 0.00],
        [-0.40, 0.05, 0.90],
        [0.10, 0.10, 1.15],
        [0.55, 0.15, 1.00],
        [0.95, 0.20, 0.70],
        [1.05, 0.20, 0.25],
        [0.95, 0.20, -0.05],
    ],
    np.float32,
)
_STATEMENT_OF_FINDING = {
    "sinus_rhythm": "Sinus rhythm",
    "sinus_bradycardia": "Sinus bradycardia",
    "sinus_tachycardia": "Sinus tachycardia",
    "atrial_fibrillation": "Atrial fibrillation",
    "premature_ventricular_complexes": "Ventricular premature complexes",
    "first_degree_av_block": "First degree A-V block",
    "left_bundle_branch_block": "Left bundle branch block",
    "right_bundle_branch_block": "Right bundle branch block",
    "left_ventricular_hypertrophy": "Left ventricular hypertrophy",
    "anterior_st_elevation": "Anterior ST elevation, consider acute infarct",
    "inferior_st_elevation": "Inferior ST elevation, consider acute infarct",
    "prolonged_qt": "Prolonged QT interval",
    "low_qrs_voltage": "Low QRS voltages",
    "left_axis_deviation": "Left axis deviation",
    "right_axis_deviation": "Right axis deviation",
}
FINDINGS = tuple(_STATEMENT_OF_FINDING)


@dataclass(slots=True)
class Plan:
    """Everything about one study that is decided before its samples are computed.

    ``waves`` and ``pvc_waves``: rows as ``simulate_waves`` describes them. ``marks``: fiducial
    name -> seconds from the R peak.
    ``mixing_8S``: (8, 9), sources (x, y, z, f-waves, breathing, 2 drift, 2 mains) to leads.
    """

    subject: int
    age: int
    sex: str
    findings: tuple[str, ...]
    rhythm: str
    rate: float
    num_pvcs: int
    waves: FloatArray
    pvc_waves: FloatArray | None
    marks: dict[str, float]
    pvc_marks: dict[str, float]
    axes: dict[str, float]
    mixing_8S: FloatArray
    f_wave_mv: float
    breath_hz: float
    noise_mv: float

    def beat_times(
        self, rng: np.random.Generator, duration: float
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """R peaks in seconds, from before the start to after the end, and which are PVCs."""
        rr = 60.0 / self.rate
        num_beats = int((duration + 3.0) / rr) + 4
        if self.rhythm == "atrial_fibrillation":
            # Independent RR intervals with a coefficient of variation of about 0.22.
            intervals = rr * np.clip(rng.lognormal(-0.024, 0.22, num_beats), 0.6, 1.9)
        else:
            phase = 2 * np.pi * (self.breath_hz * rr * np.arange(num_beats) + rng.random())
            intervals = rr * (1 + 0.02 * np.sin(phase) + 0.008 * rng.standard_normal(num_beats))
        times = np.cumsum(intervals) - 1.5 - rr * rng.random()
        is_pvc = np.zeros(num_beats, bool)
        if self.num_pvcs:
            # Early by 30-40 % of the cycle, the next beat in its place: a full compensatory pause.
            usable = np.flatnonzero((times > 0.7) & (times < duration - 0.8))[::2]
            # At most one beat in four, so that the sinus rate remains to be measured.
            at_most = max(1, int(duration / rr) // 4)
            chosen = rng.choice(usable, min(self.num_pvcs, len(usable), at_most), replace=False)
            times[chosen] -= rng.uniform(0.30, 0.40) * np.diff(times)[chosen - 1]
            is_pvc[chosen] = True
        return times, is_pvc

    def f_wave(self, rng: np.random.Generator, time: FloatArray) -> FloatArray:
        """Fibrillatory waves, mV: 4 to 8 Hz, wandering in rate and height, with a harmonic."""
        rate = rng.uniform(4.5, 8.0)
        wander = rng.uniform(0.5, 1.5) * np.sin(2 * np.pi * rng.uniform(0.15, 0.5) * time)
        phase = (2 * np.pi * rate * time + wander + rng.uniform(0, 6.3)).astype(np.float32)
        height = 1 + 0.3 * np.sin(2 * np.pi * rng.uniform(0.2, 0.7) * time, dtype=np.float32)
        wave = np.sin(phase) + np.float32(0.35) * np.sin(2 * phase + np.float32(0.8))
        return np.asarray(np.float32(self.f_wave_mv) * height * wave, np.float32)

    def statements(self) -> tuple[str, ...]:
        """The report: rhythm first, then the other findings, then the summary line."""
        lines = [_STATEMENT_OF_FINDING[name] for name in FINDINGS if name in self.findings]
        if self.rhythm == "atrial_fibrillation" and self.rate > 110:
            lines[0] += " with rapid ventricular response"
        harmless = {"sinus_rhythm", "sinus_bradycardia", "left_axis_deviation"}
        if self.findings == ("sinus_rhythm",):
            lines.append("Normal ECG")
        else:
            lines.append("Borderline ECG" if set(self.findings) <= harmless else "Abnormal ECG")
        return tuple(lines)


def draw_plans(rng: np.random.Generator, num_patients: int, first_subject: int) -> list[Plan]:
    """The studies of ``num_patients`` patients, 1 to 5 each, in order."""
    plans: list[Plan] = []
    dice = Dice(rng)
    for subject in range(first_subject, first_subject + num_patients):
        patient = _Patient.draw(dice, subject)
        num_studies = int(dice.pick({"1": 0.4, "2": 0.25, "3": 0.15, "4": 0.1, "5": 0.1}))
        plans.extend(_draw_study(dice, patient, visit) for visit in range(num_studies))
    return plans


@dataclass(slots=True)
class _Patient:
    """What stays the same between the studies of one patient."""

    subject: int
    age: int
    sex: str
    leads_8V: FloatArray
    qrs_shape: FloatArray
    conduction: str
    chronic: tuple[str, ...]
    axis: float
    rhythm_prone: float

    @classmethod
    def draw(cls, dice: Dice, subject: int) -> _Patient:
        normal = dice.rng.standard_normal(8 + 24 + 2 + 12)
        geometry = _LEADS_8V * np.exp(0.10 * normal[:8, None]) + 0.06 * normal[8:32].reshape(8, 3)
        geometry[:2, 2] = 0.05 * normal[32:34]
        conduction = dice.pick(
            {"": 0.78, "left_bundle_branch_block": 0.11, "right_bundle_branch_block": 0.11}
        )
        voltage = dice.pick(
            {"": 0.76, "left_ventricular_hypertrophy": 0.13, "low_qrs_voltage": 0.11}
        )
        if conduction == "left_bundle_branch_block" and voltage == "left_ventricular_hypertrophy":
            voltage = ""  # voltage criteria do not hold in LBBB
        deviation = dice.pick({"": 0.74, "left_axis_deviation": 0.14, "right_axis_deviation": 0.12})
        low, high = {
            "": (-15.0, 75.0),
            "left_axis_deviation": (-75.0, -42.0),
            "right_axis_deviation": (105.0, 150.0),
        }[deviation]
        return cls(
            subject=subject,
            age=int(dice.uniform(20, 90)),
            sex=dice.pick({"male": 0.5, "female": 0.5}),
            leads_8V=geometry.astype(np.float32),
            qrs_shape=normal[34:].reshape(4, 3).astype(np.float32),
            conduction=conduction,
            chronic=tuple(name for name in (conduction, voltage, deviation) if name),
            axis=dice.uniform(low, high),
            rhythm_prone=dice.random(),
        )


def _draw_study(dice: Dice, patient: _Patient, visit: int) -> Plan:
    rhythm, rate = _rhythm(dice, patient)
    findings = {rhythm, *patient.chronic}
    left_block = patient.conduction == "left_bundle_branch_block"
    lvh = "left_ventricular_hypertrophy" in findings
    is_sinus = rhythm != "atrial_fibrillation"

    rr = 60.0 / rate
    pr = dice.uniform(0.130, min(0.190, 0.42 * rr))
    if is_sinus and rate < 110 and dice.random() < 0.16:
        findings.add("first_degree_av_block")
        pr = dice.uniform(0.225, min(0.340, 0.42 * rr))
    qrs = dice.uniform(0.075, 0.105)
    if patient.conduction:
        qrs = dice.uniform(0.135, 0.175) if left_block else dice.uniform(0.125, 0.155)
    # In AF the RR intervals that turn QT into QTc vary, so QTc stays further from its limit.
    qtc = dice.uniform(0.396, 0.435) if is_sinus else dice.uniform(0.394, 0.414)
    qtc += 0.02 if patient.conduction else 0.0
    if is_sinus and not patient.conduction and rate < 100 and dice.random() < 0.17:
        findings.add("prolonged_qt")
        qtc = dice.uniform(0.495, 0.570)
    qt = qtc * rr**0.5
    if is_sinus:
        qt = min(qt, rr - pr + 0.02)
    injury = dice.random()
    st = ""
    if not left_block and not lvh and injury < 0.24:
        st = "anterior_st_elevation" if injury < 0.12 else "inferior_st_elevation"
        findings.add(st)
    num_pvcs = int(dice.uniform(1, 5)) if rate < 120 and dice.random() < 0.15 else 0
    if num_pvcs:
        findings.add("premature_ventricular_complexes")

    depolarisation, r_offset = qrs_waves(patient.conduction, patient.qrs_shape, qrs, lvh=lvh)
    frontal = (depolarisation[:, 1:2] * depolarisation[:, 3:5]).sum(axis=0)
    axis = patient.axis + 3 * dice.rng.standard_normal()
    turn = math.radians(axis) - math.atan2(frontal[1], frontal[0])
    depolarisation[:, 3:5] = depolarisation[:, 3:5] @ rotation(turn).T
    depolarisation[:, 3:] *= voltage_scale(dice, patient.leads_8V, depolarisation, findings)

    marks = {"qrs_onset": -r_offset, "r_peak": 0.0, "qrs_end": qrs - r_offset}
    t_end = qt - r_offset
    # The T wave begins after the QRS even where a fast rate leaves it little room.
    t_sigma = min(0.088 * qt, (qt - qrs - 0.006) / (2 * WAVE_SIGMAS))
    t_peak = t_end - WAVE_SIGMAS * t_sigma
    marks |= {"t_onset": t_peak - WAVE_SIGMAS * t_sigma, "t_peak": t_peak, "t_end": t_end}
    low = "low_qrs_voltage" in findings
    repolarisation = t_and_st(dice, patient.conduction, marks, t_sigma, st, lvh=lvh, low=low)
    waves = [*depolarisation, *repolarisation]
    axes = {
        "qrs_axis": round(axis, 1),
        "t_axis": degrees(repolarisation[0][3:]),
    }
    if is_sinus:
        atrial, p_axis = p_waves(dice, pr, r_offset, marks)
        waves += atrial
        axes["p_axis"] = p_axis
    else:
        waves += [np.array([0.0, 0.02, 0.02, 0.0, 0.0, 0.0], np.float32)] * 2  # silent
    mixing = np.empty((8, 9), np.float32)
    mixing[:, :3] = patient.leads_8V
    # Fibrillatory waves point to the front right: they are largest in V1.
    mixing[:, 3] = patient.leads_8V @ np.array([-0.25, 0.45, 0.9], np.float32)
    # Breathing, slow drift (sine, cosine) and mains (sine, cosine), each lead its own share.
    mixing[:, 4:] = dice.rng.standard_normal((8, 5)) * (0.05, 0.035, 0.035, 0.0045, 0.0045)
    ectopic, pvc_marks = (
        pvc_waves(dice, from_right=patient.rhythm_prone < 0.5) if num_pvcs else (None, {})
    )
    return Plan(
        subject=patient.subject,
        age=min(patient.age + visit, 91),
        sex=patient.sex,
        findings=tuple(sorted(findings)),
        rhythm=rhythm,
        rate=rate,
        num_pvcs=num_pvcs,
        waves=np.stack(waves).astype(np.float32),
        pvc_waves=ectopic,
        marks=marks,
        pvc_marks=pvc_marks,
        axes=axes,
        mixing_8S=mixing,
        f_wave_mv=0.0 if is_sinus else (dice.uniform(0.05, 0.12)),
        breath_hz=(dice.uniform(0.2, 0.35)),
        noise_mv=(dice.uniform(0.006, 0.02)),
    )


def _rhythm(dice: Dice, patient: _Patient) -> tuple[str, float]:
    draw = 0.55 * patient.rhythm_prone + 0.45 * dice.random()
    if draw < 0.28:
        return "atrial_fibrillation", dice.uniform(62, 140)
    if draw < 0.42:
        return "sinus_bradycardia", dice.uniform(41, 56)
    if draw > 0.70:
        return "sinus_tachycardia", dice.uniform(104, 145)
    return "sinus_rhythm", dice.uniform(62, 97)
