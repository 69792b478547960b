"""Numbers, leads, certainty and age in the wordings of language models: right ones and wrong."""

from __future__ import annotations

import pytest

from esi_fast.cqa.checks import CHECKS, Allowed
from esi_fast.cqa.lead_words import leads_named
from esi_fast.cqa.quantities import Quantity, quantities
from esi_fast.cqa.statements import normalize


def allowed(line: str, *texts: str, leads: tuple[str, ...] = ()) -> Allowed:
    return Allowed(normalize(line)[0], passages=texts, leads=leads)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("QRS of 120 ms or more", {(120, "ms", "min")}),
        ("at least 0.12 s", {(120, "ms", "min")}),
        ("QRS \u2265120ms", {(120, "ms", "min")}),
        ("120+ ms", {(120, "ms", "min")}),
        ("no less than 120 ms", {(120, "ms", "min")}),
        ("not more than 120 ms", {(120, "ms", "max")}),
        ("does not exceed 120 ms", {(120, "ms", "max")}),
        ("fails to reach 120 ms", {(120, "ms", "max")}),
        ("QRS <120 ms", {(120, "ms", "max")}),
        ("120 to 200 ms", {(120, "ms", "min"), (200, "ms", "max")}),
        ("120 ms to 200 ms", {(120, "ms", "min"), (200, "ms", "max")}),
        ("between 40 and 60 per minute", {(40, "bpm", "min"), (60, "bpm", "max")}),
        ("above 100 or 110 per minute", {(100, "bpm", "min"), (110, "bpm", "min")}),
        ("axis beyond -30 degrees", {(-30, "degrees", "max")}),
        ("from about 360 ms down", {(360, "ms", "max")}),
        ("two hundred milliseconds", {(200, "ms", "")}),
        ("one hundred and twenty beats per minute", {(120, "bpm", "")}),
        ("half a millivolt", {(5, "mm", "")}),
        ("one and a half millivolts", {(15, "mm", "")}),
        ("a quarter of a second", {(250, "ms", "")}),
        ("three tenths of a second", {(300, "ms", "")}),
        ("\u00bd mV", {(5, "mm", "")}),
        ("1 1/2 mV", {(15, "mm", "")}),
        ("zero point one two seconds", {(120, "ms", "")}),
        ("120 \u00b5V", {(1.2, "mm", "")}),
        ("120 minutes", {(120, "minutes", "")}),
        ("120xyz", {(120, "odd", "")}),
        ("two P waves and three shapes, one S in V1, half of P", set()),
        ("a third degree block, second degree", set()),
        ("2:1 block, the 2nd beat", set()),
    ],
)
def test_quantities(text: str, expected: set[tuple[float, str, str]]) -> None:
    assert quantities(text) == {Quantity(*one) for one in expected}


LBBB = allowed("LBBB", "QRS of 120 ms or more; R in V5 and V6 lasts 60 ms.", leads=("V5", "V6"))
TACHYCARDIA = allowed("Sinus tachycardia", "Sinus P waves at more than 100 per minute.")
JUNCTION = allowed("Junctional rhythm", "At 40 to 60 per minute; QRS below 120 ms.")
VOLTAGE = allowed("Low QRS voltage", "QRS below 0.5 mV in every limb lead.")
LONG_PR = allowed("First degree AV block", "PR exceeds 200 ms.")

