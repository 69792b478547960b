"""What a build of shards is asked to do; a resumed or merged build must be asked the same."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from esi_fast import __version__
from esi_fast.cqa.caption import MAX_TOKENS
from esi_fast.data.token_count import TokenCounter
from esi_fast.leads import STANDARD_LEADS, lead_indices
from esi_fast.signal.measurements import HIGHEST_RATE, LOWEST_RATE

Longer = Literal["start", "center", "reject"]
Shorter = Literal["pad", "reject"]
# What can be kept of that which is rejected by default: there is a signal to keep.
KEEPABLE = ("checksum", "leads")
MAX_SAMPLES = 80_000_000  # a lead: twelve of them are below the 2 GiB that the index can count


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """How `esi_fast.data.shards.write_shards` makes samples of recordings.

    Attributes:
        fs: sampling rate of the shards, Hz.
        duration: length of each sample, s.
        longer: which part of a longer recording is taken, or ``"reject"``.
        shorter: ``"pad"`` a shorter recording with missing samples at its end, or ``"reject"``.
        leads: which of the standard leads are stored, in this order; a recording needs these only.
        samples_per_shard: records a tar.
        val_fraction: share of patients in the validation split.
        test_fraction: share of patients in the test split.
        measure: fill in from the signal the measurements that the catalogue lacks.
        keep_rejected: kinds of rejection to write all the same, flagged ``kept`` in their quality:
            ``checksum`` (the samples are not those that the header promises), ``leads`` (an absent
            lead is stored as missing, if any wanted lead is there).
        max_tokens: of a caption that is baked in; its findings are never cut.
        tokenizer: a text encoder's, by name or path, that counts them; "" counts words and marks.
    """

    fs: float = 500.0
    duration: float = 10.0
    longer: Longer = "start"
    shorter: Shorter = "pad"
    leads: tuple[str, ...] = STANDARD_LEADS
    samples_per_shard: int = 2048
    val_fraction: float = 0.05
    test_fraction: float = 0.05
    measure: bool = True
    keep_rejected: tuple[str, ...] = ()
    max_tokens: int = MAX_TOKENS
    tokenizer: str = ""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ValueError: a setting is out of range; it is named with its value.
        """
        for name in ("fs", "duration", "samples_per_shard"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}, it must be positive")
        if not 0.5 <= self.fs <= 1e6:
            raise ValueError(f"fs is {self.fs}, it must be in 0.5..1000000 Hz")
        if self.measure and not LOWEST_RATE <= self.fs <= HIGHEST_RATE:
            raise ValueError(
                f"fs is {self.fs} Hz, beyond what can be measured ({LOWEST_RATE} to "
                f"{HIGHEST_RATE} Hz); give --no-measure"
            )
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}, it must be 1 or more")
        if self.fs * self.duration > MAX_SAMPLES:
            raise ValueError(
                f"duration is {self.duration} s, at {self.fs:g} Hz it must be "
                f"{MAX_SAMPLES / self.fs:g} s or less"
            )
        if self.num_samples < 1:
            raise ValueError(f"duration {self.duration} s is less than one sample at {self.fs} Hz")
        val, test = self.val_fraction, self.test_fraction
        if not (val >= 0 and test >= 0 and val + test < 1):
            raise ValueError(
                f"val_fraction {val} and test_fraction {test} must be >= 0 and leave patients for "
                "training"
            )
        for name, value, known in (
            ("longer", self.longer, get_args(Longer)),
            ("shorter", self.shorter, get_args(Shorter)),
            *(("keep_rejected", kind, KEEPABLE) for kind in self.keep_rejected),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}, it must be one of {', '.join(known)}")
        unknown = [lead for lead in self.leads if lead not in STANDARD_LEADS]
        if unknown or not self.leads or len(set(self.leads)) < len(self.leads):
            raise ValueError(
                f"leads are {','.join(self.leads) or 'none'}, they must be some of "
                f"{','.join(STANDARD_LEADS)}, each once"
            )

    @property
    def num_samples(self) -> int:
        """Samples per lead, T."""
        return round(self.fs * self.duration)

    @property
    def lead_rows(self) -> list[int]:
        """The rows of (12, T) in the standard order that are stored."""
        return list(lead_indices(STANDARD_LEADS, self.leads))

    def as_json(self) -> dict[str, Any]:
        """The settings as index.json and the journal hold them.

        With what else decides on the bytes: the version of this package, whose readings of reports
        and measurements change, and the tokenizer's own digest.

        Raises:
            OSError, ModuleNotFoundError, ValueError: as `TokenCounter.sha256`, if there is one.
        """
        numbers = {"fs": float(self.fs), "duration": float(self.duration)}
        lists = {"leads": list(self.leads), "keep_rejected": sorted(self.keep_rejected)}
        settings = {"esi_fast": __version__} | asdict(self) | numbers | lists
        if self.tokenizer:
            settings["tokenizer_sha256"] = TokenCounter(self.tokenizer).sha256()
        return settings
