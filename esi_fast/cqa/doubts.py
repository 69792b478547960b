"""The words in which reports deny, doubt, cannot judge, or tell of another ECG, as patterns.

``denials`` acts on them. All of them are for folded text.
"""

from __future__ import annotations

import re

_EARLIER = r"(?:prior|previous|last|earlier|old(?:er)?|past|outside|preceding|baseline)"
_ECG = r"(?:ecg|tracing|record(?:ing)?|study|exam\w*|strip|electrocardiogram|report)"
_MAY = r"(?:may|might|can|could|will|would)"
# Small words before or inside a denial, which say no more than it does.
_SMALL = (
    r"(?:(?:is|are|was|were|be|been|being|has|have|had|seems?|appears?|remains?|considered|thought"
    r"|felt|very|highly|most|rather|quite|so|that|entirely|completely|absolutely|fully|yet|clearly"
    r"|definite(?:ly)?|definitively|reliably|adequately|accurately|safely|confidently|further|well"
    r"|certainly|properly|formally|conclusively|probably|now|both|all|to be|an?|any|the) )*"
)
_NOT = rf"not {_SMALL}"
_JUDGED = (
    r"(?:assess|evaluat|interpret|judg|determin|diagnos(?!tic)|analy[sz]|measur|ascertain|establish"
    r"|confirm|verif|prove|comment|read|recogni[sz]|detect|identif)\w*"
)
_MET = r"(?:met|meet|fulfil\w*|satisf\w+|reach\w*|attain\w*)"
_SEEN = (
    r"(?:present|seen|evident|noted|identified|found|detected|demonstrated|observed|apparent"
    r"|visible|visuali[sz]ed|shown|appreciated|there)"
)
_SHAPED = r"(?:elevat|depress|inver|prolong|short|wid|flat|peak)\w*"
# What is found and may mean nothing, or have any cause: it is there all the same.
_UNSURE = (
    r"(?:doubtful|dubious|uncertain|unclear|unknown|undetermined|indeterminate|questionable"
    r"|equivocal|debatable|unlikely|limited|little|no)"
)
_MEANING = (
    r"(?:clinical |diagnostic )?(?:significance|importance|relevance|meaning|origin|a?etiology"
    r"|cause)"
)
# Rate and age beside "normal except for" are read with it.
_EXCEPT = (
    r"(?:except|apart from|aside from|other than|save|but)(?: for)?"
    r"(?! (?:for )?(?:the )?(?:rate|age)\b)"
)


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w'])(?:{pattern})(?![\w'])")


# In this order.
REWRITTEN = tuple(
    (_words(pattern), words)
    for pattern, words in (
        # what sounds like a denial and is none
        (r"(?:no|without|beyond)(?: (?:a|any))? doubt|not only", " "),
        (r"limited to", "in"),
        (
            rf"(?:of (?:an? )?{_UNSURE}|without) {_MEANING}"
            rf"|, {_MEANING} {_SMALL}{_UNSURE}(?= ,|$)",
            " ",
        ),
        (
            r"(?:is |was |were )?(?:not|never|absent) (?:(?:present|seen|noted|there|evident) )?"
            rf"(?:(?:on|in|at) (?:the )?{_EARLIER} (?:{_ECG})|previously|before|earlier)",
            ", new",
        ),
        (
            r"no(?: \w+)? (?:abnormality|finding|change|arrhythmia|abnormal finding) ?"
            r"(?:, )?(?:other than|than|besides|but|save)(?: for)?",
            ",",
        ),
        (r"([^,]+?) (?:is )?a possibility", r"possible \1"),
        (r"([^,]+?) (?:should|must|may) be considered", r"consider \1"),
        (
            r"no (?:new )?acute (?:(?:ecg|ischemic|st|st t) )?"
            r"(?:change|process|finding|abnormality|disease)(?= ,|$)",
            ",",
        ),
        (r"without (?:an? )?(?:rapid|slow) ventricular (?:response|rate)", ","),
        (r"acute on (?:chronic|old)", "acute"),
        (r"([^,]+?)(?<! has)(?<! have)(?<! been) replaced(?! by| with)(?= )", r"\1 , no"),
        # neither excluded nor found
        (
            rf"{_SMALL}(?:not|cannot|could not|should|must|(?:needs?|has|have|remains?) to) "
            rf"{_SMALL}(?:ruled out|excluded)",
            "cannot be ruled out",
        ),
        (
            rf"(?:difficult|hard|impossible|not possible) to {_SMALL}(?:rule out|exclude)(?= ,|$)",
            "cannot be ruled out",
        ),
        (
            rf"(?:(?:does|do|did|can|could|would) not|cannot|(?:unable|not able|fails?|difficult"
            rf"|hard|impossible|not possible|needs?|have|has) to) {_SMALL}(?:rule out|exclude)",
            "cannot rule out",
        ),
        (r"exclude", "cannot rule out"),
        # what is no normal ECG, and what else is found on a normal one
        (rf"{_ECG} {_SMALL}{_NOT}normal", "abnormal ecg"),
        (
            rf"(?:otherwise )?(?:normal(?: {_ECG})?|within normal limit) (?:, )?{_EXCEPT}",
            "otherwise normal ecg ,",
        ),
        (r"(?:except|apart from|aside from)(?: for)?(?! (?:for )?(?:the )?(?:rate|age)\b)", ","),
        (r"(?:high|moderate) (?:probability|likelihood|suspicion) (?:of|for)", "probable"),
        # one of two
        (r"neither", "no"),
        (r"(?:rather than|instead of|as opposed to|in place of)", ", no"),
        (r"((?:return\w*|conver\w+|rever\w+|transition\w*) to [^,]+?) from", r"\1 , no"),
        (r"not ([^,]*) but (?:a )?sinus(?! \w)", r"not \1 but sinus rhythm"),
        (r"([^,]+) less likely than ([^,]+)", r"\1 unlikely , possible \2"),
        (r"([^,]+) more likely than ([^,]+)", r"possible \1 , no \2"),
        # "ST no longer elevated", "QT is not prolonged"
        (
            rf"((?:st|t|p|u|qtc?|pr|qrs)(?: wave| segment| interval| complex)?) {_SMALL}"
            rf"(?:no longer|not) {_SMALL}({_SHAPED})",
            r"no \1 \2",
        ),
        (r"no (t(?: wave)?) (flat|peak)\w*", r"no \2 \1"),
    )
)

