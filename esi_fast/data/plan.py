"""Which record goes into which shard: a pure function of the catalogue and the settings.

The catalogue is streamed once. Each record goes to the split that its patient's hash names; a shard
is a run of ``samples_per_shard`` consecutive records of a split.
"""

from __future__ import annotations

import csv
import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from esi_fast.data.settings import BuildSettings
from esi_fast.data.shard_index import MAX_KEY_LENGTH, SPLITS
from esi_fast.signal.catalogue import Catalogue, CatalogueEntry
from esi_fast.signal.wfdb_folder import SEGMENT

_CHUNK = 4096  # records looked at together: what is kept of all those before costs 8 bytes each
_PATIENT_COLUMNS = ("subject_id", "patient_id")
# No two ids in one line, no quotes, and no number that some program has rewritten.
_PATIENT = re.compile(r"(?![0-9]+\.[0-9]+$|[0-9.]+[eE][+-]?[0-9]+$)[\w.@:/+-]+")
_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a record is not written: a word to count by, and a line that names what is wrong."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Planned:
    """A catalogue entry, and why it cannot be written, if that shows before its signal is read."""

    entry: CatalogueEntry
    problem: Rejection | None


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """A shard to be.

    Attributes:
        sequence: its number among all shards, in the order in which they become complete.
        name: of its files, without suffix.
        split: train, val or test.
        records: what is to be in it.
    """

    sequence: int
    name: str
    split: str
    records: list[Planned]

    def digest(self) -> str:
        """Identity of its records, without their paths: a moved tree is still the same tree."""
        sha = hashlib.sha256()
        for planned in self.records:
            entry = planned.entry
            said = (entry.key, entry.subject_id, entry.study_id, str(entry.ecg_time),
                    str(entry.age), str(entry.sex), str(planned.problem), *entry.statements,
                    *entry.measurements)  # fmt: skip
            # Separated and counted: no other texts give the same bytes.
            lengths = ",".join(str(len(text)) for text in said)
            sha.update("\0".join((lengths, *said, "")).encode(errors="surrogatepass"))
            sha.update(array("d", entry.measurements.values()))
        return sha.hexdigest()


def split_of(subject_id: str, val_fraction: float, test_fraction: float) -> str:
    """The split of a patient: a pure function of the id, uniform over patients.

    Test patients are taken from the low end of the hash and validation patients from the high one,
    so that changing one fraction moves nobody in or out of the other.
    """
    digest = hashlib.sha256(subject_id.encode("utf-8")).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < test_fraction:
        return "test"
    return "val" if position >= 1 - val_fraction else "train"


def read_patients(path: Path) -> frozenset[str]:
    """The patients that a file names: one id a line, or a csv file's subject_id or patient_id.

    Blank lines and what follows ``#`` are left out, and ``15709.0`` is ``15709``. A csv file may be
    separated by commas, semicolons or tabs.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it names nobody, is a csv file without such a column, or has a line that is no
            id: nobody may slip through.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text: {error.reason}") from None
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1)
             if line.partition("#")[0].strip(" ")]  # fmt: skip
    if not lines:
        raise ValueError(f"{path} names no patients")
    first = lines[0][1]
    separator = next((one for one in ",;\t" if one in first), "")
    names = [name.strip(' "') for name in (first.split(separator) if separator else [first])]
    columns = [names.index(name) for name in _PATIENT_COLUMNS if name in names]
    if separator and not columns:
        raise ValueError(f"{path} has no column {' or '.join(_PATIENT_COLUMNS)}")
    if columns:
        cells = _column(path, lines, separator or ",", columns[0])
    else:
        cells = iter([(number, line.partition("#")[0]) for number, line in lines])
    patients = set()
    for number, cell in cells:
        patient = cell.strip().removesuffix(".0")
        if patient and not _PATIENT.fullmatch(patient):
            raise ValueError(f"{path} line {number} names no patient: {cell[:60]!r}")
        patients.add(patient)
    patients.discard("")  # a row of a csv file that names nobody
    if not patients:
        raise ValueError(f"{path} names no patients")
    return frozenset(patients)


def _column(
    path: Path, lines: list[tuple[int, str]], separator: str, column: int
) -> Iterator[tuple[int, str]]:
    """A column of a csv file, its header left out: line number and cell."""
    reader = csv.reader((f"{line}\n" for _, line in lines), delimiter=separator, strict=True)
    try:
        next(reader)
        for row in reader:
            yield lines[reader.line_num - 1][0], "".join(row[column : column + 1])
    except csv.Error as error:
        number = lines[reader.line_num - 1][0]
        raise ValueError(f"{path} cannot be read at line {number}: {error}") from None


def plan_shards(
    catalogue: Catalogue, settings: BuildSettings, excluded: Container[str] = ()
) -> Iterator[PlannedShard]:
    """The shards of a catalogue, in the order in which they fill up.

    Args:
        catalogue: the records.
        settings: of the build.
        excluded: patients (``subject_id``) whose records are not to be written.
    """
    pending: dict[str, list[Planned]] = {split: [] for split in SPLITS}
    numbers: Counter[str] = Counter()

    def shard(split: str) -> PlannedShard:
        records, pending[split] = pending[split], []
        name = f"{split}-{numbers[split]:06d}"
        numbers[split] += 1
        return PlannedShard(numbers.total() - 1, name, split, records)

    for planned in _judged(catalogue, excluded):
        patient = planned.entry.subject_id
        split = split_of(patient, settings.val_fraction, settings.test_fraction)
        pending[split].append(planned)
        if len(pending[split]) == settings.samples_per_shard:
            yield shard(split)
    for split in SPLITS:
        if pending[split]:
            yield shard(split)


def _judged(catalogue: Catalogue, excluded: Container[str]) -> Iterator[Planned]:
    seen = _SeenKeys()
    entries = iter(catalogue)
    while chunk := list(islice(entries, _CHUNK)):
        # A damaged row does not count: a sound one may still bring its record.
        sound = [entry.key for entry in chunk if not entry.error]
        repeated = iter(seen.add(sound))
        for entry in chunk:
            problem = None
            if entry.error:
                is_segment = entry.error.startswith(SEGMENT)
                problem = Rejection("segment" if is_segment else "row", entry.error)
            elif next(repeated):
                problem = Rejection("duplicate", "the key occurs twice in the catalogue")
            elif not _KEY.fullmatch(entry.key) or len(entry.key) > MAX_KEY_LENGTH:
                allowed = f"1 to {MAX_KEY_LENGTH} of A-Z a-z 0-9 _ -"
                problem = Rejection("key", f"the key is not {allowed}")
            elif entry.subject_id in excluded:
                problem = Rejection("excluded", f"patient {entry.subject_id} is excluded")
            yield Planned(entry, problem)


class _SeenKeys:
    """The keys so far, as sorted 64-bit hashes: 800,000 take 6.4 MB."""

    def __init__(self) -> None:
        self._hashes = np.empty(0, np.uint64)

    def add(self, keys: list[str]) -> list[bool]:
        """Whether each key was there before, among the earlier ones of this call included."""
        digests = b"".join(hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
        hashes = np.frombuffer(digests, np.uint64)
        new, first = np.unique(hashes, return_index=True)
        places = np.searchsorted(self._hashes, new)
        known = np.zeros(len(new), bool)
        inside = places < len(self._hashes)
        known[inside] = self._hashes[places[inside]] == new[inside]
        repeated = np.ones(len(keys), bool)
        repeated[first] = known
        self._hashes = np.insert(self._hashes, places[~known], new[~known])
        return list(map(bool, repeated))
