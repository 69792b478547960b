"""How sure a text is of its finding, and how old it calls it, against what the statement says."""

from __future__ import annotations

import re

from esi_fast.cqa.concepts import find_concepts
from esi_fast.cqa.folding import fold
from esi_fast.cqa.statements import Statement

# The hedges that keep each certainty.
_HEDGES = {
    "probable": r"probabl[ey]|likely|presum\w+|suggest\w*|(?:consistent|compatible) with",
    "possible": r"possibl[ey]|possibility|may|might|could|suspect\w*|suspicio\w+|suggest\w*|perhaps"
    r"|maybe|questionable|equivocal",
    "consider": r"consider(?:ed|ing|ation)?|possibl[ey]|possibility|may|might",
    "cannot_rule_out": r"can ?not (?:be )?(?:\w+ly )?(?:rule[d]? out|exclude[d]?|dismissed)"
    r"|not (?:be )?(?:\w+ly )?(?:excluded|ruled out)|possibl[ey]|possibility",
    "borderline": r"borderline|minimal(?:ly)?|slight(?:ly)?|marginal(?:ly)?|barely"
    r"|just (?:above|over)",
    "nonspecific": r"non-?specific(?:ally)?|not specific|unspecific",
}
_HEDGE_PATTERNS = {name: re.compile(rf"\b(?:{words})\b") for name, words in _HEDGES.items()}
# Words of doubt that are none: "nothing else is possible", "cannot be missed".
_NO_DOUBT = re.compile(
    r"\b(?:(?:nothing|none|not|never|no|hardly|nor|neither|beyond|without|more than|rather than"
    r"|far from|anything but|instead of)(?: \w+){0,3}?|(?:only|all|every|any|best|as \w+ as|if))"
    r" (?:possibl[ey]|possibility|probabl[ey]|probability|likely|likelihood|doubt\w*"
    r"|questionable|question|suspicio\w+|suggest\w*|borderline|consider\w*|suspect\w*|minimal(?:ly)?"
    r"|slight(?:ly)?|equivocal|perhaps|maybe|presum\w+|uncertain\w*|non-?specific|marginal(?:ly)?)\b"
    r"|\b(?:nothing|no one|nobody|none|no other \w+)(?: \w+){0,2} (?:may|might|could|can)\b"
    r"|\b(?:can ?not|can't|could not|couldn't|may not|might not|must not|should not) (?:be )?"
    r"(?:\w+ly )?(?:miss|mistak|overlook|den(?:y|ied)|doubt|confus|ignor|clear|question|disput"
    r"|more\b|anything|other|else|argu|fail|escape)\w*"
    r"|\b(?:may|might|could|can) (?:\w+ly |well )?be (?:\w+ly )?(?:called|stated|taken|diagnosed"
    r"|made|assumed|trusted|relied|regarded|accepted|considered) (?:as )?(?:definite|certain|proven"
    r"|diagnostic|established|safely|surely|without|confidently|with (?:certainty|confidence))\w*"
    r"|\bconsider(?:ed|s)? (?:as |to be )?(?:definite|certain|proven|diagnostic|established|sure)"
    r"|\bpossible to (?:see|miss|measure|count|read)|\bconsiderabl[ey]\b"
)
_SURE = re.compile(
    r"(?<!not )(?<!no )(?<!less than )(?<!without )\b(?:definite(?:ly)?|certain(?:ly|ty)?"
    r"|undoubted\w*|unmistak\w+|unequivocal\w*|diagnostic (?:of|for)|prove[ns]?|confirm(?:s|ed)"
    r"|established|sure(?:ly)?|obvious(?:ly)?|undeniabl[ey]|indisputabl[ey]|conclusive\w*"
    r"|pathognomonic|absolutely|must be an?)\b"
    r"|\b(?:no|beyond|without)(?: \w+){0,2} doubt\b|\bclearly (?:shows?|indicates?|an?|the)\b"
)
_DOUBT = re.compile(
    r"\b(?:possibl[ey]|possibility|probabl[ey]|likely|likelihood|perhaps|maybe|may|might|could"
    r"|suspect\w*|suspicio\w+|suggest\w*|presum\w+|questionabl[ey]|doubt\w*|equivocal|uncertain\w*"
    r"|unsure|tentativ\w+|borderline|consider(?:ed|ation)?|(?:consistent|compatible) with"
    r"|rule out|(?:can ?not|not) (?:be )?(?:\w+ly )?(?:excluded|exclude|ruled out|confirmed|proven"
    r"|established|certain|definite)|seems?|seemingly|appears? to|apparent(?:ly)?|versus"
    r"|differential|supposed\w*|putative|arguabl[ey]|if (?:real|true|present)|in question)\b|\?"
)
# How old, not whether: "possibly acute", "of uncertain age".
_DOUBTS_AGE = re.compile(
    r"\b(?:possibl[ey]|probabl[ey]|perhaps|maybe|likely|may be|might be|could be)"
    r" (?=(?:an? )?(?:acute|recent|old|new)\b)"
    r"|\b(?:uncertain|unclear|undetermined|unknown|indeterminate) age\b"
    r"|\bage (?:is |being |remains )?(?:uncertain|unclear|undetermined|unknown)\b"
)
_SIGN = re.compile(
    r"\b(?:[pqrstuj]|qs|qr|rs|qrs|st|st-t|pr|qtc?|rr|pp|rsr'?)\b|wave|complex|interval|segment"
    r"|axis|rhythm|beat|baseline|voltage|\brate\b|spike|depress|elevat|inver|progress|undulat|pause"
    r"|block|conduct|infarct|tachy|brady|fibrill|flutter|deflection|pattern|criteria|finding"
)
_LEAD = r"(?:av[rlf]|v[1-6]|i{1,3})"
_LEADS = re.compile(rf"\b{_LEAD}(?:(?:\s*(?:,|and|or|to|-|through)\s*)+{_LEAD})*\b")
# A hedge of where it is seen, and not of whether.
_OF_PLACE = re.compile(
    r"\b(?:possibly|probably|perhaps|maybe|likely|slightly|minimally|and)(?: (?:also|even))?"
    r" (?:in|into|to|over|across|toward|lead)\b"
)
_SENTENCE = re.compile(r"[.;!]\s+|[.;!]$")
_CLAUSE = re.compile(
    r",|\b(?:(?<!consistent )(?<!compatible )with|while|whereas|but|although|though|which"
    r"|whose|because|since|despite)\b"
)
_PREDICATE = re.compile(r"\b(?:may|might|could|is|are|be|cannot|can not|remains?|seems?)\b[\w ]*$")
_VERB = re.compile(r"\b(?:is|are|was|shows?|has|have|seen|present|lasts?|occurs?|there|follows?)\b")