NUMBERS = [
    (LBBB, "QRS lasting at least 120 ms.", True),
    (LBBB, "QRS of 0.12 s or longer.", True),
    (LBBB, "QRS no shorter than 120 ms.", True),
    (LBBB, "QRS of a hundred and twenty milliseconds or more.", True),
    (LBBB, "QRS less than 120 ms.", False),
    (LBBB, "QRS below 120 ms.", False),
    (LBBB, "QRS under 0.12 seconds.", False),
    (LBBB, "QRS \u2264 120 ms.", False),
    (LBBB, "QRS of 120 ms or less.", False),
    (LBBB, "QRS that does not exceed 120 ms.", False),
    (LBBB, "QRS shorter than one hundred and twenty milliseconds.", False),
    (LBBB, "QRS up to 120 ms.", False),
    (LBBB, "QRS of 120 minutes.", False),
    (LBBB, "QRS of 120 uV.", False),
    (LBBB, "QRS of 120 \u00b5s.", False),
    (LBBB, "QRS of 120 beats per minute.", False),
    (LBBB, "QRS of two hundred milliseconds.", False),
    (LBBB, "QRS one and a half millivolts high.", False),
    (LBBB, "QRS of half a millivolt.", False),
    (LBBB, "QRS of a fifth of a second.", False),
    (LBBB, "QRS of three small squares.", False),
    (TACHYCARDIA, "A rate above 100 bpm.", True),
    (TACHYCARDIA, "A rate exceeding one hundred beats per minute.", True),
    (TACHYCARDIA, "A rate below 100 bpm.", False),
    (TACHYCARDIA, "A rate of fewer than 100 beats per minute.", False),
    (TACHYCARDIA, "A rate of 100 per second.", False),
    (JUNCTION, "A rate between 40 and 60 per minute.", True),
    (JUNCTION, "A rate of at least 40 per minute.", True),
    (JUNCTION, "A rate below 40 per minute.", False),
    (JUNCTION, "A rate above 60 per minute.", False),
    (JUNCTION, "QRS narrower than 120 ms.", True),
    (JUNCTION, "QRS wider than 120 ms.", False),
    (VOLTAGE, "QRS less than half a millivolt.", True),
    (VOLTAGE, "QRS smaller than 5 mm.", True),
    (VOLTAGE, "QRS of more than half a millivolt.", False),
    (VOLTAGE, "QRS of 0.5 V.", False),
    (LONG_PR, "PR longer than 200 ms.", True),
    (LONG_PR, "PR above a fifth of a second.", True),
    (LONG_PR, "PR within 200 ms.", False),
    (LONG_PR, "PR that fails to reach 200 ms.", False),
    (LONG_PR, "PR never longer than 200 ms.", False),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lead two and lead three", {"II", "III"}),
        ("leads one, two and three", {"I", "II", "III"}),
        ("lead 2", {"II"}),
        ("leads I through III", {"I", "II", "III"}),
        ("leads ii to aVF", {"II", "aVF"}),
        ("V1-3", {"V1", "V2", "V3"}),
        ("V one to V four", {"V1", "V2", "V3", "V4"}),
        ("v2 and avf", {"V2", "aVF"}),
        ("V8 and V4R", {"V8", "V4R"}),
        ("Mobitz II, type II block; a P that leads almost directly into a QRS", set()),
        ("Mobitz type I or II", set()),
    ],
)
def test_leads_named(text: str, expected: set[str]) -> None:
    assert leads_named(text) == expected


INFERIOR = allowed("Inferior infarct", leads=("II", "III", "aVF", "I", "aVL"))
ANTERIOR = allowed("Anterior infarct")
AXIS = allowed("Left axis deviation", leads=("I", "II", "aVL", "aVF"))
ANY_WALL = allowed("Old myocardial infarction")

