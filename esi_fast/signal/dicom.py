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
# The time from the first waveform to the last, as a multiple of what was recorded: an absurd offset
# must not fill the memory.
_MOST_STRETCH = 32


def read_dicom(path: Path) -> tuple[npt.NDArray[np.float64], tuple[str, ...], float]:
    """The ECG of a file: ``(leads, samples)`` mV, the names and the rate in Hz.

    The original waveforms count, not derived ones such as a median beat. Where a file holds several
    of one rate, each stands at its time offset and samples are missing (NaN) elsewhere; of a lead
    that occurs twice the longer recording counts.

    Raises:
        FileNotFoundError: no such file.
        ModuleNotFoundError: ``pydicom`` is not installed.
        ValueError: it is no DICOM file, is damaged or holds no ECG, its waveforms differ in rate,
            or a channel has a unit that is no voltage.
    """
    try:
        import pydicom
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{path} needs pydicom, which is not installed: pip install 'esi-fast[io]'",
            name="pydicom",
        ) from None
    try:
        return _recording(pydicom.dcmread(path))
    except FileNotFoundError:
        raise
    except pydicom.errors.InvalidDicomError:
        raise ValueError(f"{path} is no DICOM file") from None
    except Exception as error:  # pydicom answers a malformed file with whatever happens to break
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read as a DICOM ECG: {text}") from None


def _recording(dataset: Any) -> tuple[npt.NDArray[np.float64], tuple[str, ...], float]:
    groups = [*dataset.get("WaveformSequence", ())]
    if not groups:
        raise ValueError("it holds no waveform")
    original = [
        at for at, group in enumerate(groups) if group.get("WaveformOriginality") != "DERIVED"
    ]
    if not original:
        raise ValueError("it holds derived waveforms only, no recording")
    rates = sorted({_number(groups[at], "SamplingFrequency") for at in original})
    if len(rates) > 1:
        raise ValueError(f"its waveforms have different rates, {rates[0]:g} to {rates[-1]:g} Hz")
    offsets = [_number(groups[at], "MultiplexGroupTimeOffset", 0.0) / 1e3 for at in original]
    parts = [
        (round((offset - min(offsets)) * rates[0]), name, samples)
        for offset, at in zip(offsets, original, strict=True)
        for name, samples in _channels(dataset, groups[at], at)
    ]
    # The longer one first: of a lead twice the first is kept.
    parts.sort(key=lambda part: -part[2].size)
    length = max(begin + samples.size for begin, _, samples in parts)
    if length > _MOST_STRETCH * sum(samples.size for _, _, samples in parts):
        raise ValueError(f"its waveforms lie {max(offsets) - min(offsets):g} s apart")
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
    definitions = [*group.ChannelDefinitionSequence]
    if len(definitions) != raw.shape[1]:
        raise ValueError(f"it defines {len(definitions)} channels of {raw.shape[1]}")
    padding = group.get("WaveformPaddingValue")
    missing = np.zeros(raw.shape, bool)
    if padding is not None:
        missing = raw == np.frombuffer(padding, raw.dtype)[0]
    channels = []
    for column, definition in enumerate(definitions):
        name = _lead_name(definition)
        factor = _number(definition, "ChannelSensitivity", 1.0)
        factor *= _number(definition, "ChannelSensitivityCorrectionFactor", 1.0)
        base = _number(definition, "ChannelBaseline", 0.0)
        units = definition.get("ChannelSensitivityUnitsSequence")
        if not units:
            raise ValueError(f"lead {name} has no unit (Channel Sensitivity Units Sequence)")
        samples = (raw[:, column] * factor + base) * millivolts_per_unit(units[0].CodeValue)
        channels.append((name, np.where(missing[:, column], np.nan, samples)))
    return channels


def _number(item: Any, keyword: str, absent: float | None = None) -> float:
    """A number of the file; ``absent`` where it is not there. One that is there has a value."""
    value = item.get(keyword, absent)
    if value is None:
        raise ValueError(f"it has no {keyword}")
    return float(value)


def _lead_name(definition: Any) -> str:
    sources = definition.get("ChannelSourceSequence")
    if not sources:
        raise ValueError("a channel has no source (Channel Source Sequence)")
    source = sources[0]
    code = str(source.get("CodeValue", ""))
    for prefix in _CODE_PREFIXES:
        if code.startswith(prefix) and (lead := _LEAD_OF_NUMBER.get(code.removeprefix(prefix))):
            return lead
    meaning = str(source.get("CodeMeaning", ""))
    # "Lead I (Einthoven)"
    return canonical_lead(meaning.partition("(")[0]) or meaning
