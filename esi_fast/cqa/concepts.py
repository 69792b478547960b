"""The table of concepts: every thing that a statement can say, read from ``concepts.toml``."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent

# Walls of the heart in the order in which compound names put them, and the leads that look at them.
# None looks at the posterior wall: V1 to V3 see it from behind, with every sign reversed.
WALL_LEADS: dict[str, tuple[str, ...]] = {
    "inferior": ("II", "III", "aVF"),
    "posterior": ("V1", "V2", "V3"),
    "anterior": ("V1", "V2", "V3", "V4"),
    "septal": ("V1", "V2"),
    "apical": ("V3", "V4", "V5", "V6"),
    "lateral": ("I", "aVL", "V5", "V6"),
}
# How clinicians join two walls in one word; other sets are joined by "_" in WALL_LEADS' order.
_COMPOUND = {
    ("anterior", "septal"): "anteroseptal",
    ("anterior", "lateral"): "anterolateral",
    ("anterior", "septal", "lateral"): "anteroseptolateral",
    ("inferior", "lateral"): "inferolateral",
    ("inferior", "posterior"): "inferoposterior",
    ("inferior", "posterior", "lateral"): "inferoposterolateral",
    ("posterior", "lateral"): "posterolateral",
}
WALLS_OF_WORD: dict[str, tuple[str, ...]] = {
    **{wall: (wall,) for wall in WALL_LEADS},
    **{word: walls for walls, word in _COMPOUND.items()},
    "high": (),
    "basal": (),
    "inferoapical": ("inferior", "apical"),
    "septoapical": ("septal", "apical"),
    "anteroapical": ("anterior", "apical"),
}

# Words of a concept's name that are written otherwise in a sentence.
_WRITTEN = {
    "av": "AV",
    "st": "ST",
    "t": "T",
    "u": "U",
    "q": "Q",
    "r": "R",
    "p": "P",
    "qt": "QT",
    "pr": "PR",
    "qrs": "QRS",
    "ecg": "ECG",
    "rsr": "RSR'",
    "s1": "S1",
    "s2": "S2",
    "s3": "S3",
    "i": "I",
    "ii": "II",
    "mobitz": "Mobitz",
    "brugada": "Brugada",
}
_WRITTEN_WHOLE = {
    "st_t_abnormality": "ST-T abnormality",
    "t_wave_abnormality": "T-wave abnormality",
    "t_wave_inversion": "T-wave inversion",
    "low_t_wave_amplitude": "low T-wave amplitude",
    "first_degree_av_block": "first-degree AV block",
    "second_degree_av_block": "second-degree AV block",
    "third_degree_av_block": "third-degree AV block",
    "high_degree_av_block": "high-degree AV block",
    "wolff_parkinson_white": "Wolff-Parkinson-White pattern",
    "prolonged_qt": "prolonged QT interval",
    "short_qt": "short QT interval",
    "prolonged_pr": "prolonged PR interval",
    "short_pr": "short PR interval",
    "wide_qrs_tachycardia": "wide-QRS tachycardia",
    "poor_r_wave_progression": "poor R-wave progression",
    "non_st_elevation_myocardial_infarction": "non-ST-elevation myocardial infarction",
}


@dataclass(frozen=True, slots=True)
class Concept:
    """One row of the table: what a statement says, without wall, certainty or age.

    Attributes:
        name: the concept without its wall, for example ``"st_elevation"``.
        kind: rhythm, pacing, conduction, infarct, ST-T, hypertrophy, interval, morphology, axis,
            summary.
        rank: place in a caption, small first.
        walls: whether statements name the wall that it concerns.
        names_disease: whether it is a diagnosis (True) or the description of a shape.
        degree: the degree of block that it means, or None.
        patterns: regular expressions on folded text.
        qualifiers: words that may stand beside it and say nothing more that is kept.
    """

    name: str
    kind: str
    rank: int
    walls: bool
    names_disease: bool
    degree: str | None
    patterns: tuple[str, ...]
    qualifiers: frozenset[str]


@lru_cache(maxsize=1)
def concepts() -> dict[str, Concept]:
    """Every concept by name, in the table's order."""
    table: dict[str, Any] = tomllib.loads((_FOLDER / "concepts.toml").read_text(encoding="utf-8"))
    kinds = table.pop("kinds")
    return {
        name: Concept(
            name=name,
            kind=kind,
            rank=row.get("rank", kinds[kind]["rank"]),
            walls=row.get("walls", False),
            names_disease=row.get("names", kinds[kind]["names"]),
            degree=row.get("degree"),
            patterns=tuple(row["match"]),
            qualifiers=frozenset(row.get("beside", "").split()),
        )
        for kind, rows in table.items()
        for name, row in rows.items()
    }


