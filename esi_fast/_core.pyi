"""
The compiled core: WFDB records and resampling (esi_fast.signal), shards (esi_fast.data).
"""

from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import typing

__all__: list[str] = [
    "Header",
    "QualityFindings",
    "RecordError",
    "RecordResult",
    "SignalSpec",
    "append_samples",
    "assess_records",
    "crc32c",
    "find_beats",
    "instruction_sets",
    "output_length",
    "parse_header",
    "probe_records",
    "read_batch",
    "read_header",
    "read_record",
    "read_samples",
    "resample",
    "samples_in",
    "to_millivolts",
    "use_instruction_set",
]

class RecordError(Exception):
    """
    args: (status, message), as in RecordResult.
    """

class SignalSpec:
    """
    One signal line of a header, defaults filled in.
    """
    @property
    def adc_resolution(self) -> int: ...
    @property
    def adc_zero(self) -> int: ...
    @property
    def baseline(self) -> int: ...
    @property
    def byte_offset(self) -> int: ...
    @property
    def checksum(self) -> int | None: ...
    @property
    def description(self) -> str: ...
    @property
    def file(self) -> str: ...
    @property
    def format(self) -> int: ...
    @property
    def gain(self) -> float: ...
    @property
    def initial_value(self) -> int | None: ...
    @property
    def missing(self) -> int | None: ...
    @property
    def samples_per_frame(self) -> int: ...
    @property
    def skew(self) -> int: ...
    @property
    def unit(self) -> str: ...

class Header:
    """
    A parsed header; num_samples is 0 where it states none.
    """
    @property
    def comments(self) -> tuple[str, ...]: ...
    @property
    def fs(self) -> float: ...
    @property
    def name(self) -> str: ...
    @property
    def num_samples(self) -> int: ...
    @property
    def num_segments(self) -> int: ...
    @property
    def num_signals(self) -> int: ...
    @property
    def segment_lengths(self) -> list[int]: ...
    @property
    def segments(self) -> tuple[str, ...]: ...
    @property
    def signals(self) -> list[SignalSpec]: ...

