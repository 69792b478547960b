"""Records of several segments: each is read, verified and calibrated by its own header."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

from esi_fast.signal.record_error import encode_path, header_name, record_error
from esi_fast.signal.resample import _core
from esi_fast.signal.stored import Piece, StoredRecord

_MOST_GAP = 1000  # samples a record may span for one that its segments hold

# read(stem) of one segment
Read = Callable[[str], StoredRecord]


def read_segments(stem: str, header: _core.Header, strict: bool, read: Read) -> StoredRecord:
    """Join the segments of a record.

    A first segment of length 0 is a layout: it names the signals, and the others are matched by
    name. Without one all segments have the same signals in the same order. ``~`` is a gap.

    Args:
        stem: the record's path without suffix.
        header: its header, of several segments.
        strict: refuse segments whose headers stray from the published syntax.
        read: reads one segment.

    Raises:
        RecordError: a segment cannot be read, or does not fit the others.

    Source: https://physionet.org/physiotools/wag/header-5.htm.
    """

    def fail(message: str) -> _core.RecordError:
        return record_error("format", f"{header_name(stem)}: {message}")

    parts = list(zip(header.segments, header.segment_lengths, strict=True))
    if len(parts) != header.num_segments:
        raise fail(f"announces {header.num_segments} segments and names {len(parts)}")
    twice = [name for name, count in Counter(header.segments).items() if count > 1 and name != "~"]
    if twice:  # one small file would fill the memory
        raise fail(f"names segment {twice[0]} more than once")
    total = sum(length for _, length in parts)
    if header.num_samples not in (0, total):
        raise fail(f"states {header.num_samples} samples, its segments {total}")
    held = sum(length for name, length in parts if name != "~")
    if total > _MOST_GAP * held:
        raise fail(f"spans {total} samples, its segments hold {held}")
    folder = os.path.dirname(stem)  # noqa: PTH120
    names: list[str] | None = None
    has_layout = parts[0][0] != "~" and parts[0][1] == 0
    if has_layout:
        path = os.path.join(folder, parts.pop(0)[0])  # noqa: PTH118
        layout = _core.read_header(encode_path(path), strict=strict)
        names = [spec.description for spec in layout.signals]
    pieces, begin, factor = [], 0, 0
    for name, length in parts:
        if name != "~":
            segment = read(os.path.join(folder, name))  # noqa: PTH118
            frames = segment.header.num_samples or length
            rate = round(segment.fs / segment.header.fs)  # samples per frame
            if segment.header.fs != header.fs or rate != (factor or rate):
                raise fail(f"segment {name} is sampled at {segment.fs:g} Hz, unlike the others")
            factor = rate
            if frames != length or segment.num_samples != length * factor:
                raise fail(f"segment {name} holds {frames} samples, {length} are announced")
            own = list(segment.names)
            names = names or own
            if not has_layout and not _same(own, names):
                raise fail(f"segment {name} has other leads, or in another order")
            ((piece),) = segment.pieces
            pieces.append(
                Piece(
                    piece.stem,
                    begin * factor,
                    piece.digital,
                    piece.signals,
                    _rows(names, own) if has_layout else list(range(len(names))),
                )
            )
        begin += length
    if not pieces or names is None:
        raise fail("none of its segments holds samples")
    num_samples = begin * factor
    status = "joined: several segments"
    return StoredRecord(header, header.fs * factor, tuple(names), num_samples, pieces, status)


def _same(left: list[str], right: list[str]) -> bool:
    return [name.casefold() for name in left] == [name.casefold() for name in right]


def _rows(names: list[str], own: list[str]) -> list[int | None]:
    """The row of each name; of names that occur twice, the second is the second."""
    at = {}
    seen: Counter[str] = Counter()
    for row, name in enumerate(own):
        seen[name] += 1
        at[name, seen[name]] = row
    rows = []
    asked: Counter[str] = Counter()
    for name in names:
        asked[name] += 1
        rows.append(at.get((name, asked[name])))
    return rows
