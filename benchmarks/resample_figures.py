"""What resamplers do to signals whose every output is known: sines, and sums of them.

Frequencies are given as shares of Ny, the lower of the two Nyquist frequencies. Signals last 10 s;
gain, delay, spurs and SNR are taken from 2 s to 8 s, where no end of the signal reaches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

import esi_fast as ef

Real = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]
Resample = Callable[[Real, int, int], npt.NDArray[np.floating]]

RATES = ((500, 100), (500, 250), (500, 257), (500, 360), (257, 500), (1000, 500))
DURATION_S = 10
INTERIOR_S = (2, 8)
EDGE_S = 0.1
PASSBAND = 0.7
STOPBAND = 1.2


def resample_poly(x: Real, fs_in: int, fs_out: int) -> Real:
    """``scipy.signal.resample_poly`` with its defaults."""
    import scipy.signal

    ratio = Fraction(fs_out, fs_in)
    return scipy.signal.resample_poly(x, ratio.numerator, ratio.denominator, axis=-1)


def _soxr_hq(x: Real, fs_in: int, fs_out: int) -> Real:
    import soxr

    return soxr.resample(x.T, fs_in, fs_out, quality="HQ").T


def _fft(x: Real, fs_in: int, fs_out: int) -> Real:
    import scipy.signal

    return scipy.signal.resample(x, x.shape[-1] * fs_out // fs_in, axis=-1)


METHODS: dict[str, Resample] = {
    "esi_fast hq": lambda x, fs_in, fs_out: ef.resample(x, fs_in, fs_out, "hq"),
    "esi_fast scipy": lambda x, fs_in, fs_out: ef.resample(x, fs_in, fs_out, "scipy"),
    "scipy resample_poly": resample_poly,
    "soxr HQ": _soxr_hq,
    "scipy FFT": _fft,
}


@dataclass(frozen=True, slots=True)
class Figures:
    """One method at one pair of rates.

    Attributes:
        fs_in, fs_out: Hz.
        method: key of ``METHODS``.
        ripple_db: largest departure of the gain from 0 dB, 0.5 Hz to 0.7 Ny.
        gain_090_db: gain at 0.9 Ny.
        gain_105_db: what is left at 1.05 Ny: the alias of a sine there (down), or the image there
            of a sine at its mirror frequency (up).
        worst_spur_db: the largest alias of any frequency from 1.2 Ny (down), or everything but the
            sine itself for sines whose images lie from 1.2 Ny (up).
        delay_us: largest phase delay, 0.5 Hz to 0.7 Ny, microseconds.
        dc_error_percent: largest error on a constant, both ends included, % of it.
        edge_error_percent: RMS error in the first and last 0.1 s of random signals below 0.7 Ny
            that lie one standard deviation off zero, % of that deviation; median over signals.
        snr_db: of random signals below 0.7 Ny; median over signals.
    """

    fs_in: int
    fs_out: int
    method: str
    ripple_db: float
    gain_090_db: float
    gain_105_db: float
    worst_spur_db: float
    delay_us: float
    dc_error_percent: float
    edge_error_percent: float
    snr_db: float


def measure(method: str, fs_in: int, fs_out: int) -> Figures:
    """Measure one of ``METHODS`` at one pair of rates, Hz."""
    bench = _Bench(METHODS[method], fs_in, fs_out)
    passband = np.linspace(0.5, PASSBAND * bench.nyquist, 40)
    gain, _ = bench.response(passband)
    snr, edge = bench.random_signals(np.random.default_rng(0))
    return Figures(
        fs_in=fs_in,
        fs_out=fs_out,
        method=method,
        ripple_db=float(np.abs(_decibels(np.abs(gain))).max()),
        gain_090_db=bench.gain_db(0.9),
        gain_105_db=bench.leak_db(1.05),
        worst_spur_db=bench.worst_spur_db(),
        delay_us=float(np.abs(np.angle(gain) / (2 * np.pi * passband)).max() * 1e6),
        dc_error_percent=100 * bench.dc_error(),
        edge_error_percent=100 * edge,
        snr_db=snr,
    )


def measure_all() -> list[Figures]:
    """All methods at all rates."""
    return [measure(method, *rates) for rates in RATES for method in METHODS]


class _Bench:
    def __init__(self, resample: Resample, fs_in: int, fs_out: int) -> None:
        self.resample, self.fs_in, self.fs_out = resample, fs_in, fs_out
        self.nyquist = min(fs_in, fs_out) / 2
        self.time_in = np.arange(DURATION_S * fs_in) / fs_in
        self.time_out = np.arange(DURATION_S * fs_out) / fs_out
        self.interior = slice(INTERIOR_S[0] * fs_out, INTERIOR_S[1] * fs_out)

    def respond(self, frequencies: Real) -> Complex:
        """The interior of the response to exp(i w t), a row a frequency."""
        phase = 2 * np.pi * frequencies[:, None] * self.time_in
        # Cosine and sine together: no aliased frequency can hide in a phase.
        cosine = self.resample(np.cos(phase), self.fs_in, self.fs_out)[:, self.interior]
        sine = self.resample(np.sin(phase), self.fs_in, self.fs_out)[:, self.interior]
        return cosine.astype(np.float64) + 1j * sine.astype(np.float64)

    def response(self, frequencies: Real) -> tuple[Complex, Real]:
        """Complex gain at each frequency, and the amplitude of everything else."""
        found = self.respond(frequencies)
        phase = 2 * np.pi * frequencies[:, None] * self.time_out[self.interior]
        ideal = np.exp(1j * phase)
        gain = (found * ideal.conj()).mean(axis=1)
        return gain, _rms(found - gain[:, None] * ideal)

    def gain_db(self, share: float) -> float:
        gain, _ = self.response(np.array([share * self.nyquist]))
        return float(_decibels(np.abs(gain))[0])

    def leak_db(self, share: float) -> float:
        """The alias of a sine at ``share``, or the image at ``share`` of its mirror frequency."""
        if self.fs_out < self.fs_in:
            amplitude = _rms(self.respond(np.array([share * self.nyquist])))
        else:
            _, amplitude = self.response(np.array([(2 - share) * self.nyquist]))
        return float(_decibels(amplitude)[0])

    def worst_spur_db(self) -> float:
        if self.fs_out < self.fs_in:
            # Dense where the stopband begins: the largest lobe lies there.
            edge = np.linspace(STOPBAND, 1.5, 30)
            beyond = np.linspace(1.5, self.fs_in / 2 / self.nyquist, 30, endpoint=False)
            shares = np.concatenate([edge, beyond])
            shares = shares[shares < self.fs_in / 2 / self.nyquist]
            amplitude = _rms(self.respond(shares * self.nyquist))
        else:
            _, amplitude = self.response(np.linspace(0.5, (2 - STOPBAND) * self.nyquist, 60))
        return float(_decibels(amplitude).max())

    def dc_error(self) -> float:
        constant = self.resample(np.ones((1, len(self.time_in))), self.fs_in, self.fs_out)
        return float(np.abs(constant.astype(np.float64) - 1).max())

    def random_signals(self, rng: np.random.Generator) -> tuple[float, float]:
        """SNR in dB in the interior, and the relative RMS error at the ends; medians of 20."""
        shape = (20, 40, 1)
        omega = 2 * np.pi * rng.uniform(0.5, PASSBAND * self.nyquist, shape)
        phase = rng.uniform(0, 2 * np.pi, shape)
        amplitude = rng.uniform(0, 1, shape)
        scale = 1 / np.sqrt((amplitude**2).sum(axis=1) / 2)  # one standard deviation

        def at(time: Real) -> Real:
            return 1 + scale * (amplitude * np.sin(omega * time + phase)).sum(axis=1)

        ideal = at(self.time_out)
        error = self.resample(at(self.time_in), self.fs_in, self.fs_out) - ideal
        near = round(EDGE_S * self.fs_out)
        ends = np.concatenate([error[:, :near], error[:, -near:]], axis=1)
        interior = self.interior
        snr = _decibels(_rms(ideal[:, interior] - 1)) - _decibels(_rms(error[:, interior]))
        return float(np.median(snr)), float(np.median(_rms(ends)))


def _rms(x: npt.NDArray[np.generic]) -> Real:
    return np.sqrt((np.abs(x) ** 2).mean(axis=-1))


def _decibels(amplitude: Real) -> Real:
    # 1e-12 (-240 dB) is less than float64 leaves behind here.
    return 20 * np.log10(np.maximum(amplitude, 1e-12))


def table(figures: list[Figures]) -> str:
    """The figures as lines of text."""
    head = ("ripple dB", "0.9 Ny", "1.05 Ny", ">1.2 Ny", "delay us", "DC %", "edge %", "SNR dB")
    lines = [f"{'Hz':<11} {'method':<20}" + "".join(f"{name:>11}" for name in head)]
    for f in figures:
        rates = f"{f.fs_in}->{f.fs_out}"
        lines.append(
            f"{rates:<11} {f.method:<20}{f.ripple_db:>11.2e}{f.gain_090_db:>11.2f}"
            f"{f.gain_105_db:>11.1f}{f.worst_spur_db:>11.1f}{f.delay_us:>11.1e}"
            f"{f.dc_error_percent:>11.1e}{f.edge_error_percent:>11.2f}{f.snr_db:>11.1f}"
        )
    return "\n".join(lines)
