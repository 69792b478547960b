"""The words around a finding: how sure, how old, where, how much, why, and what is a notice."""

from __future__ import annotations

import re

from esi_fast.cqa.concepts import WALLS_OF_WORD

LEAD = r"(?:i{1,3}|av[rlf]|v[1-6])"
LEADS = rf"{LEAD}(?:(?: ,| and| or)* {LEAD})*"
WALL = "|".join(sorted(WALLS_OF_WORD, key=len, reverse=True))

WALL_WORD = re.compile(rf"\b(?:{WALL})\b")

# A clause with one of these speaks of the recording or of its reading, not of the heart.
TECHNICAL = re.compile(
    r"\bunsuitable\b|\barti?e?fact|\b(?:lead|limb|arm|electrode|cable)\w*\b.*\brevers"
    r"|\brevers\w* .*\blead|\binterchange|\bmisplac|\bwithout knowing\b|\bmissing\b"
    r"|\bgender specific\b"
    r"|\banalysis error\b|\bsequence error\b|\bunconfirmed\b|\bpreliminary\b|\bunedited\b"
    r"|\bpediatric (?:ecg )?(?:interpretation|analysis|criteria)\b|\bunstable baseline\b"
    r"|\bbaseline (?:wander|drift|shift|instab)|\bwandering baseline\b"
    r"|\b(?:poor|bad|low) (?:data |signal |tracing |recording )*quality\b|\bpoor (?:tracing|record)"
    r"|\b(?:data|signal) quality\b|\btechnical\w*\b|\bfaulty\b|\bnoisy?e?\b|\bac interfer"
    r"|\bsuspect\w* (?:arm|limb|lead)|\binterference\b|\btremor\b|\bclipp(?:ed|ing)\b"
    r"|\bunable to (?:analy|interpret)|\bedited\b|\breviewed\b|\bsigned\b|\bconfirmed by\b"
    r"|\bstandard 12 lead\b|\b(?:lead|electrode) off\b|\boff lead\b|\bnot recorded\b|\bomitted\b"
    r"|\bcannot be (?:analy|interpret)\w+|\b(?:interpretation|analysis) (?:is )?based on\b"
    r"|\bhence only\b|\binsufficient (?:data|signal)\b|\bfurther analysis\b|\bmagnet\b"
    r"|\b(?:age|gender|sex) (?:is |and gender |or gender |and sex )?(?:not (?:known|given|entered)"
    r"|unspecified|unavailable)|\b(?:unknown|unspecified) (?:patient )?(?:gender|sex)\b"
    r"|\bunknown patient age\b|\bcritical (?:test )?(?:result|value|finding)\b"
    r"|\bassum(?:ed|ing|es)\b"
    r"|\brepeat (?:the )?(?:ecg|tracing|recording)\b"
    r"|\bover ?read\b|\bcomputer(?:ized)? (?:generated|interpretation|analysis)\b"
    # a diagnosis that no ECG shows
    r"|\bheart failure\b|\btransient ischemic attack\b|\bcoronary (?:heart|artery) disease\b"
    r"|\bheart valve disorder\b"
    # a change since another ECG
    r"|\b(?:has|have) (?:significantly )?(?:increased|decreased|shortened|lengthened|widened"
    r"|changed|improved|worsened|occurred|shifted|not changed|returned)\b|\baxis shifted\b"
    r"|\b(?:less|more) (?:evident|prominent|pronounced|marked|apparent|visible|obvious|noticeable"
    r"|conspicuous|striking|severe|elevated|depressed|inverted|frequent)\b|\bunchanged\b"
)
# From one of these to the end of the line: a comparison with another ECG, or a refusal to go on.
NOTICE_TO_END = re.compile(
    r"\b(?:(?:when |as )?(?:compared (?:to|with)|(?:in )?comparison (?:to|with))"
    r"|(?:no|cannot) (?:further )?(?:ecg )?(?:rhythm )?(?:analysis|interpretation)"
    r"|(?:further )?(?:analysis|interpretation) (?:is |was )?not (?:attempted|performed|possible)"
    r"|(?<![a-z] )not analy[sz]\w*|since (?:the )?(?:last|previous|prior|ecg|tracing)"
    r"|no significant change|change from|no change (?:from|since)"
    r"|unable to (?:analy|interpret)|cited on or before|unchanged (?:from|since|compared)"
    r"|(?:similar to|same as|as|also|again|still) (?:(?:seen|noted|present|was) )?(?:(?:on|in) )?"
    r"(?:the )?(?:previous|prior|last|earlier)(?: (?:ecg|tracing|record|study|one)\w*)?(?= ,|$)"
    r")(?!\w).*$"
    # this one ends with its clause
    r"|\bno (?:previous|prior) (?:ecg|tracing|record)\w*[^,]*"
)
# What a refusal gives as its reason is stated by it.
REASON = re.compile(r"\b(?:due to|because of|in (?:the )?presence of)(?: the)? (.*)$")
# A line that starts so may be continued by lines that say what has changed.
COMPARES = re.compile(r"^(?:(?:when|as) )?(?:compared|comparison|since)\b")
CHANGED = re.compile(
    r"\b(?:no longer|now|has|have|replac\w+|increased|decreased|less|more|new|change|shortened"
    r"|lengthened|significant|questionable)\b"
)
# What a notice is about; anything else ("made without knowing patient's age") limits nothing.
NOTICES = (
    (
        "unsuitable_leads",
        re.compile(r"\bunsuitable\b|\bmissing lead|\blead off\b|\bfaulty\b|\bomitted\b"),
    ),
    (
        "lead_reversal",
        re.compile(r"\brevers|\bmisplac|\binterchang|\bsuspect\w* (?:arm|limb|lead)"),
    ),
    (
        "artifact",
        re.compile(
            r"\barti?e?fact|\bbaseline (?:wander|drift|shift|instab)|\bquality\b|\bnoisy?e?\b"
            r"|\bpoor (?:tracing|record)|\btechnically\b|\binterference\b|\btremor\b|\bclipp"
            r"|\bcannot be (?:analy|interpret)|\b(?:wandering|unstable) baseline\b"
        ),
    ),
)
CLAUSES = re.compile(r" , | with | and ")