def hedge_fault(text: str, statement: Statement) -> str:
    """Why the text is surer, or less sure, of its finding than the statement; or ""."""
    lowered = text.casefold()
    if statement.certainty == "definite":
        return _new_doubt(lowered, statement)
    if sure := _SURE.search(lowered):
        return f"holds {sure[0]!r} of a {statement.certainty} finding"
    if not _is_hedged(lowered, statement):
        return f"states a {statement.certainty} finding without the hedge"
    return ""


def _new_doubt(text: str, statement: Statement) -> str:
    text = _DOUBTS_AGE.sub(" ", _NO_DOUBT.sub(" ", text))
    # What a finding is put down to may be in doubt though the finding is not.
    of_cause = _names_in(statement.cause or "")
    for clause in re.split(r"[.;,]", text):
        doubt = _DOUBT.search(clause)
        if doubt and not (of_cause and of_cause & _names_in(clause)):
            return f"doubts a definite finding: {doubt[0]!r}"
    return ""


def _is_hedged(text: str, statement: Statement) -> bool:
    """Whether a hedge stands with the finding: in the text's main clause, or beside its name."""
    pattern = _HEDGE_PATTERNS[statement.certainty]
    if pattern.match(re.sub(r"^(?:to |an? )", "", text)) and not _NO_DOUBT.match(text):
        return True
    is_first, has_verb = True, False
    for sentence in _SENTENCE.split(_NO_DOUBT.sub(" ", text)):
        is_main = is_first
        for clause in _CLAUSE.split(_LEADS.sub("it", sentence)):
            whether = _OF_PLACE.sub(" ", clause)
            has_sign = _SIGN.search(whether) is not None
            if hedge := pattern.search(whether):
                # "II, III and others may show it": the predicate of all that stands before it.
                is_predicate = _PREDICATE.search(whether[: hedge.end()]) and not has_verb
                if (has_sign and is_first) or (is_predicate and is_main):
                    return True
                if statement.base in _names_in(whether):
                    return True
            is_first = is_first and not has_sign
            has_verb = has_verb or _VERB.search(whether) is not None
    return False


