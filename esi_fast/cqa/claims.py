"""What a text asserts and what it denies about waves, intervals, axis, rhythm and rate, by name."""

from __future__ import annotations

import re
from functools import lru_cache

_QRS = r"(?:qrs(?: complex(?:es)?)?|beats?|(?:ventricular )?complex(?:es)?)"
_P = r"p(?:[ -]waves?)?"
# The verb between a wave and what is said of it, with an adverb or two.
_IS = (
    r"(?: (?:\w+ ){0,2}?(?:is|are|appears?|looks?|seems?|stays?|remains?|measures?|lies|lie"
    r"|was|were"
    r"|being|has|have|shows?|points?|runs?|turns?|turned|deviates?|deviated|swings?|directed"
    r"|shifted))?"
)


def _said(noun: str, *qualities: str) -> str:
    """A quality before a noun or behind it: "long PR", "the PR interval is clearly long"."""
    words = "|".join(qualities)
    return (
        rf"\b(?:{words})(?: (?!p\b|t\b|st\b|qrs\b|pr\b|qtc?\b|and\b|or\b|in\b|of\b)\w+){{0,2}}?"
        rf" {noun}\b|\b{noun}{_IS}(?: (?:of|to|towards?|a|the|in|at|too|not|never|hardly"
        rf"|no longer|\w+ly|quite|very|well|all)\b)"
        rf"{{0,4}} (?:{words})\b"
    )