class RecordResult:
    """
    What became of one record of a batch.
    """
    @property
    def clipped(self) -> bool: ...
    @property
    def error(self) -> str: ...
    @property
    def fs(self) -> float: ...
    @property
    def num_samples(self) -> int: ...
    @property
    def source_leads(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def unresolved(self) -> tuple[str, ...]: ...

class QualityFindings:
    """
    What is wrong with a record; leads by number.
    """
    @property
    def chest_reversal(self) -> tuple[int, int] | None: ...
    @property
    def clipped(self) -> list[int]: ...
    @property
    def equations(self) -> list[tuple[int, float]]: ...
    @property
    def exchanged(self) -> tuple[int, int] | None: ...
    @property
    def flat(self) -> list[int]: ...
    @property
    def gain(self) -> float | None: ...
    @property
    def lead(self) -> int | None: ...
    @property
    def limb_reversal(self) -> str | None: ...
    @property
    def mains(self) -> list[tuple[int, float]]: ...
    @property
    def missing(self) -> list[tuple[int, float]]: ...
    @property
    def out_of_range(self) -> list[int]: ...
    @property
    def wander(self) -> list[tuple[int, float]]: ...

def append_samples(
    descriptor: typing.SupportsInt | typing.SupportsIndex,
    *,
    keys: collections.abc.Sequence[bytes],
    ecg: typing.Annotated[numpy.typing.ArrayLike, numpy.int16],
    npy_header: bytes,
    jsons: collections.abc.Sequence[bytes],
    captions: collections.abc.Sequence[bytes | None],
) -> list[tuple[bytes, bytes, int]]:
    """
    Append samples to a tar: ecg (n, leads, T) int16. For each the bytes before its ECG, those after it, and the CRC-32C of all.
    """

def assess_records(
    signal: numpy.ndarray,
    fs: typing.SupportsFloat | typing.SupportsIndex,
    *,
    threads: typing.SupportsInt | typing.SupportsIndex,
) -> list[QualityFindings | None]:
    """
    (n, 12, T) float32 mV or int16 uV: what is wrong with each record, None if nothing.
    """

def crc32c(data: bytes, before: typing.SupportsInt | typing.SupportsIndex = 0) -> int:
    """
    CRC-32C, going on from the CRC of what came before.
    """

def find_beats(
    leads: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    rate: typing.SupportsFloat | typing.SupportsIndex,
) -> numpy.typing.NDArray[numpy.int64]:
    """
    (L, N) mV, none flat: where the middle of each QRS complex is.
    """

def instruction_sets() -> list[str]:
    """
    What this CPU can run, best first.
    """

def output_length(
    num_samples: typing.SupportsInt | typing.SupportsIndex,
    fs_in: typing.SupportsFloat | typing.SupportsIndex,
    fs_out: typing.SupportsFloat | typing.SupportsIndex,
) -> int:
    """
    ceil(num_samples * fs_out / fs_in).
    """

def parse_header(text: bytes, *, strict: bool) -> Header:
    """
    Parse the bytes of a header.
    """

def probe_records(
    stems: collections.abc.Sequence[bytes],
    *,
    adc_units_per_mv: typing.SupportsFloat | typing.SupportsIndex,
    strict: bool,
    threads: typing.SupportsInt | typing.SupportsIndex,
    lead_of: collections.abc.Mapping[str, typing.SupportsInt | typing.SupportsIndex],
    millivolts: collections.abc.Mapping[str, typing.SupportsFloat | typing.SupportsIndex],
) -> list[RecordResult]:
    """
    Rate and length of each record, from headers and file sizes.
    """

def read_batch(
    stems: collections.abc.Sequence[bytes],
    rows: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    out: numpy.ndarray,
    *,
    fs: typing.SupportsFloat | typing.SupportsIndex,
    quality: str,
    nan_policy: str,
    adc_units_per_mv: typing.SupportsFloat | typing.SupportsIndex,
    verify: bool,
    strict: bool,
    threads: typing.SupportsInt | typing.SupportsIndex,
    lead_of: collections.abc.Mapping[str, typing.SupportsInt | typing.SupportsIndex],
    millivolts: collections.abc.Mapping[str, typing.SupportsFloat | typing.SupportsIndex],
) -> list[RecordResult]:
    """
    Read stems[i] into out[rows[i]]: (n, 12, T) float32 mV or int16 uV.
    """

def read_header(stem: bytes, *, strict: bool) -> Header:
    """
    Read STEM.hea.
    """

def read_record(stem: bytes, *, verify: bool, strict: bool) -> tuple[Header, float, numpy.ndarray]:
    """
    The header of a record, its rate, and its samples as stored, (num_signals, T) int16/int32.
    """

def read_samples(
    descriptors: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    begins: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    sizes: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    crcs: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    starts: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    out: numpy.ndarray,
    *,
    npy_header: bytes,
    num_samples: typing.SupportsInt | typing.SupportsIndex,
    normalize: str,
    nan_policy: str,
    threads: typing.SupportsInt | typing.SupportsIndex,
) -> list[str]:
    """
    Read the sample at each place into out (n, leads, crop) float32, cropped from starts on; what is wrong with each, '' if nothing.
    """

def resample(
    x: typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    fs_in: typing.SupportsFloat | typing.SupportsIndex,
    fs_out: typing.SupportsFloat | typing.SupportsIndex,
    quality: str,
    nan_policy: str,
) -> numpy.typing.NDArray[numpy.float32]:
    """
    (rows, T) -> (rows, ceil(T * fs_out / fs_in)) float32.
    """

def samples_in(
    format: typing.SupportsInt | typing.SupportsIndex,
    num_bytes: typing.SupportsInt | typing.SupportsIndex,
) -> int | None:
    """
    The most samples of a format that lie in so many bytes; None for other formats.
    """

def to_millivolts(
    samples: numpy.ndarray,
    *,
    rows: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    baselines: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex],
    steps: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex],
    missing: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex | None],
) -> numpy.typing.NDArray[numpy.float32]:
    """
    Rows of (num_signals, T) samples: (sample - baseline) * step, NaN where missing.
    """

def use_instruction_set(name: str) -> None:
    """
    Choose one of instruction_sets(); the best one is in use from the start.
    """
