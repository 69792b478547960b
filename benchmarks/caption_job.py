"""The whole caption job of MIMIC-IV-ECG: its number of distinct report lines, and of records."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from esi_fast.cqa.caption import compose
from esi_fast.cqa.concepts import concepts, display_name
from esi_fast.cqa.generate import describe_reports

# Distinct report strings (of a published dictionary of them) and records of MIMIC-IV-ECG 1.0.
NUM_LINES = 3862
NUM_RECORDS = 800_035
_HEDGES = ("", "", "", "Possible ", "Probable ", "Consider ", "Cannot rule out ", "Borderline ")
_WALLS = ("inferior ", "anterior ", "lateral ", "anteroseptal ", "anterolateral ", "posterior ")
_AGES = ("", "", ", age undetermined", ", possibly acute", ", old")


@dataclass(frozen=True, slots=True)
class CaptionJob:
    """What was done and how long it took, in CPU seconds of one core.

    Attributes:
        lines: distinct report lines, made for this.
        canonical: canonical statements among them.
        describe_s: to normalise, retrieve, write by the template and check all of them.
        composed: records whose captions were composed, with measurements and demographics.
        compose_s: for all of them.
    """

    lines: int
    canonical: int
    describe_s: float
    composed: int
    compose_s: float

    @property
    def captions_per_s(self) -> float:
        """Captions composed in a core-second."""
        return self.composed / self.compose_s

    @property
    def whole_job_s(self) -> float:
        """CPU seconds for all records of MIMIC-IV-ECG: computed from the two."""
        return self.describe_s * NUM_LINES / self.lines + NUM_RECORDS / self.captions_per_s

    def summary(self) -> str:
        """One line."""
        return (
            f"{self.lines} distinct lines described in {self.describe_s:.1f} s "
            f"({self.canonical} canonical statements), {self.captions_per_s:,.0f} captions/s; all "
            f"{NUM_RECORDS:,} of MIMIC-IV-ECG, computed: {self.whole_job_s / 60:.1f} core-minutes"
        )


def caption_job(num_lines: int = NUM_LINES, num_records: int = 40_000) -> CaptionJob:
    """Measures it on lines in devices' wording and on records drawn of them."""
    draw = random.Random(0)
    lines = device_lines(num_lines, draw)
    started = time.process_time()
    dictionary = describe_reports([line] for line in lines)
    describe_s = time.process_time() - started

    # Three lines a report; as in life, few reports are common and many are rare.
    reports = [[draw.choice(lines) for _ in range(3)] for _ in range(num_records // 4)]
    records = [
        (
            reports[int(len(reports) * draw.random() ** 3)],
            {
                "heart_rate": draw.uniform(45, 130),
                "pr": draw.uniform(110, 260),
                "qrs": draw.uniform(70, 160),
                "qtc_bazett": draw.uniform(380, 520),
                "qrs_axis": draw.uniform(-90, 180),
            },
            draw.uniform(18, 95),
            draw.choice(["male", "female"]),
            draw.getrandbits(32),
        )
        for _ in range(num_records)
    ]
    started = time.process_time()
    for report, measured, age, sex, seed in records:
        compose(report, measurements=measured, age=age, sex=sex, dictionary=dictionary, seed=seed)
    compose_s = time.process_time() - started
    return CaptionJob(len(lines), len(dictionary), describe_s, num_records, compose_s)


def device_lines(count: int, draw: random.Random) -> list[str]:
    """Distinct report lines: one or two concepts, hedged, placed and dated, in mixed case."""
    table = [one for one in concepts().values() if one.kind != "summary"]
    lines: dict[str, None] = {}
    while len(lines) < count:
        parts = []
        for concept in draw.sample(table, draw.choice((1, 1, 2))):
            wall = draw.choice(_WALLS) if concept.walls else ""
            age = draw.choice(_AGES) if concept.kind == "infarct" else ""
            parts.append(f"{draw.choice(_HEDGES)}{wall}{display_name(concept.name)}{age}")
        line = " with ".join(parts)
        style = draw.randrange(4)
        line = line.upper() if style == 0 else f"*** {line} ***" if style == 1 else line
        lines[line + ("." if style == 2 else "")] = None
    return list(lines)