_PR, _QT = r"(?:pr|p-r)(?: (?:interval|duration|time)s?)?", r"(?:qtc?|q-t)(?: (?:interval|time)s?)?"
_QRS_WIDTH = r"(?:qrs(?: (?:complex(?:es)?|duration|width|interval))?|complex(?:es)?)"
_AXIS = r"(?<!\bp )(?<!\bt )(?<!wave )axis"
_ST, _T = r"st(?:[ -]segments?)?", r"t(?:[ -]waves?)?"
_RHYTHM = (
    r"(?:rhythm|rr(?:[ -]intervals?)?|r-r(?: intervals?)?|(?:ventricular"
    r"|qrs) (?:rhythm|beats|complexes|response)|spacing)"
)
_RATE = r"(?:(?:heart |ventricular |atrial )?rate|rhythm|succession)"
_NORMAL = (
    "normal",
    "(?:with)?in normal limits?",
    "within (?:the )?normal",
    "unremarkable",
    "ordinary",
    "preserved",
)
_LONG = (
    "long",
    "longer",
    "prolonged",
    "lengthened",
    "increased",
    "delayed",
    "extended",
    "stretched",
)
_SHORT = ("short", "shorter", "shortened", "brief", "abbreviated", "decreased", "reduced")
_FAST = ("fast", "rapid", "quick", "high", "increased", "accelerated", "tachycardic")
_SLOW = ("slow", "low", "decreased", "reduced", "bradycardic", "unhurried")
_CLAIMS = {
    "p_before_each_qrs": rf"\b(?:a |one )?p[ -]waves? (?:\w+ ){{0,3}}?(?:before|preced\w+|lead\w*"
    rf"|ahead of|in front of) (?:each|every|all|the) (?:\w+ )?{_QRS}"
    rf"|(?:each|every|all) (?:of the )?{_QRS} (?:\w+ ){{0,2}}?(?:preceded by|follows?|has"
    rf"|have|led by|with)"
    rf" (?:its own |a |an |one )?(?:\w+ ){{0,3}}?p\b"
    r"|\b1:1 (?:av |atrioventricular )?(?:conduction|relationship|association)"
    r"|\bregular p[ -]waves?\b|\b(?:sinus )?p[ -]waves? (?:are )?present\b"
    r"|\bnormal p[ -]waves?\b|\bp[ -]waves? (?:are |is )?(?:\w+ly )?(?:normal|upright and|regular)",
    "p_waves": r"\bp(?:[ -]waves?\b|\b(?! axis| r\b))",
    "no_p": r"\b(?:no|absent|without) (?:\w+ )?p[ -]waves?\b"
    r"|\bp[ -]waves? (?:are |is )?(?:entirely |completely )?(?:absent|missing|lost"
    r"|not (?:seen|present|visible))",
    "all_conducted": rf"\b(?:every|each|all)(?: of)?(?: the)? (?:{_P}|atrial \w+) (?:(?:is"
    rf"|are) )?(?:\w+ly )?"
    rf"(?:conduct\w*|followed by|leads? to|reach\w*|captur\w*|gives? rise|produc\w*|passes|pass"
    rf"|(?:has|have) (?:a|its|their) (?:\w+ )?(?:qrs|complex))"
    r"|\b(?:av |atrioventricular )conduction (?:is )?(?:\w+ly )?(?:intact|normal|preserved"
    r"|undisturbed)"
    r"|\b(?:normal|intact|undisturbed) (?:av |atrioventricular )conduction"
    r"|\b1:1 (?:av |atrioventricular )?(?:conduction|relationship|association)",
    "none_blocked": r"\b(?:no|none of the|not one|never a) (?:p(?:[ -]waves?)?|atrial impulses?) "
    r"(?:(?:is|are|being|gets|goes) )?(?:\w+ly )?(?:blocked|dropped|lost|nonconducted|unconducted)",
    "normal_pr": _said(_PR, *_NORMAL),
    "long_pr": _said(_PR, *_LONG),
    "short_pr": _said(_PR, *_SHORT),
    "normal_qrs": _said(_QRS_WIDTH, "narrow(?:[ -]qrs)?", "slender", "thin", *_NORMAL)
    + r"|\bqrs (?:complex(?:es)? )?(?:is |are )?of normal",
    "wide_qrs": _said(_QRS_WIDTH, "wide", "broad", "widened", "broadened", "prolonged"),
    "normal_qtc": _said(_QT, *_NORMAL),
    "long_qtc": _said(_QT, *_LONG),
    "short_qtc": _said(_QT, *_SHORT),
    "normal_axis": _said(_AXIS, *_NORMAL),
    "left_axis": _said(_AXIS, "left(?:wards?)?"),
    "right_axis": _said(_AXIS, "right(?:wards?)?"),
    "regular": _said(
        _RHYTHM, "regular", "perfectly even", "constant", "evenly spaced", "equal", "unvarying"
    )
    + r"|(?<!ir)(?<!ir-)\bregular (?:rhythm|rr|r-r|intervals|ventricular)\b"
    r"|\b(?:evenly|equally|regularly) spaced (?:qrs|beats|(?:ventricular )?complexes)",
    "even_distances": r"\b(?:equal|even|regular|constant|identical) (?:distances?|intervals?"
    r"|spacing)\b",
    "irregular": _said(
        _RHYTHM, "irregular(?:ly irregular)?", "uneven", "chaotic", "erratic", "random"
    ),
    "normal_ecg": r"\bnormal (?:ecg|tracing|electrocardiogram)\b"
    r"|\b(?:ecg|tracing|electrocardiogram)(?: (?:is|appears|looks))?(?: \w+ly)? (?:normal"
    r"|unremarkable)\b",
    "nothing_abnormal": r"\bno (?:\w+ )?(?:abnormalit\w+|abnormal findings?)\b|\bnothing abnormal\b"
    r"|\bno (?:sign|evidence)s? of (?:disease|abnormalit\w+|any)",
    "st_elevation": r"\bst(?:[ -]segments?)? (?:\w+ ){1,2}elevations?\b|"
    r"\bst(?:[ -]segments?)?[ -]elevations?\b|\belevat\w+ (?:of (?:the )?)?st\b"
    + "|"
    + _said(_ST, "elevated", "raised", "above the baseline", "lifted"),
    "st_depression": r"\bst(?:[ -]segments?)?[ -](?:depressions?|lowering)\b"
    r"|\bdepress\w+ (?:of (?:the )?)?st\b"
    + "|"
    + _said(_ST, "depressed", "lowered", "below the baseline", "sagging"),
    "isoelectric_st": _said(
        _ST,
        "isoelectric",
        "iso-electric",
        "(?:on|at) the baseline",
        "flat on the baseline",
        *_NORMAL,
    ),
    "inverted_t": _said(_T, "inverted", "negative", "turned over", "below the baseline")
    + r"|\bt(?:[ -]waves?)? inversions?\b|\binversion of (?:the )?t\b",
    "upright_t": _said(_T, "upright", "positive", *_NORMAL),
    "flat_t": _said(_T, "flat", "flattened", "small", "low"),
    "tall_t": _said(_T, "tall", "peaked", "pointed", "tented", "high"),
    "q_waves": r"\b(?:q|qs)(?:[ -]waves?| complex(?:es)?)\b",
    "normal_voltage": _said(r"(?:qrs )?(?:voltages?|amplitudes?)", *_NORMAL),
    "low_voltage": _said(r"(?:qrs )?(?:voltages?|amplitudes?)", "low", "small", "reduced")
    + r"|\bsmall qrs\b",
    "high_voltage": _said(
        r"(?:qrs )?(?:voltages?|amplitudes?)", "high", "large", "increased", "tall"
    )
    + r"|\b(?:tall|large) r(?: waves?)?\b",
    "fast_rate": _said(_RATE, *_FAST),
    "slow_rate": _said(_RATE, *_SLOW),
    "normal_rate": _said(_RATE.replace("|rhythm", ""), *_NORMAL),
    "flutter_waves": r"\bflutter waves?\b|\bsaw-?tooth\w*\b",
    "delta_wave": r"\bdelta[ -]waves?\b",
    "spikes": r"\b(?:pac(?:ing|er|emaker) )?(?:spikes?|stimul(?:us|i)|artifacts?)\b",
    "dissociated": r"\bdissociat\w+|\bindependent(?:ly)?\b|\bunrelated\b",
    "associated": r"\b(?:p[ -]waves?|atria|atrial activity)(?: \w+){0,4}? (?:related|linked"
    r"|tied|coupled|locked"
    r"|synchronis\w+|synchroniz\w+|in step)\b|\bconstant (?:pr|p-r)\b|\b(?:pr"
    r"|p-r)(?: intervals?)?(?: is| are)?"
    r" (?:constant|fixed)\b",
    "early_beats": r"\b(?:early|premature) (?:\w+ ){0,3}?(?:beats?|complex(?:es)?|qrs)\b",
    "late_beats": r"\b(?:late|delayed) (?:\w+ ){0,3}?(?:beats?|complex(?:es)?|qrs)\b",
    "rsr_in_v1": r"\b(?:rsr'?|rsr|second r'?)(?: \w+){0,3}? in (?:leads? )?v1\b|\brbbb\b",
    "broad_r_lateral": r"\b(?:broad|wide|notched"
    r"|slurred)(?: \w+)? r(?: waves?)? in (?:leads? )?(?:i|avl|v5|v6)\b",
    "qrs_negative_in_i": r"\bnegative(?: (?:qrs|complex\w*|r"
    r"|deflection\w*))? in (?:leads? )?(?:i|one)\b",
    "qrs_positive_in_i": r"(?<!p )(?<!p waves )(?<!t )(?<!t waves )\b(?:positive|upright)"
    r"(?: (?:qrs|complex\w*|r|deflection\w*))? in (?:leads? )?(?:i|one)\b",
}
_CLAIM_PATTERNS = {name: re.compile(pattern) for name, pattern in _CLAIMS.items()}
# The words without which a claim is not made: a text that lacks them need not be searched for it.
_NEEDED = {
    **dict.fromkeys(("normal_pr", "long_pr", "short_pr"), re.compile(r"\bpr\b|p-r")),
    **dict.fromkeys(("normal_qtc", "long_qtc", "short_qtc"), re.compile("q-?t")),
    **dict.fromkeys(("normal_axis", "left_axis", "right_axis"), re.compile("axis")),
    **dict.fromkeys(("fast_rate", "slow_rate", "normal_rate"), re.compile("rate|rhythm|success")),
    **dict.fromkeys(("normal_voltage",), re.compile("volt|ampl")),
    **dict.fromkeys(("normal_qrs", "wide_qrs"), re.compile("qrs|complex")),
    **dict.fromkeys(("st_elevation", "st_depression", "isoelectric_st"), re.compile(r"\bst\b")),
    **dict.fromkeys(("inverted_t", "upright_t", "flat_t", "tall_t"), re.compile(r"\bt\b")),
    **dict.fromkeys(
        ("regular", "irregular"), re.compile("regular|even|const|equal|chao|err|rand|unvary")
    ),
}
_CLAUSE = re.compile(
    r"[.;,:]|\b(?:but|with|and|while|whereas|although|yet|so|beside|over|against)\b"
)
_DENIES = re.compile(
    r"\b(?:no|not|cannot|without|absen\w+|lack\w*|loss of|lost|never|nor|neither|none|rather than"
    r"|instead of|in place of|in lieu of|replac\w+|missing|free of|devoid of|unlike|hardly"
    r"|isn't|aren't"
    r"|doesn't|don't|fails? to|non)\b"
)
# What cannot be excluded is not denied.
_NOT_DENIED = re.compile(
    r"\b(?:cannot|can not|not) (?:be )?(?:\w+ly )?(?:rule out|ruled out|exclude|excluded)\b"
    r"|\bno longer\b(?= than)"
)
# Where a wave is seen does not part it from what is said of it.
_LEAD = r"(?:leads? )?(?:av[rlf]|v[1-6]|i{1,3})"
_PLACE = re.compile(
    rf" (?:in|of|over|across) {_LEAD}(?:(?:,| and| or| to|-)+ ?{_LEAD})*"
    r"(?= (?:is|are|appears?|looks?|remains?|seems?|stays?)\b)"
)
_DENIES_AFTER = re.compile(
    r"^[ ]?(?:(?!or\b)[\w-]+ ){0,4}?(?:(?:is|are|was|were|being|can"
    r"|could) (?:\w+ly )?)?(?:not(?! only| confined"
    r"| limited| restricted| always| the same)|cannot|absent|missing|lacking|lost|invisible"
    r"|replaced"
    r"|never|no longer|hidden|unclear|indiscernible|unrecogni\w+|indistinct|excluded"
    r"|isn't|aren't|doesn't|don't|resolved|gone)\b"
)
_DENIAL = frozenset({"no_p", "none_blocked", "nothing_abnormal"})


@lru_cache(maxsize=4096)
def claims_and_denials(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """What a text asserts, and what it denies."""
    lowered = _PLACE.sub("", _NOT_DENIED.sub(" ", text.casefold()))
    asserted, denied = set[str](), set[str]()
    for name, pattern in _CLAIM_PATTERNS.items():
        if name in _NEEDED and not _NEEDED[name].search(lowered):
            continue
        for match in pattern.finditer(lowered):
            is_denied = name not in _DENIAL and _is_denied(lowered, match.start(), match.end())
            (denied if is_denied else asserted).add(name)
    return frozenset(asserted), frozenset(denied)


def _is_denied(text: str, start: int, end: int) -> bool:
    clause = 0
    for edge in _CLAUSE.finditer(text, 0, start):
        clause = edge.end()
    next_edge = _CLAUSE.search(text, end)
    rest = text[end : next_edge.start() if next_edge else len(text)]
    return bool(_DENIES.search(text, clause, end) or _DENIES_AFTER.search(rest))
