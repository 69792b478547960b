"""Descriptions without a model: the passage's own appearance, in the statement's leads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from esi_fast.cqa.concepts import WALL_LEADS
from esi_fast.cqa.requests import Answer, Request
from esi_fast.cqa.statements import Statement
from esi_fast.leads import STANDARD_LEADS

_LEADS_SLOT = "{leads}"
_LEAD_INS = {
    "definite": "",
    "probable": "probably ",
    "possible": "possibly ",
    "consider": "to consider: ",
    "cannot_rule_out": "not excluded: ",
    "borderline": "borderline: ",
    "nonspecific": "nonspecific: ",
}
# Leads as a reader names them, where they differ from the union of the walls' leads.
_LEADS_OF_WALLS = {
    ("anterior", "lateral"): ("I", "aVL", "V3", "V4", "V5", "V6"),
    ("anterior",): ("V2", "V3", "V4"),
}


class TemplateBackend:
    """Writes the first built-in passage's appearance; no model, always the same."""

    name = "template"
    model = "template-2"

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """One sentence each, or an error where no passage has an appearance to quote."""
        for index, request in enumerate(requests):
            texts = template_texts(request)
            yield index, Answer(texts[0]) if texts else Answer("", "no built-in passage")

    def parameters(self) -> dict[str, object]:
        """None."""
        return {}


def template_texts(request: Request) -> tuple[str, ...]:
    """The appearance of the first built-in passage and its paraphrases, each as a sentence."""
    for passage in request.passages:
        if "appearance" in passage.metadata:
            worded = [passage.metadata["appearance"], *passage.metadata.get("paraphrases", ())]
            mirror = passage.metadata["mirror"]
            return tuple(_sentence(str(one), mirror, request.statement) for one in worded)
    return ()


def _sentence(appearance: str, mirror: str | None, statement: Statement) -> str:
    if _LEADS_SLOT in appearance:
        appearance = _placed(appearance, mirror, statement)
    text = f"{_LEAD_INS[statement.certainty]}{appearance}."
    return text[0].upper() + text[1:]


def _placed(appearance: str, mirror: str | None, statement: Statement) -> str:
    """The appearance in the statement's leads; of the posterior wall its mirror, if it has one."""
    walls, behind = statement.territory, set(WALL_LEADS["posterior"])
    if "posterior" not in walls or mirror is None:
        return appearance.replace(_LEADS_SLOT, _in_words(statement.leads or _leads_of(walls)))
    if statement.leads:
        # V1 to V3 named by the line itself may be meant either way: nothing is said of them.
        clear = tuple(lead for lead in statement.leads if lead not in behind)
        return appearance.replace(_LEADS_SLOT, _in_words(clear))
    leads = _leads_of(tuple(wall for wall in walls if wall != "posterior"))
    front = appearance.replace(_LEADS_SLOT, _in_words(leads))
    # Leads that look at a wall before them are not said to show the one behind as well.
    if not mirror or behind & set(leads):
        return front
    return f"{front}; {mirror}" if leads else mirror


def _leads_of(walls: tuple[str, ...]) -> tuple[str, ...]:
    of_walls = {lead for wall in walls for lead in WALL_LEADS[wall]}
    named = _LEADS_OF_WALLS.get(walls, of_walls)
    return tuple(lead for lead in STANDARD_LEADS if lead in named)


def _in_words(leads: tuple[str, ...]) -> str:
    if not leads:
        return "the affected leads"
    return leads[0] if len(leads) == 1 else f"{', '.join(leads[:-1])} and {leads[-1]}"
