"""The words around a finding: how sure, how old, where, how much, why, and what is a notice."""

from __future__ import annotations

import re

from esi_fast.cqa.concepts import WALLS_OF_WORD

LEAD = r"(?:i{1,3}|av[rlf]|v[1-6])"
LEADS = rf"{LEAD}(?:(?: ,| and| or)* {LEAD})*"
WALL = "|".join(sorted(WALLS_OF_WORD, key=len, reverse=True))

WALL_WORD = re.compile(rf"\b(?:{WALL})\b")

# A clause with one of these speaks of the recording, not of the heart.
TECHNICAL = re.compile(
    r"\bunsuitable\b|\barti?e?fact|\b(?:lead|limb|arm|electrode)\w*\b.*\brevers|\brevers.*\blead"
    r"|\bmisplac|\bwithout knowing\b|\bmissing\b|\banalysis error\b|\bunconfirmed\b"
    r"|\bp(?:a)?ediatric\b|\bbaseline (?:wander|drift)|\bpoor (?:data |tracing )?quality\b"
    r"|\bdata quality\b|\btechnically\b|\bsuspect\w* (?:arm|limb|lead)|\bfaulty\b|\bnoise\b"
    r"|\bunable to (?:analy|interpret)|\bpoor tracing\b|\bedited\b|\breviewed by\b"
    r"|\bconfirmed by\b|\bstandard 12 lead\b|\blead off\b|\bunedited\b|\binterference\b"
    r"|\bcannot be (?:analy|interpret)\w+"
)
# From one of these to the end of the line: a comparison with another ECG, or a refusal to go on.
NOTICE_TO_END = re.compile(
    r"\b(?:when )?(?:compared (?:to|with)|no (?:further )?(?:rhythm )?(?:analysis|interpretation)"
    r"|not analy[sz]\w*|since (?:the )?(?:last|previous)|no previous|no significant change"
    r"|unable to (?:analy|interpret)).*$"
)
# What a notice is about; anything else ("made without knowing patient's age") limits nothing.
NOTICES = (
    ("unsuitable_leads", re.compile(r"\bunsuitable\b|\bmissing lead|\blead off\b|\bfaulty\b")),
    ("lead_reversal", re.compile(r"\brevers|\bmisplac|\bsuspect\w* (?:arm|limb|lead)")),
    (
        "artifact",
        re.compile(
            r"\barti?e?fact|\bbaseline (?:wander|drift)|\bquality\b|\bpoor tracing\b|\bnoise\b"
            r"|\btechnically\b|\binterference\b|\bcannot be (?:analy|interpret)"
        ),
    ),
)
CLAUSES = re.compile(r" , | with ")


def _table(**patterns: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((name, re.compile(rf"(?<!\w)(?:{p})(?!\w)")) for name, p in patterns.items())


# The first that fits wins: "possible nonspecific" is possible.
CERTAINTY = _table(
    cannot_rule_out=r"cannot (?:be )?(?:rule[d]? out|exclude[d]?)|rule out|not excluded",
    consider=r"consider(?:ed)?",
    possible=r"possibl[ey]|suspect(?:ed)?|suggest(?:s|ive|ing)?(?: of)?|may be|may represent"
    r"|might be|could be|questionable|presumably|versus|vs|\?",
    probable=r"probabl[ey]|likely|presumed|compatible with|consistent with",
    borderline=r"borderline|minimal criteria",
    nonspecific=r"nonspecific",
)
ACUITY = _table(
    possibly_acute=r"possibly acute|probably acute|acute or recent",
    undetermined=r"(?:of )?(?:undetermined|indeterminate|unknown|uncertain) age"
    r"|age (?:is )?(?:undetermined|indeterminate|unknown|uncertain)",
    recent=r"(?:possibl[ey] |probabl[ey] )?(?:recent|evolving|subacute)",
    old=r"(?:possibl[ey] |probabl[ey] )?(?:old|previous|prior|chronic|healed)",
    acute=r"acute|hyperacute",
)
RATE_RESPONSE = re.compile(
    r"(?:with )?(?:a )?(rapid|slow|controlled|uncontrolled|moderate)(?: v| ventricular)?"
    r" (?:response|rate)(?: response)?"
)
RATIO_AFTER = re.compile(r"^\W*(?:with )?(\d+:\d+|variable)(?: av)?(?: conduction| block)?")
DEGREE = re.compile(
    r"\b(\d+:\d+|variable|marked|moderate|mild|minimal|minor|severe|frequent|occasional"
    r"|multiple|isolated|extensive|multiform|multifocal|paired|diffuse)\b"
)
NEGATED_BEFORE = re.compile(r"\b(?:no|not|without|absen\w+|negative for|(?:has|have) replaced)\b")
NEGATED_AFTER = re.compile(
    r"^\W*(?:(?:is|are|was|were|has|have) )?(?:no longer|not|absent|resolved|disappeared"
    r"|(?:has |have )?been replaced|replaced by)\b"
)
PLACED_AFTER = re.compile(
    rf"^\W*(?:in|over|of|at|involving)? ?(?:the )?(?:(?P<walls>(?:(?:{WALL})(?: ,| and| or)* ?)+)"
    rf"(?:wall|lead|region)|(?:lead )?(?P<leads>{LEADS})(?: lead)?)\b"
)
AFTER = re.compile(
    r"^\W*(?:(?:(?:is|are|was|may be|now) )?(?:(?P<certainty>nonspecific|(?:probable|possible|"
    r"suspected|likely|borderline|considered)(?= ,|$)|cannot be (?:ruled out|excluded))"
    r"|(?:probabl[ey] |may be )?(?:a )?normal variant|(?:now )?(?:present|noted|seen|evident)|only)"
    r"|(?:(?:by|on|probabl[ey] by) (?:the )?(?:voltage|age)(?: criteria)?(?: only)?)"
    r"|for (?:the )?(?:rate|age)|(?:in|of) (?:the )?(?:frontal|horizontal|limb|precordial|chest)"
    r"(?: and (?:frontal|horizontal|precordial|chest))?(?: lead| plane)?)"
)
LINK = re.compile(
    r"\b(?:consider|suggest\w*|due to|secondary to|compatible with|consistent with|indicat\w+"
    r"|represent\w*|cannot|rule out|possibl[ey]|probabl[ey]|likely|related to|associated with"
    r"|with secondary|\?)(?= |$)"
)
JOINS_CAUSES = re.compile(
    r"^(?:,|or|and|acute|old|normal|possibl[ey]|probabl[ey]|myocardial| |recent)*$"
)
EXPLAINED_KINDS = frozenset({"ST-T", "morphology", "axis", "interval"})
