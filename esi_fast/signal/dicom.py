"""ECGs in DICOM waveform files, through the ``pydicom`` package.

Standard: DICOM PS3.3, section C.10.9 (waveform module), and PS3.16, CID 3001 (ECG leads), whose
codes name the leads by MDC or SCP-ECG.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from esi_fast.leads import canonical_lead, millivolts_per_unit

# The numbers of the leads, after "2:" (MDC) and "5.6.3-9-" (SCP-ECG).
_LEAD_OF_NUMBER = {str(number + 2): f"V{number}" for number in range(1, 7)} | {
    "1": "I", "2": "II", "61": "III", "62": "aVR", "63": "aVL", "64": "aVF",
}  # fmt: skip
_CODE_PREFIXES = ("2:", "5.6.3-9-")


def read_dicom(path: Path) -> tuple[npt.NDArray[np.float64], tuple[str, ...], float]:
    """The ECG of a file: ``(leads, samples)`` mV, the names and the rate in Hz.

    The original waveforms count, not derived ones such as a median beat. Where a file holds several
    of one rate, each stands at its time offset and samples are missing (NaN) elsewhere; of a lead
    that occurs twice the longer recording counts.

    Raises:
        ModuleNotFoundError: ``pydicom`` is not installed.
        ValueError: it is no DICOM file or holds no ECG, its waveforms differ in rate, or a channel
            has a unit that is no voltage.
    """
    try:
        import pydicom
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{path} needs pydicom, which is not installed: pip install 'esi-fast[io]'",
            name="pydicom",
        ) from None
    try:
        dataset = pydicom.dcmread(path)
        groups = [*dataset.WaveformSequence]
    except pydicom.errors.InvalidDicomError:
        raise ValueError(f"{path} is no DICOM file") from None
    except AttributeError:
        raise ValueError(f"{path} holds no waveform: it is no DICOM ECG") from None
    original = [
        at for at, group in enumerate(groups) if group.get("WaveformOriginality") != "DERIVED"
    ]
    if not original:
        raise ValueError(f"{path} holds derived waveforms only, no recording")
    rates = sorted({float(groups[at].SamplingFrequency) for at in original})
    if len(rates) > 1:
        raise ValueError(
            f"{path}: its waveforms have different rates, {rates[0]:g} to {rates[-1]:g} Hz"
        )
    offsets = [float(groups[at].get("MultiplexGroupTimeOffset", 0.0)) / 1e3 for at in original]
    try:
        parts = [
            (round((offset - min(offsets)) * rates[0]), name, samples)
            for offset, at in zip(offsets, original, strict=True)
            for name, samples in _channels(dataset, groups[at], at)
        ]
    except (AttributeError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
    # The longer one first: of a lead twice the first is kept.
    parts.sort(key=lambda part: -part[2].size)
    length = max(begin + samples.size for begin, _, samples in parts)
    rows: dict[str, npt.NDArray[np.float64]] = {}
    for begin, name, samples in parts:
        if name not in rows:
            rows[name] = np.full(length, np.nan)
            rows[name][begin : begin + samples.size] = samples
    return np.stack([*rows.values()]), tuple(rows), rates[0]


def _channels(dataset: Any, group: Any, index: int) -> list[tuple[str, npt.NDArray[np.float64]]]:
    """The leads of one waveform: name and samples in mV, NaN where they are padding."""
    from pydicom.waveforms.numpy_handler import multiplex_array

    raw = multiplex_array(dataset, index)
    padding = group.get("WaveformPaddingValue")
    missing = np.zeros(raw.shape, bool)
    if padding is not None:
        missing = raw == np.frombuffer(padding, raw.dtype)[0]
    channels = []
    for column, definition in enumerate(group.ChannelDefinitionSequence):
        name = _lead_name(definition)
        factor = float(definition.get("ChannelSensitivity", 1.0))
        factor *= float(definition.get("ChannelSensitivityCorrectionFactor", 1.0))
        base = float(definition.get("ChannelBaseline", 0.0))
        units = definition.get("ChannelSensitivityUnitsSequence")
        if not units:
            raise ValueError(f"lead {name} has no unit (Channel Sensitivity Units Sequence)")
        samples = (raw[:, column] * factor + base) * millivolts_per_unit(units[0].CodeValue)
        channels.append((name, np.where(missing[:, column], np.nan, samples)))
    return channels


def _lead_name(definition: Any) -> str:
    source = definition.ChannelSourceSequence[0]
    code = str(source.get("CodeValue", ""))
    for prefix in _CODE_PREFIXES:
        if code.startswith(prefix) and (lead := _LEAD_OF_NUMBER.get(code.removeprefix(prefix))):
            return lead
    meaning = str(source.get("CodeMeaning", ""))
    # "Lead I (Einthoven)"
    return canonical_lead(meaning.partition("(")[0]) or meaning