def _table(**patterns: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((name, re.compile(rf"(?<!\w)(?:{p})(?!\w)")) for name, p in patterns.items())


# The first that fits wins: "possible nonspecific" is possible.
CERTAINTY = _table(
    cannot_rule_out=r"cannot (?:be )?(?:rule[d]? out|exclude[d]?)|rule out"
    r"|(?:is )?not (?:excluded|ruled out)",
    consider=r"consider(?:ed)?",
    possible=r"possibl[ey]|possibility of|suspect(?:ed)?|suggest(?:s|ive|ing)?(?: of)?|may be"
    r"|suspicious (?:for|of)|suspicion of|worrisome for|concern(?:ing)? for"
    r"|may represent|might be|might represent|could be|questionable|presumably|versus|\?",
    probable=r"probabl[ey]|likely|presumed|compatible with|consistent with",
    borderline=r"borderline|minimal criteria",
    nonspecific=r"nonspecific",
)
ACUITY = _table(
    possibly_acute=r"(?:possibl[ey]|probabl[ey]) acute(?:(?: or)? recent)?(?= ,|$)"
    r"|possibly acute|probably acute|acute(?: or)? recent|recent or acute",
    undetermined=r"(?:of )?(?:undetermined|indeterminate|unknown|uncertain) age"
    r"|age (?:is )?(?:undetermined|indeterminate|unknown|uncertain)|old or acute|acute or old"
    r"|possibly (?:old|recent|evolving|subacute|chronic|healed|remote)"
    r"|possible (?:old|recent|chronic)(?= ,|$)",
    recent=r"(?:probably |probable (?=recent(?: ,|$)))?(?:recent|evolving|subacute)",
    old=r"(?:probably |probable (?=old(?: ,|$)))?"
    r"(?:(?:age )?old|previous|prior|chronic|healed|remote)",
    acute=r"acute|hyperacute",
)
RATE_RESPONSE = re.compile(
    r"(?:with )?(?:a )?(?:very )?(rapid|slow|controlled|uncontrolled|moderate)(?: v| ventricular)?"
    r" (?:response|rate)(?: response)?"
)
# As Statement.rate_response calls them.
RATES = {"uncontrolled": "rapid", "moderate": "controlled"}
RATIO = re.compile(r"(?<!\d)\d{1,2}:\d{1,2}(?!\d)|variable")
RATIO_AFTER = re.compile(
    r"^\W*(?:with )?(?:a )?(?:predominant(?:ly)? )?((?<!\d)\d{1,2}:\d{1,2}(?!\d)|variable)"
    r"(?: (?:to|or|and) \d{1,2}:\d{1,2})?"
    r"(?: (?:av|ventricular))?(?: conduction| response| block)?"
)
CONDUCTS = re.compile(r"(?<=[\de]) (?:av |ventricular )?conduction\b")
DEGREE = re.compile(
    r"\b(\d{1,2}:\d{1,2}(?!\d)|variable|marked|moderate|mild|minimal|minor|severe|frequent|occasional|rare"
    r"|multiple|isolated|extensive|multiform|multifocal|polymorphic|monomorphic|uniform|paired"
    r"|couplet|triplet|consecutive|single|diffuse|widespread)\b"
)
NEGATED_BEFORE = re.compile(
    r"\b(?:no|not|without|absen\w+|negative for|(?:has|have) replaced|replac(?:es|ing)"
    r"|resolution of)\b"
)
# Without a noun the walls must end the clause: else they are the next finding's.
_WALLS = rf"(?P<walls>(?:{WALL})(?:(?: ,| and| or)* (?:{WALL}))*)"
PLACED_AFTER = re.compile(
    rf"^\W*(?:(?:in|over|of|at|involving|affecting|localized to)\b)? ?(?:the )?(?:"
    rf"{_WALLS}(?: (?:wall|lead|region|part)\b|(?= ,|$)|(?= (?:old|acute|recent)(?: ,|$)))"
    rf"|(?:lead )?(?P<leads>{LEADS})(?: lead)?\b)"
)
AFTER = re.compile(
    r"^\W*(?:(?:(?:is|are|was|may be|now) )?(?:(?P<certainty>nonspecific|(?:probabl[ey]|possibl[ey]"
    r"|suspected|likely|borderline|consider(?:ed)?)(?= ,|$)|cannot be (?:ruled out|excluded)"
    r"|not (?:excluded|ruled out)|\?(?= ?(?:,|$)))"
    r"|(?P<variant>(?:(?:probabl[ey]|possibl[ey]|likely|may be|could be|consider|represents?|as) )*"
    r"(?:an? )?normal variant)|(?:now )?(?:present|noted|seen|evident)|only)"
    r"|(?:(?:by|on|probabl[ey] by) (?:the )?(?:voltage|age)(?: criteria)?(?: only)?)"
    r"|for (?:the )?(?:rate|age)|(?:is )?(?:age|gender|sex)(?: and (?:age|gender|sex))? related"
    r"|(?:(?:in|of) )?(?:the )?(?:frontal|horizontal|limb|precordial|chest|extremity|diffuse|all)"
    r"(?: and (?:frontal|horizontal|precordial|chest|limb))? (?:lead|plane))"
)
# What a healthy heart may show, though its name is among those of diseases.
NORMAL_VARIANTS = frozenset(
    {"early_repolarization", "voltage_criteria_for_left_ventricular_hypertrophy"}
)
# Words that leave a finding open; only of such a finding it is told what may hide it.
HEDGED = re.compile(r"\b(?:cannot|possibl[ey]|consider|suspect|questionable|rule out)\b")
# "(masked by fascicular block?)": what would hide it is not stated.
MASKED = re.compile(
    r"(?: ,)? (?P<words>(?:(?:may|might|could) be |possibl[ey] |probabl[ey] )?"
    r"(?:masked|obscured|hidden) by)(?P<by>[^,?]*)(?: ?\?)?(?= ,|$)"
)
LINK = re.compile(
    r"\b(?:consider|suggest\w*|due to|secondary to|compatible with|consistent with|indicat\w+"
    r"|represent\w*|cannot|rule out|possibl[ey]|probabl[ey]|likely|related to|associated with"
    r"|with secondary|but|\?)(?= |$)"
)
JOINS_CAUSES = re.compile(
    r"^(?:(?:,|or|and|acute|old|normal|possibl[ey]|probabl[ey]|myocardial|recent|early"
    rf"|{WALL})(?: |$))*$"
)
EXPLAINED_KINDS = frozenset({"ST-T", "morphology", "axis", "interval"})
# An alternative to what stands before it; nothing but a list leads up to it.
ALTERNATIVE = re.compile(r"^[ ,]*(?:or|nor|versus)\b")
LISTED = re.compile(r"^[ ,]*$")
# A line that starts or ends so goes on with the line before it, or in the line after it.
CONTINUES = re.compile(
    r"^(?:with|and|or|nor|versus|but|in|over|due to|secondary to|may be|no longer|now (?=present"
    r"|evident)|is|are|was|were|has|have|cannot be|could not be|unlikely|improbable|doubtful"
    r"|(?:criteria )?not (?:present|seen|evident|met|likely|certain|excluded|ruled out)|excluded"
    r"|ruled out|absent|resolved)\b"
)
OPEN_END = re.compile(
    r"(?:,|\b(?:and|or|with|of|in|to|versus|consider|possible|probable|suggests?|rule out"
    r"|replaced(?: by)?))\s*$"
)