def _names_in(text: str) -> set[str]:
    return {concept.name for _, _, concept in find_concepts(fold(text))} if text else set()


# Words that date a finding. "New" and "previous" do so only before what can have an age.
_EVENT = (
    r"(?= (?:[\w-]+ ){0,3}?(?:infarct\w*|mi\b|n?stemi|injury|ischa?emi\w*|necrosis|damage|event"
    r"|occlusion|scar\w*|lesion|insult|attack|q[ -]waves?|st[ -]|changes?|process"
    r"|onset|stage|phase))"
)
_AGES = {
    "acute": r"(?:hyper|sub)?-?acute(?:ly)?|evolving|ongoing|fresh(?:ly)?|in progress|in evolution"
    r"|stemi|(?:minutes|hours) (?:old|ago)|(?:within|last|past|few|first) (?:\w+ )?"
    r"(?:minutes|hours|days)"
    rf"|(?:new(?:ly)?|recent(?:ly)?|early|current(?! of)|developing|active){_EVENT}|new[ -]onset"
    r"|recent|just (?:begun|occurred|happened)|today|presently occurring",
    "old": r"(?:long-)?old|chronic(?:ally)?|healed|long-?standing|years? (?:ago|earlier|before)"
    r"|(?:weeks|months|years|days) (?:old|ago|earlier|before)|in the past|scarred|scar\b(?! or)"
    r"|long ago|(?:previously|formerly) (?:suffered|had|sustained|infarcted)|completed|residual"
    rf"|(?:previous|prior|remote|past|former|late|earlier|bygone){_EVENT}|burnt[ -]out|sequela\w*"
    r"|remote",
}
_AGE_PATTERNS = {name: re.compile(rf"\b(?:{words})(?!\w)") for name, words in _AGES.items()}
# These leave the age open.
_NO_AGE = re.compile(
    r"\b(?:acute|recent|new|fresh) (?:or|versus|vs\.?|/) (?:old|chronic|remote|healed)\b"
    r"|\b(?:old|chronic|remote|healed) (?:or|versus|vs\.?|/) (?:acute|recent|new|fresh)\b"
    r"|\b(?:neither|whether)[\w ,-]*?\b(?:n?or)\b \w+"
)
_AGE_OF = {"acute": "acute", "recent": "acute", "possibly_acute": "acute", "old": "old"}
# A current of injury is acute and an aneurysm old without being called so.
_AGES_BY_NATURE = {"ventricular_aneurysm": "old", "tall_t_waves": "acute"}
_AGED_KINDS = frozenset({"infarct", "ST-T"})
_NOT = re.compile(
    r"\b(?:no|not|without|absen\w+|lacks?|never|nor|neither|none|non)\b[\w ]*$|\bnon-$"
)


def age_fault(text: str, statement: Statement) -> str:
    """Why the text dates its finding otherwise than the statement does; or ""."""
    if statement.kind not in _AGED_KINDS:
        return ""
    own = _AGE_OF.get(statement.acuity or "") or _AGES_BY_NATURE.get(statement.base)
    cause = (statement.cause or "").casefold()
    lowered = _NO_AGE.sub(" ", text.casefold())
    for age, pattern in _AGE_PATTERNS.items():
        for match in pattern.finditer(lowered):
            is_denied = _NOT.search(lowered[: match.start()]) is not None
            # Another age may be denied, the own one may not.
            if is_denied == (age == own) and not pattern.search(cause):
                given = statement.acuity or "undated"
                denied = "not " if is_denied else ""
                return f"calls a finding of {given} age {denied}{match[0]!r}"
    return ""
