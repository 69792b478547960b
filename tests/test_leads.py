"""Lead names and units."""

from __future__ import annotations

import pytest

from esi_fast.leads import (
    STANDARD_LEADS,
    canonical_lead,
    lead_indices,
    millivolts_per_unit,
    unit_in_name,
)


@pytest.mark.parametrize(
    ("name", "lead"),
    [
        ("aVR", "aVR"),
        ("AVR", "aVR"),
        (" avl ", "aVL"),
        ("Lead II", "II"),
        ("ECG V1", "V1"),
        ("v6", "V6"),
        ("i", "I"),
        ("DIII", "III"),
        ("MDC_ECG_LEAD_I", "I"),
        ("MDC_ECG_LEAD_AVR", "aVR"),
        ("I (mV)", "I"),
        ("Lead V1 [\u00b5V]", "V1"),
        ("I (mmHg)", None),
        ("ECG", None),
        ("PLETH", None),
        ("V7", None),
        ("", None),
    ],
)
def test_names_are_matched_whatever_their_spelling(name: str, lead: str | None) -> None:
    assert canonical_lead(name) == lead


def test_a_unit_in_a_name() -> None:
    found = [unit_in_name(name) for name in ("I (mV)", "EEG 1[\u00b5V] ", "Resp (L)", "V")]
    assert found == ["mV", "\u00b5V", None, None]


def test_mimic_order_is_mapped_by_name() -> None:
    mimic = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
    indices = lead_indices(mimic)
    assert tuple(mimic[i] for i in indices) == STANDARD_LEADS
    assert indices[4:6] == [5, 4]


def test_an_absent_lead_and_a_repeated_lead_are_named() -> None:
    with pytest.raises(ValueError, match=r"lacks lead\(s\) V6; it has"):
        lead_indices(STANDARD_LEADS[:-1])
    with pytest.raises(ValueError, match="lead V1 occurs twice"):
        lead_indices((*STANDARD_LEADS, "v1"))


@pytest.mark.parametrize(
    ("unit", "scale"),
    [
        ("mV", 1),
        ("mv", 1),
        ("V", 1000),
        ("uV", 1e-3),
        ("\u00b5V", 1e-3),
        ("\u03bcV", 1e-3),
        ("nV", 1e-6),
    ],
)
def test_units(unit: str, scale: float) -> None:
    assert millivolts_per_unit(unit) == scale


def test_a_unit_that_is_no_voltage_is_named() -> None:
    with pytest.raises(ValueError, match="'mmHg' is not a voltage"):
        millivolts_per_unit("mmHg")
