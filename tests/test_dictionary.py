"""A caption dictionary that was edited by hand, or is something else: the line is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from esi_fast.cqa.dictionary import CaptionDictionary

GOOD = {
    "statement": "sinus rhythm", "concept": "sinus_rhythm", "kind": "finding",
    "certainty": "definite", "text": "A P wave before each QRS.",
}  # fmt: skip


def write(folder: Path, *rows: object) -> Path:
    path = folder / "cqa.jsonl"
    path.write_text(
        "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    )
    return path


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", 3), ("text", None), ("concept", None), ("kind", ["finding"]), ("certainty", True),
        ("backend", None), ("model", 1), ("acuity", 7), ("degree", ["first"]),
        ("sources", "abc"), ("sources", None), ("paraphrases", [1]), ("territory", {"a": "b"}),
        ("checks", 5), ("failures", [None]),
    ],
)  # fmt: skip
def test_a_field_of_another_type_is_named(tmp_path: Path, field: str, value: object) -> None:
    path = write(tmp_path, GOOD, "", {**GOOD, "statement": "other", field: value})
    with pytest.raises(ValueError, match=rf"cqa\.jsonl, line 3: {field} is .*; write it again"):
        CaptionDictionary.load(path)


def test_what_may_be_absent_may_be_null(tmp_path: Path) -> None:
    (one,) = CaptionDictionary.load(write(tmp_path, {**GOOD, "acuity": None, "degree": None}))
    assert (one.acuity, one.degree, one.sources, one.backend) == (None, None, (), "statement")


def test_a_statement_that_is_described_twice_is_named_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, {**GOOD, "statement": "other"}, GOOD)
    with pytest.raises(ValueError, match=r"line 3: statement 'sinus rhythm' is described twice"):
        CaptionDictionary.load(path)


def test_endless_nesting_is_no_description(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cqa\.jsonl, line 1: not JSON"):
        CaptionDictionary.load(write(tmp_path, "[" * 100_000))


def test_it_is_saved_into_a_regular_file_only(tmp_path: Path) -> None:
    dictionary = CaptionDictionary.load(write(tmp_path, GOOD))
    for target in (tmp_path, Path("/dev/full")):
        with pytest.raises(OSError, match=f"{target} is no regular file"):
            dictionary.save(target)
