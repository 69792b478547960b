"""The tables of tests/golden: device-style lines and codes, and what each one says."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path

from esi_fast.cqa.statements import Statement

GOLDEN = Path(__file__).parent / "golden"


def table(*names: str) -> dict[str, str]:
    """The rows of all sections of these files."""
    rows: dict[str, str] = {}
    for name in names:
        for section in tomllib.loads((GOLDEN / f"{name}.toml").read_text()).values():
            assert not rows.keys() & section.keys()
            rows |= section
    return rows


LINES = table("statements_rhythm", "statements_infarct", "statements_other")


def told(said: Iterable[Statement]) -> str:
    """Statements in the notation of the tables."""
    return "; ".join(map(_told, said))


def _told(one: Statement) -> str:
    name = f"technical:{one.base}" if one.kind == "technical" else one.concept
    words = [
        "not" if one.negated else "",
        "" if one.certainty == "definite" else one.certainty,
        one.acuity or "",
        name,
        "/".join(one.territory) if one.kind == "fragment" else "",
        f"({one.degree})" if one.degree else "",
        f"[{one.rate_response}]" if one.rate_response else "",
        f"<{one.cause}>" if one.cause else "",
    ]
    return " ".join(word for word in words if word)
