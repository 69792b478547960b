"""Contradictions, advice and diseases in the wordings of language models, and no false alarms."""

from __future__ import annotations

import pytest

from esi_fast.cqa.checks import CHECKS, Allowed, run_checks
from esi_fast.cqa.concepts import display_name
from esi_fast.cqa.knowledge import passages
from esi_fast.cqa.statements import normalize


def allowed(line: str, *texts: str, leads: tuple[str, ...] = ()) -> Allowed:
    return Allowed(normalize(line)[0], passages=texts, leads=leads)


POLARITY = [
    ("Acute inferior infarct", "ST raised in II, III and aVF.", True),
    ("Acute inferior infarct", "ST elevation in II with depression of ST in aVL.", True),
    ("Acute inferior infarct", "No ST elevation is seen.", False),
    ("Acute inferior infarct", "ST elevation is absent.", False),
    ("Acute inferior infarct", "The ST segments in II, III and aVF are not elevated.", False),
    ("Acute inferior infarct", "ST segments without any elevation.", False),
    ("Acute inferior infarct", "The ST segments in II, III and aVF are normal.", False),
    ("Acute inferior infarct", "The ST segment is depressed in II.", False),
    ("Acute inferior infarct", "The infarct is unlikely.", False),
    ("Acute posterior infarct", "ST depression in V1 to V3, no ST elevation.", True),
    ("Inferior infarct", "Neither Q waves nor loss of R.", False),
    ("Inferior infarct", "No myocardial infarction.", False),
    ("Inferior ST elevation", "The ST segment is isoelectric.", False),
    ("Inferior ST elevation", "The ST segments are not elevated.", False),
    ("Prolonged QT", "The QT interval is long.", True),
    ("Prolonged QT", "The QT interval is short.", False),
    ("Prolonged QT", "A clearly shortened QTc.", False),
    ("Prolonged QT", "The QT interval is not prolonged.", False),
    ("Prolonged QT", "The QT is within normal limits.", False),
    ("Third degree AV block", "P waves and QRS complexes are independent.", True),
    ("Third degree AV block", "Every P wave conducts.", False),
    ("Third degree AV block", "Each P wave is followed by a QRS.", False),
    ("Third degree AV block", "AV conduction is intact.", False),
    ("Third degree AV block", "All atrial impulses reach the ventricles.", False),
    ("Third degree AV block", "No P wave is blocked.", False),
    ("Third degree AV block", "The PR interval is constant.", False),
    ("Atrial fibrillation", "P waves are replaced by fine undulation.", True),
    ("Atrial fibrillation", "P waves cannot be identified.", True),
    ("Atrial fibrillation", "Fibrillatory waves instead of P waves.", True),
    ("Atrial fibrillation", "Each QRS is preceded by an upright P wave.", False),
    ("Atrial fibrillation", "The rhythm is perfectly regular.", False),
    ("Atrial fibrillation", "The RR intervals are constant.", False),
    ("Atrial fibrillation", "Distinct P waves are visible.", False),
    ("Atrial fibrillation", "The rhythm is not irregular.", False),
    ("Atrial fibrillation", "Sawtooth flutter waves.", False),
    ("Atrial fibrillation", "The beats come at perfectly equal distances.", False),
    ("Ventricular tachycardia", "Wide QRS complexes dissociated from the P waves.", True),
    ("Left axis deviation", "The axis points to the left.", True),
    ("Left axis deviation", "The axis points to the right.", False),
    ("Left axis deviation", "The axis is directed rightward.", False),
    ("Left axis deviation", "The axis is not left.", False),
    ("Left axis deviation", "QRS negative in I and positive in aVF.", False),
    ("Right axis deviation", "The axis is turned to the left.", False),
    ("Right axis deviation", "QRS negative in I, P upright in I.", True),
    ("LBBB", "The QRS is not wide.", False),
    ("LBBB", "The QRS duration is normal.", False),
    ("LBBB", "An rsR' complex in V1.", False),
    ("First degree AV block", "The PR interval is clearly prolonged.", True),
    ("First degree AV block", "The PR interval is short.", False),
    ("First degree AV block", "The PR is not prolonged.", False),
    ("Left ventricular hypertrophy", "Low QRS voltage.", False),
    ("Left ventricular hypertrophy", "The voltages are normal.", False),
    ("Left ventricular hypertrophy", "Tall R waves in V5.", True),
    ("Sinus bradycardia", "The rate is fast.", False),
    ("Sinus tachycardia", "A slow rate.", False),
    ("Sinus rhythm", "P waves are missing.", False),
    ("Lateral T wave inversion", "T waves are upright in V5.", False),
    ("Wolff-Parkinson-White", "No delta wave.", False),
    ("Ventricular premature complexes", "Late narrow complexes.", False),
    ("Atrial flutter", "No flutter waves.", False),
    ("Ventricular paced rhythm", "Without pacing spikes.", False),
    ("LBBB", "The ECG is normal.", False),
    ("LBBB", "No abnormality is seen.", False),
    ("Cannot rule out inferior infarct", "Q waves cannot be excluded.", True),
]
PACED = ("The pacemaker gives a spike before each QRS.",)
ADVICE = [
    ("LBBB", (), "Wide QRS with T starting right after it.", True),
    ("LBBB", (), "Wide QRS at the start of each cycle.", True),
    ("LBBB", (), "Wide QRS immediately after P.", True),
    ("Anterior infarct", (), "Deep Q where R should rise from V1 to V4.", True),
    ("Ventricular paced rhythm", PACED, "The pacemaker's spike before a wide QRS.", True),
    ("Ventricular paced rhythm", PACED, "The heart needs a pacemaker.", False),
    ("LBBB", (), "Wide QRS; give aspirin.", False),
    ("LBBB", (), "Wide QRS; a stent helps.", False),
    ("LBBB", (), "Ablate the pathway.", False),
    ("LBBB", (), "This should be treated.", False),
    ("LBBB", (), "The heart needs a pacemaker.", False),
    ("LBBB", (), "A pacemaker helps.", False),
    ("LBBB", (), "Call for help.", False),
    ("LBBB", (), "An urgent finding.", False),
    ("LBBB", (), "Refer to cardiology.", False),
    ("LBBB", (), "Wide QRS, start heparin.", False),
    ("LBBB", (), "Administer oxygen.", False),
    ("LBBB", (), "Wide QRS. Order a troponin.", False),
    ("LBBB", (), "Wide QRS that warrants monitoring.", False),
    ("LBBB", (), "Cardioversion follows.", False),
]
DISEASES = [
    ("LBBB", (), "Wide notched QRS.", True),
    ("Pericarditis", (), "Saddle-shaped ST of pericarditis.", True),
    ("Hypertrophic cardiomyopathy", (), "Deep Q of hypertrophic cardiomyopathy.", True),
    ("Hyperkalemia", (), "Pointed T of hyperkalemia.", True),
    ("Low QRS voltage", ("Effusion lowers it.",), "Small QRS of effusion.", True),
    ("Low QRS voltage", (), "Small QRS of hypothyroidism.", False),
    ("Sinus tachycardia", (), "Fast P waves from pulmonary embolism.", False),
    ("Sinus tachycardia", (), "Fast P waves suggesting pulmonary embolism.", False),
    ("Sinus tachycardia", (), "Fast P waves of COVID.", False),
    ("Sinus tachycardia", (), "Fast P waves from sepsis.", False),
    ("T wave inversion", (), "Negative T from myocarditis.", False),
    ("T wave inversion", (), "Negative T after a stroke.", False),
    ("LBBB", (), "Wide QRS of dilated cardiomyopathy.", False),
    ("LBBB", (), "Wide QRS from aortic stenosis.", False),
    ("LBBB", (), "Wide QRS of coronary artery disease.", False),
    ("LBBB", (), "Wide QRS due to ischemia.", False),
]


