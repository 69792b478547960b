"""Words that belong to the bedside and not into a description: advice, treatment, diseases."""

from __future__ import annotations

import re

# As an order or behind one of these: "give aspirin", "should start", "time to call".
_ORDERS = (
    "start|begin|give|administer|stop|refer|order|obtain|check|monitor|repeat|transfer|admit"
    "|perform"
    "|activate|initiate|discontinue|avoid|prescribe|ablate|implant|call|notify|contact|seek|arrange"
    "|schedule|proceed|consult|send|take|treat|stent|pace|shock|watch|observe|replace"
    "|restore|correct"
    "|exclude|evaluate|investigate|confirm|review|reassess|ask|see|go|do|use|get|insert|place|hold"
)
_TREATMENTS = (
    r"administ\w+|prescri\w+|ablat\w+|stent\w*|aspirin|heparin|warfarin|anticoag\w+|antiplatelet\w*"
    r"|antiarr?h?ythmic\w*|clopidogrel|ticagrelor|beta[- ]?block\w*|thromboly\w+|fibrinoly\w+|pci"
    r"|angioplast\w+|angiogra\w+|catheter\w*|revasculari\w+|reperfusion|cardiover\w+|defibrillat\w*"
    r"|resuscitat\w*|cpr|amiodarone|adenosine|atropine|lidocaine|procainamide|metoprolol|bisoprolol"
    r"|diltiazem|verapamil|flecainide|nitro\w+|statins?|morphine|oxygen|magnesium|insulin|calcium"
    r" (?:gluconate|chloride)|epinephrine|adrenaline|dopamine|diuretic\w*|furosemide"
    r"|ace inhibitors?"
    r"|tablets?|pills?|dos(?:e|es|age|ing)|infusions?|injections?|surg\w+|operat(?:ion"
    r"|ive)\w*|bypass"
    r" graft\w*|cabg|transplant\w*|implant\w*|icd|transcutaneous|transvenous|vagal manoeuvres?"
    r"|vagal maneuvers?|dialysis"
)
_CARE = (
    r"recommend\w*|treat\w*|therap\w*|medicat\w*|consult\w*|please|the patient|patients?"
    r"|advi[sc]\w+"
    r"|urgent\w*|immediate(?:ly)?(?! (?:before|after|preced\w+|follow\w+|behind|next|adjacent|ahead"
    r"|beside|upon))|refer(?:red|ral|ring)?|follow[ -]?up|emergenc\w+"
    r"|clinical(?:ly)? (?:correlat|evaluat|context|assess|signific|relevan)\w*|hospital\w*"
    r"|admission|ambulance|911|icu|ccu|intensive care|physicians?|doctors?|cardiologists?"
    r"|clinicians?"
    r"|nurses?|specialists?|management|manag(?:e|ed|ing)|interventions?|monitoring|monitored"
    r"|surveillance|echocardiogra\w+|troponins?|blood (?:test|work|pressure)\w*"
    r"|lab(?:oratory)? tests?"
    r"|work-?up|stress test\w*|holter|prompt(?:ly)?|needs? (?:an?|to|urgent|further|prompt"
    r"|attention"
    r"|careful|correction|no)|requir(?:e|es|ing) (?:an?|urgent|further|prompt|attention"
    r"|careful|medical"
    r"|treatment)|warrants?|warranted|is indicated|life-?threatening|fatal\w*|lethal|dangerous"
    r"|prognos\w+|mortality|at risk|high[ -]risk|low[ -]risk|harmless|benign|precautions?"
    r"|contraindicat\w*"
    r"|should(?! (?:rise|grow|be (?:seen|upright|positive|negative))\b)|ought to|must be (?:treated"
    r"|given|seen|started|corrected|excluded|ruled)|it is important|be careful|beware|caution"
)
# Both are for texts in lower case.
ADVICE = re.compile(
    rf"\b(?:{_CARE}|{_TREATMENTS})\b"
    rf"|(?:^|[.;:!,] *(?:and |then |so |now )?|\b(?:to|should|must|then|please|let us|do not"
    rf"|don't|may"
    rf"|can|now) )(?:{_ORDERS}) (?!in\b|on\b|with\b|from\b|behind\b|into\b|of\b|as\b|at\b|before\b"
    rf"|after\b|right\b|late\b|early\b)",
)
# Diseases and states of the body that the concept table does not hold; the endings stand for more.
DISEASE = re.compile(
    r"\b(?:\w{3,}(?:itis|opathy|ectasis|algia|penia|osis|oma|plegia)|hyp(?:er|o)\w+(?:emia"
    r"|aemia|ism)"
    r"|pulmonary embol\w+|(?:pulmonary|arterial|portal) hypertension|hypertensi(?:on|ve)|thyro\w+"
    r"|graves|covid\w*|coronavirus|influenza|pneumon\w+|pneumothorax|asthma|copd|emphysema|sepsis"
    r"|septic|infections?|fever|stroke|apoplexy|diabet\w+|uremi\w+|renal|kidneys?|liver|hepatic"
    r"|heart failure|cardiac failure|coronary(?: artery)? disease|atherosclero\w+|angina|takotsubo"
    r"|tamponade|effusions?|regurgitation|insufficiency|valv\w+|prolapse|endocardi\w+|dissection"
    r"|aneurysms?|thromb\w+|embol\w+|occlusions?|occluded|vasospasm|spasm|h(?:a)?emorrhag\w+"
    r"|bleed\w*"
    r"|an(?:a)?emi[ac]|cancers?|tumou?rs?|leuk(?:a)?emia|lymphoma|trauma|contusion|overdose"
    r"|poison\w*"
    r"|intoxicat\w+|toxicity|syncope|cardiac arrest|sudden (?:cardiac )?death|hypoxi[ac]\w*"
    r"|acidosis"
    r"|pregnan\w+|obes\w+|anxiety|panic|dementia|epilep\w+|seizures?|lyme|lupus|rheumat\w+|chagas"
    r"|amyloid\w*|sarcoid\w*|congenital|septal defect|tetralogy|ebstein\w*|marfan\w*|dysplasia"
    r"|channelopath\w*|muscular dystrophy|sleep apn\w+|malaria|tubercul\w+|hiv|aids|cor pulmonale"
    r"|hypothermi[ac]|brain injury|intracranial|subarachnoid|cocaine|alcohol\w*)\b"
)