TERRITORY = [
    (INFERIOR, "Q waves in leads two and three.", True),
    (INFERIOR, "Q waves in the inferior leads.", True),
    (INFERIOR, "Q waves in lead V two.", False),
    (INFERIOR, "Q waves in the precordial leads.", False),
    (INFERIOR, "Q waves in every lead.", False),
    (INFERIOR, "Q waves in all twelve leads.", False),
    (INFERIOR, "Q waves across the limb leads.", False),
    (INFERIOR, "Q waves in the chest leads.", False),
    (INFERIOR, "Q waves in the anterior leads.", False),
    (INFERIOR, "Q waves in most leads.", False),
    (INFERIOR, "Q waves in v1-3.", False),
    (INFERIOR, "Widespread Q waves.", False),
    (INFERIOR, "Q waves in the lateral leads.", False),
    (ANTERIOR, "Q waves in V1 through V4.", True),
    (ANTERIOR, "Q waves in V one to V four.", True),
    (ANTERIOR, "Q waves in the right precordial leads.", True),
    (ANTERIOR, "Q waves in the left precordial leads.", False),
    (ANTERIOR, "Q waves in lead two.", False),
    (ANTERIOR, "Q waves in lead 3.", False),
    (ANTERIOR, "Q waves throughout the precordium.", False),
    (AXIS, "QRS positive in lead one and negative in lead two.", True),
    (AXIS, "QRS turned to the left in the limb leads.", True),
    (AXIS, "QRS negative in the precordial leads.", False),
    (AXIS, "QRS negative in all leads.", False),
    (LBBB, "Broad R in the left chest leads.", True),
    (LBBB, "Broad R in every lead.", False),
    (LBBB, "Broad R in the inferior leads.", False),
    (VOLTAGE, "Small QRS in the limb leads.", True),
    (VOLTAGE, "Small QRS in the anterior leads.", False),
    (LONG_PR, "Long PR in leads two and three.", False),
    (ANY_WALL, "Q waves in the affected leads.", True),
    (ANY_WALL, "Q waves of the inferior wall.", False),
]

POSSIBLE = allowed("Possible inferior infarct", leads=("II", "III", "aVF"))
POSSIBLE_AF = allowed("Possible atrial fibrillation")
UNEXCLUDED = allowed("Cannot rule out inferior infarct")
PROBABLE = allowed("Probable left ventricular hypertrophy")
CONSIDER = allowed("Consider inferior infarct")
BORDERLINE = allowed("Borderline prolonged QT")
AF = allowed("Atrial fibrillation")

CERTAINTY = [
    (POSSIBLE, "Q waves in II, III and aVF are possible.", True),
    (POSSIBLE, "Q waves in II, III and aVF, suggesting an infarct.", True),
    (POSSIBLE, "Q waves in II; this is a possible inferior infarct.", True),
    (POSSIBLE, "Q waves in II, III and aVF may reflect an inferior infarct.", True),
    (POSSIBLE, "Q waves in II, III and aVF; nothing else is possible.", False),
    (POSSIBLE, "Q waves in II, III and aVF that could not be missed.", False),
    (POSSIBLE, "Definite Q waves in II, III and aVF, possibly in V6.", False),
    (POSSIBLE, "Q waves in II, as deep as possible.", False),
    (POSSIBLE, "Q waves in II prove an infarct beyond possible doubt.", False),
    (POSSIBLE, "Q waves in II, and no other reading is possible.", False),
    (POSSIBLE, "Q waves in II of a definite infarct, possibly deep.", False),
    (POSSIBLE, "Q waves in II. A U wave may be seen.", False),
    (POSSIBLE_AF, "Possibly irregular RR intervals without P waves.", True),
    (POSSIBLE_AF, "Irregular RR intervals, no P waves, suspected atrial fibrillation.", True),
    (POSSIBLE_AF, "Irregular RR intervals, nothing else could be meant.", False),
    (POSSIBLE_AF, "Unequivocal irregular RR intervals, possibly without P waves.", False),
    (UNEXCLUDED, "Q waves in II cannot be excluded.", True),
    (UNEXCLUDED, "An inferior infarct cannot be ruled out.", True),
    (UNEXCLUDED, "Q waves in II that cannot be missed.", False),
    (UNEXCLUDED, "Q waves in II that cannot be overlooked.", False),
    (UNEXCLUDED, "Q waves in II, error excluded.", False),
    (PROBABLE, "Tall R waves are likely.", True),
    (PROBABLE, "Tall R waves, consistent with left ventricular hypertrophy.", True),
    (PROBABLE, "Tall R waves; error is not likely.", False),
    (PROBABLE, "Tall R waves, more than probable.", False),
    (CONSIDER, "Q waves in II, to be considered an inferior infarct.", True),
    (CONSIDER, "Considerable Q waves in II.", False),
    (CONSIDER, "Q waves in II considered proven.", False),
    (BORDERLINE, "Borderline long QT interval.", True),
    (BORDERLINE, "Long QT interval, slightly notched T.", False),
    (BORDERLINE, "Long QT interval, far from borderline.", False),
    (AF, "Irregular RR intervals without P waves.", True),
    (AF, "Irregular RR intervals that cannot be missed.", True),
    (AF, "Irregular RR intervals, beyond doubt.", True),
    (AF, "Possibly irregular RR intervals.", False),
    (AF, "Irregular RR intervals, suspected atrial fibrillation.", False),
    (AF, "Irregular RR intervals; atrial fibrillation is questionable.", False),
    (AF, "Irregular RR intervals, perhaps without P waves.", False),
    (AF, "Irregular RR intervals; fibrillation cannot be confirmed.", False),
    (AF, "Apparently irregular RR intervals.", False),
    (allowed("ST elevation, consider acute infarct"), "ST raised, consider infarct.", True),
    (allowed("Inferior infarct, possibly acute"), "Possibly acute Q waves.", True),
    (allowed("Inferior infarct, age undetermined"), "Q waves of uncertain age.", True),
]