# How a line speaks of the finding beside the words:
_CUES = {
    # it is of another time, or only looked for
    "history": (
        r"(?<!no )(?:(?:family|familial|clinical|past|medical|known|personal|remote|patient) )*"
        r"(?:histor(?:y|ies)|f?hx|pmhx?|h o)(?: (?:of|for|with))?"
        rf"|(?<!no )(?:clinical )?indications?(?: (?:for|of))?(?: (?:this )?{_ECG})?"
        rf"|reason for (?:the )?(?:test|visit|referral|{_ECG})|refer(?:red|ral) (?:for|with)"
        r"|(?:evaluate|assess|check|test|look(?:ing)?|search(?:ing)?|watch(?:ing)?) for"
        r"|comparison|screen(?:ing|ed)?(?: (?:test|ecg))?(?: for)?|status post|s p"
        r"|(?:evaluation|work ?up|follow ?up|monitoring|concern|request\w*) (?:for|of)"
        r"(?![^,]* (?:limited|difficult|impossible|unreliable|not|hampered|compromised|precluded))"
        rf"|(?:(?:on|in|from|the|an?|his|her|most|first) )*{_EARLIER} {_ECG}"
        r"(?: (?:showed|shows|had|with|of|from|demonstrated|revealed|was|read))*"
    ),
    # it was there at another time
    "was": (
        rf"(?:on|in|at|from|by|per|during) (?:(?:the|an?|his|her|most|recent) )*{_EARLIER}"
        rf"(?: {_ECG})?|in the past|(?:by|per) (?:\w+ )?history|historically|yesterday"
        r"|last (?:week|month|year|visit)|(?:years?|months?|weeks?|days?) ago"
    ),
    # this ECG does not show whether it is there
    "judge": (
        rf"(?:cannot|could not|not) {_SMALL}{_JUDGED}(?: (?:for|on|of))?"
        r"|(?:unable|not able|impossible|not possible|difficult|hard|inadequate|insufficient\w*)"
        rf" to {_SMALL}{_JUDGED}(?: (?:for|on|of))?"
        rf"|{_NOT}(?:assessable|interpretable|evaluable|measurable|possible|reliable)"
        r"|uninterpretable|unassessable|unreliable|limited|compromised|hampered|impossible"
        r"|hindered|prevented|precluded|masked|obscured|hidden|concealed"
    ),
    # what stands before hides it
    "masks": (
        rf"(?:{_MAY} )?(?:preclud(?:es?|ing)|mask(?:s|ing)?|obscur(?:es?|ing)|hid(?:es?|ing)"
        r"|conceal(?:s|ing)?|prevent(?:s|ing)?|limit(?:s|ing)|invalidat(?:es?|ing)"
        r"|interfer(?:es?|ing) with|hamper(?:s|ing)?|hinder(?:s|ing)?|confound(?:s|ing)?"
        r"|complicat(?:es?|ing)"
        r"|(?:makes?|making|renders?|rendering)(?= [^,]*(?:difficult|impossible|unreliable"
        r"|uncertain|invalid|limited|uninterpretable|hard)))"
    ),
    "unless": r"unless",
    # it is not there; it follows, or stands before, or either
    "no": (
        r"(?:free|devoid) (?:of|from)|(?:little|scant|minimal|scarce) evidence (?:of|for)"
        r"|(?:insufficient|inadequate|not enough|no|lack of|lacks|not sufficient)"
        r" (?:voltage |ecg )?(?:evidence|criteria|support|grounds?|sign|signs)"
        r"(?: (?:for|of|to (?:suggest|support|diagnose|indicate)))?"
        rf"|(?:(?:unable|not able|fail(?:s|ed|ing)?) to|(?:does|do|did) not) {_SMALL}{_MET}"
        r"(?: the)?(?: criteria)?(?: (?:for|of))?"
        r"|(?:falls? )?(?:short of|below)(?: the)?(?: (?:criteria|threshold))?(?: for)?"
        r"|nothing (?:to )?(?:suggest\w*|indicat\w*)(?: of)?"
        rf"|(?:inconsistent|incompatible|{_NOT}consistent|{_NOT}compatible) with"
        r"|(?:(?:evidence|argu\w+|speaks?|speaking|mitigates?|militates?|points?|goes) )?against"
        r"|rules out|excludes|excluding|(?:termination|(?:cardio|con)version|disappearance) of"
        r"|(?:conver\w+|revert\w*|reversion|transition\w*) from|never|nil"
    ),
    "absent": (
        rf"(?<!cannot be )(?:ruled out|excluded)|{_NOT}{_MET}|unmet|unfulfilled"
        rf"|(?:no longer|not) {_SMALL}{_SEEN}|(?:no longer|nil|no)(?= ,|$)"
        r"|absent(?! (?!in|on|at|from|today)\w)|resolved|disappeared|vanished|gone|ceased|stopped"
        r"|subsided|abolished|ended|terminated|cardioverted|none|refuted|rejected|dismissed"
    ),
    "turned": (
        r"(?:converted|cardioverted|changed|reverted|replaced|turned|transitioned|terminated"
        r"|superseded) (?:(?:in)?to|by|with)|gave way to|given way to"
    ),
    "denies": r"(?:patient |pt )?den(?:y|ies|ied|ying)",
    "unlikely": (
        r"(?:unlikely|improbable|doubtful|dubious|implausible|unconvincing|less (?:likely|probable)"
        r"|hardly(?: likely)?|scarcely|(?:low|little|remote) (?:probability|likelihood|suspicion"
        r"|possibility)(?: (?:of|for))?"
        rf"|{_NOT}(?:likely|probable|suspected|favou?red|supported|suggested|plausible|believed))"
        r"(?: (?:to (?:be|represent|have|reflect)|that|for|there is))*"
    ),
    # it is possible at best
    "doubt": (
        r"(?<!of )(?<!age )(?<!age is )"
        rf"(?:{_NOT}(?:certain|definite|definitive|clear|sure|conclusive|diagnostic|specific|proven"
        r"|convincing|obvious|typical|classic)|uncertain(?! age)|unclear|inconclusive|equivocal"
        r"|debatable|unproven|questionable(?= ,|$)|questioned)"
        r"(?: (?:if|whether|for|of|that|there is))*"
    ),
}
CUE = _words(
    _SMALL + "(?:" + "|".join(f"(?P<{name}>{words})" for name, words in _CUES.items()) + ")"
)