@pytest.mark.parametrize(
    ("check", "line", "texts", "text", "passes"),
    [
        *(("polarity", line, (), text, passes) for line, text, passes in POLARITY),
        *(("advice", *case) for case in ADVICE),
        *(("diagnoses", *case) for case in DISEASES),
    ],
)
def test_content(check: str, line: str, texts: tuple[str, ...], text: str, passes: bool) -> None:
    reason = CHECKS[check](text, allowed(line, *texts))
    assert (reason == "") == passes, reason


@pytest.mark.parametrize("hedge", ["", "Possible ", "Probable ", "Consider ", "Cannot rule out "])
def test_a_finding_that_is_named_and_seen_is_never_refused(hedge: str) -> None:
    for passage in passages():
        age = f"{passage.metadata['acuity']} " if passage.metadata["acuity"] else ""
        words = f"{hedge}{age}{display_name(passage.metadata['concept'])}"
        given = Allowed(normalize(words)[0], (passage.text,), frozenset(passage.metadata["leads"]))
        assert run_checks(f"{words} in its usual form.", given) == {}


def test_what_the_ventricles_do_is_no_ventricular_rhythm() -> None:
    (statement,) = normalize("Atrial fibrillation")
    given = Allowed(statement, (), frozenset())
    told = "No P waves are seen and the ventricular rhythm is irregular."
    assert "diagnoses" not in run_checks(told, given)
    assert "diagnoses" in run_checks("A ventricular rhythm without P waves.", given)