@lru_cache(maxsize=1)
def codes() -> dict[str, str]:
    """The statement that each SCP-ECG or SNOMED CT code stands for."""
    table = tomllib.loads((_FOLDER / "codes.toml").read_text(encoding="utf-8"))
    return {code: text for group in table.values() for code, text in group.items()}


@lru_cache(maxsize=1)
def _matchers() -> tuple[re.Pattern[str], tuple[tuple[re.Pattern[str], Concept], ...]]:
    rows = [(pattern, concept) for concept in concepts().values() for pattern in concept.patterns]
    anywhere = re.compile(rf"(?<![\w'])(?:{'|'.join(f'(?:{row[0]})' for row in rows)})(?![\w'])")
    return anywhere, tuple((re.compile(rf"(?:{row[0]})(?![\w'])"), row[1]) for row in rows)


def find_concepts(folded: str) -> list[tuple[int, int, Concept]]:
    """Every concept named in folded text, without overlap: (start, end, concept).

    At one place the longest wording wins ("incomplete right bundle branch block", "normal ECG
    except for rate"), and between equals the one that the table lists first.
    """
    anywhere, patterns = _matchers()
    found = []
    position = 0
    while match := anywhere.search(folded, position):
        start = match.start()
        position, concept = start, None
        for pattern, candidate in patterns:
            here = pattern.match(folded, start)
            if here and here.end() > position:
                position, concept = here.end(), candidate
        if concept is None:
            raise ValueError(f"a pattern in concepts.toml matches nothing at {folded[start:]!r}")
        found.append((start, position, concept))
    return found


def concept_name(base: str, territory: tuple[str, ...]) -> str:
    """The concept with its wall: ``("st_elevation", ("inferior",))`` is inferior_st_elevation."""
    if not territory:
        return base
    return f"{_COMPOUND.get(territory, '_'.join(territory))}_{base}"


def ordered_walls(walls: set[str]) -> tuple[str, ...]:
    """The walls in the table's order."""
    return tuple(wall for wall in WALL_LEADS if wall in walls)


@lru_cache(maxsize=4096)
def split_concept(concept: str) -> tuple[str, tuple[str, ...]]:
    """A concept's base and walls: ``inferior_st_elevation`` is ("st_elevation", ("inferior",)).

    Raises:
        ValueError: the table has no such concept.
    """
    table = concepts()
    if concept in table:
        return concept, ()
    words = concept.split("_")
    for count in range(1, len(words)):
        base = "_".join(words[count:])
        if base in table and table[base].walls and all(w in WALLS_OF_WORD for w in words[:count]):
            walls = {wall for word in words[:count] for wall in WALLS_OF_WORD[word]}
            return base, ordered_walls(walls)
    raise ValueError(f"unknown concept {concept!r}; concepts.toml lists what a statement can say")


@lru_cache(maxsize=4096)
def display_name(concept: str) -> str:
    """A concept in words, as captions write it: ``"first_degree_av_block"`` is "first-degree AV
    block". An unknown statement (``"unknown:..."``) gives its own words.
    """
    if concept.startswith("unknown:"):
        return concept.removeprefix("unknown:")
    for base, written in _WRITTEN_WHOLE.items():
        if concept == base:
            return written
        if concept.endswith(f"_{base}"):
            return f"{display_name(concept.removesuffix(f'_{base}'))} {written}"
    return " ".join(_WRITTEN.get(word, word) for word in concept.split("_"))


@lru_cache(maxsize=1)
def concept_words() -> frozenset[str]:
    """Every word that the names of concepts are made of, in lower case."""
    return frozenset(
        word
        for name in concepts()
        for word in display_name(name).casefold().replace("-", " ").split()
    )