# What a line may not hold beside a finding unless it has been read.
UNREAD = _words(
    r"no|not|non|none|nil|never|without|absen\w+|lack\w*|nothing|negative|against|cannot"
    r"|could not|unable|unlikely|improbable|implausible|doubt\w*|dubious|unclear|equivocal"
    r"|(?<!age )(?<!age is )uncertain(?! age)|unconvincing|inconclusive|debatable|unproven"
    r"|unsupported|unconfirmed|hardly|scarcely|barely|question|probability|likelihood|suspicion"
    r"|exclu\w+|den(?:y|ies|ied|ying)|ruled|rules|rule|fail(?:s|ed|ing)|insufficient|inadequate"
    r"|free|refut\w+|reject\w+|dismiss\w+|contradict\w+|discount\w*|unless|neither|instead"
    r"|rather|except|prior|previous(?:ly)?|history|histories|historical\w*|hx|fhx|family|familial"
    r"|screen\w*|indications?|comparison|earlier|former(?:ly)?|yesterday|ago|past|known|last"
    r"|resolved|disappeared|vanished|ceased|stopped|subsided|terminated|conver\w+|cardiover\w+"
    r"|pseudo\w*|mimic\w*|simulat\w*|resembl\w*|masks?|masked|masking|obscur\w+|preclud\w+|hidden"
    r"|false\w*|spurious\w*|errone\w*|retract\w*|withdrawn|overcall\w*|misread|incorrect\w*"
    r"|wrong\w*|reason|refer\w*|cancel\w*|disregard\w*|void(?:ed)?|disagree\w*|actually"
    r"|correction|corrected|ablat\w+|treat\w*"
)
