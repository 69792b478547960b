"""Lead names, their order, aliases and voltage units: the only place that knows them."""

from __future__ import annotations

import re
from collections.abc import Sequence

STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
NUM_LEADS = len(STANDARD_LEADS)

_BY_FOLDED_NAME = {lead.casefold(): lead for lead in STANDARD_LEADS} | {
    "l1": "I",
    "l2": "II",
    "l3": "III",
    "di": "I",
    "dii": "II",
    "diii": "III",
    "d1": "I",
    "d2": "II",
    "d3": "III",
}

# U+00B5 (micro sign) casefolds to U+03BC (Greek mu), so one entry serves both spellings.
_MILLIVOLTS_PER_UNIT = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "\u03bcv": 1e-3, "nv": 1e-6}

# Of "Lead I" and "MDC_ECG_LEAD_I" (IEEE 11073), and of "I (mV)".
_PREFIX = re.compile(r"(?:(?:mdc|ecg|lead)[ _-]*)+")
_UNIT_IN_NAME = re.compile(r"\s*[\[(]([mun\u03bc]?v)[\])]\s*$", re.IGNORECASE)


def canonical_lead(name: str) -> str | None:
    """The standard spelling of a lead name, or None if it is not one of the twelve.

    Case, surrounding blanks, a leading "lead", "ecg" or "mdc" and a unit in brackets are ignored:
    ``"AVR"``, ``"Lead aVR"``, ``"MDC_ECG_LEAD_AVR"`` and ``"avr [uV]"`` are all ``"aVR"``.
    """
    folded = _UNIT_IN_NAME.sub("", name).strip().casefold()
    if prefix := _PREFIX.match(folded):
        folded = folded[prefix.end() :]
    return _BY_FOLDED_NAME.get(folded)


def unit_in_name(name: str) -> str | None:
    """The voltage unit in brackets that ends a name, ``"uV"`` of ``"I (uV)"``, or None."""
    found = _UNIT_IN_NAME.search(name)
    return found[1] if found else None


def lead_indices(names: Sequence[str], wanted: Sequence[str] = STANDARD_LEADS) -> list[int]:
    """Position in ``names`` of each wanted lead, matched by name.

    Raises:
        ValueError: leads are absent or named twice; the message lists them.
    """
    positions: dict[str, int] = {}
    for index, name in enumerate(names):
        lead = canonical_lead(name)
        if lead is None:
            continue
        if lead in positions and lead in wanted:
            raise ValueError(f"lead {lead} occurs twice among {', '.join(names)}")
        positions[lead] = index
    missing = [lead for lead in wanted if lead not in positions]
    if missing:
        raise ValueError(f"lacks lead(s) {', '.join(missing)}; it has {', '.join(names) or 'none'}")
    return [positions[lead] for lead in wanted]


def millivolts_per_unit(unit: str) -> float:
    """How many millivolts one ``unit`` is: V, mV, uV (or a real mu) and nV, in any case.

    Raises:
        ValueError: the unit is not a voltage; the message names it.
    """
    try:
        return _MILLIVOLTS_PER_UNIT[unit.strip().casefold()]
    except KeyError:
        raise ValueError(f"unit {unit!r} is not a voltage (V, mV, uV, nV)") from None
