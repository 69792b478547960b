"""Measured values and who the ECG is of, as captions word them."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real

# Beyond these a value is a device's mark for "not measured" (29999) or a failed measurement.
_PLAUSIBLE = {
    "heart_rate": (10.0, 400.0),
    "pr": (50.0, 600.0),
    "qrs": (30.0, 320.0),
    "qtc_bazett": (200.0, 800.0),
    "qtc_fridericia": (200.0, 800.0),
    "qrs_axis": (-180.0, 360.0),
}
# Of the interval from beat to beat; the PR may reach back into the beat before.
_MOST_OF_A_BEAT = {"pr": 0.9, "qrs": 0.7}
# Upper limits of a normal QTc, ms: Rautaharju et al., AHA/ACCF/HRS 2009, part IV.
_LONG_QTC = {"male": 450, "female": 460, None: 460}
_SHORT_QTC = 390
# Equal values in other words, chosen by the caption's seed: the rate, and a value with its word.
_RATES = ("heart rate {} bpm", "ventricular rate {} bpm", "rate {} beats per minute")
_WORDED = ("{word} {value}", "{value} ({word})")
NUM_STYLES = len(_RATES) * len(_WORDED)


def plausible(measurements: Mapping[str, float | None]) -> dict[str, int]:
    """The values that captions may tell, whole: heart_rate, pr, qrs, qtc and qrs_axis.

    The axis lies above -180 and up to 180 degrees. What is absent, None or implausible is left
    out, and so is a PR or QRS that fills the time from beat to beat; of two QTc values Bazett's
    is taken.

    Raises:
        ValueError: a value is no number.
    """
    value: dict[str, int] = {}
    for name, (low, high) in _PLAUSIBLE.items():
        given: object = measurements.get(name)
        if given is None:
            continue
        if isinstance(given, bool) or not isinstance(given, Real):
            raise ValueError(f"measurement {name} is {given!r}; give a number, or None")
        number = float(given)
        if low <= number <= high:
            # Rounded first: "QTc 450 ms" must not be called by the word of 449.6.
            value.setdefault("qtc" if name.startswith("qtc") else name, round(number))
    # No beat is longer than the time to the next one.
    if "heart_rate" in value:
        for name in ("pr", "qrs"):
            if value.get(name, 0) * value["heart_rate"] > 60_000 * _MOST_OF_A_BEAT[name]:
                del value[name]
    if "qrs_axis" in value:
        value["qrs_axis"] = 180 - (180 - value["qrs_axis"]) % 360
    return value


def intervals(
    value: Mapping[str, int],
    forbidden: frozenset[str] = frozenset(),
    sex: str | None = None,
    style: int = 0,
) -> str:
    """Values as ``plausible`` gives them in one sentence, each called normal, short or long.

    A word that the findings contradict is left out, and so is the PR interval of a rhythm that
    has none: "PR 190 ms" beside a first-degree block, nothing beside atrial fibrillation, where
    the QTc is given without a word too. ``style``, below NUM_STYLES, chooses the wording.
    """
    worded = _WORDED[style // len(_RATES)]
    parts = []
    if "heart_rate" in value:
        parts.append(_RATES[style % len(_RATES)].format(value["heart_rate"]))
    if "pr" in value and "pr" not in forbidden:
        pr = value["pr"]
        word = "short_pr" if pr < 120 else "long_pr" if pr > 200 else "normal_pr"
        parts.append(_said(worded, word, forbidden, f"PR {pr} ms"))
    if "qrs" in value:
        qrs = value["qrs"]
        word = "wide_qrs" if qrs >= 120 else "normal_qrs" if qrs <= 110 else ""
        parts.append(_said(worded, word, forbidden, f"QRS {qrs} ms"))
    if "qtc" in value:
        qtc, limit = value["qtc"], _LONG_QTC[sex]
        word = "short_qtc" if qtc <= _SHORT_QTC else "long_qtc" if qtc >= limit else "normal_qtc"
        # A QTc between the two limits of men and women is not called anything.
        unclear = sex is None and _LONG_QTC["male"] <= qtc < limit
        # The limits are meant for narrow QRS complexes.
        is_wide = value.get("qrs", 0) >= 120
        word = "" if unclear or is_wide or "qtc_word" in forbidden else word
        parts.append(_said(worded, word, forbidden, f"QTc {qtc} ms"))
    if "qrs_axis" in value:
        axis = value["qrs_axis"]
        parts.append(_said(worded, _axis_word(axis), forbidden, f"axis {axis} degrees"))
    if not parts:
        return ""
    text = ", ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _axis_word(axis: int) -> str:
    """Surawicz et al., AHA/ACCF/HRS 2009, part III: normal is -30 to 90 degrees in adults."""
    if -30 <= axis <= 90:
        return "normal_axis"
    if axis > 90:
        return "right_axis"
    return "left_axis" if axis >= -90 else "extreme_axis"


def _said(worded: str, claim: str, forbidden: frozenset[str], value: str) -> str:
    if not claim or claim in forbidden:
        return value
    return worded.format(word=claim.split("_")[0], value=value)


def demographics(age: float | None, sex: str | None) -> str:
    """ "65-year-old male."; ages over 89 are given as one, as is the custom for open data."""
    if age is None or not 0 <= age < 400:
        return f"{sex.capitalize()} patient." if sex else ""
    who = sex or "patient"
    if age > 89:
        return f"{who.capitalize()} aged 90 or older."
    if age < 1:
        return f"{who.capitalize()} under 1 year old."
    return f"{int(age)}-year-old {who}."