OLD, ACUTE = allowed("Old inferior infarct"), allowed("Acute inferior infarct")
UNDATED, OPEN = allowed("Inferior infarct, age undetermined"), allowed("Inferior infarct")

ACUITY = [
    (OLD, "Old Q waves in II.", True),
    (OLD, "Q waves of a healed infarct without acute ST elevation.", True),
    (OLD, "Q waves in II, III and aVF.", True),
    (OLD, "An acute inferior infarct.", False),
    (OLD, "Q waves of a recent infarct.", False),
    (OLD, "Q waves of an evolving infarct.", False),
    (OLD, "Hyperacute T waves in II.", False),
    (OLD, "Q waves of a new infarct.", False),
    (OLD, "Q waves in II, not old.", False),
    (OLD, "Q waves that are hours old.", False),
    (ACUTE, "ST raised in II by an acute infarct.", True),
    (ACUTE, "ST raised in II, early stage of infarction.", True),
    (ACUTE, "ST raised after each previous beat in II.", True),
    (ACUTE, "An old infarct in II.", False),
    (ACUTE, "ST raised in II by a prior infarct.", False),
    (ACUTE, "ST raised in II, a chronic change.", False),
    (ACUTE, "ST raised in II, long-standing.", False),
    (ACUTE, "ST raised in II over a healed scar.", False),
    (ACUTE, "ST raised in II, not acute.", False),
    (UNDATED, "Q waves in II of undetermined age.", True),
    (UNDATED, "Q waves in II, acute or old.", True),
    (UNDATED, "Q waves of an old infarct.", False),
    (UNDATED, "Acute Q waves in II.", False),
    (UNDATED, "Q waves in II from a previous infarct.", False),
    (UNDATED, "Q waves in II from years ago.", False),
    (OPEN, "Q waves in II.", True),
    (OPEN, "Recent Q waves in II.", False),
    (OPEN, "Q waves of a remote infarct.", False),
    (allowed("Inferior ischemia"), "Acute ischemia in II.", False),
    (allowed("Atrial fibrillation"), "Chronic irregular RR intervals.", True),
]


@pytest.mark.parametrize(
    ("check", "given", "text", "passes"),
    [
        *(("numbers", *case) for case in NUMBERS),
        *(("territory", *case) for case in TERRITORY),
        *(("certainty", *case) for case in CERTAINTY),
        *(("acuity", *case) for case in ACUITY),
    ],
)
def test_wording(check: str, given: Allowed, text: str, passes: bool) -> None:
    reason = CHECKS[check](text, given)
    assert (reason == "") == passes, reason
