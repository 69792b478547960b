"""The zero-shot prompts of labels: what they are called, or what they look like on the tracing.

A label is called as its dataset has it. What it looks like is CQA's description of the findings
that its name states: the same wordings, checked in the same way, that captions hold.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esi_fast.evaluation.splits import EvaluationDataset

KINDS = ("name", "description", "both")
_SHIPPED = Path(__file__).parent / "prompts.toml"
_KEYS = ("name", "description", "add")

Prompts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    """One label's table of a file; what is empty is not given."""

    name: Prompts = ()
    description: Prompts = ()
    add: Prompts = ()


def label_prompts(
    dataset: EvaluationDataset, *, kind: str = "name", path: Path | None = None
) -> dict[str, Prompts]:
    """The prompts of every label of a dataset.

    Names: those of the user's file; else the dataset's own; a label that the dataset gives nothing
    but itself has those of ``prompts.toml`` or of the findings that it states, as a code (SCP-ECG,
    SNOMED CT) or in words. Descriptions: those of the user's file, else of ``prompts.toml``, else
    CQA's of all findings that the names state.

    Args:
        dataset: with its labels and their prompts.
        kind: "name", "description" or "both".
        path: a file of the user's, in the form that ``prompts.toml`` explains.

    Returns:
        Label to prompts, without repetition; none where it has no description and only those are
        asked for.

    Raises:
        ValueError: ``kind`` is none of these, or the file names a label that the dataset lacks or
            is not of that form.
        FileNotFoundError: there is no such file.
    """
    if kind not in KINDS:
        raise ValueError(f"prompts by {kind!r} are not available; take one of {', '.join(KINDS)}")
    own = {} if path is None else read_prompts(path)
    for label in own:
        if label not in dataset.label_names:
            raise ValueError(
                f"{path}: dataset {dataset.name} has no label {label!r}; "
                f"{_nearest(label, dataset.label_names)}"
            )
    shipped = read_prompts(_SHIPPED)
    prompts: dict[str, Prompts] = {}
    for label, given in zip(dataset.label_names, dataset.prompts, strict=True):
        mine, ours = own.get(label, _Row()), shipped.get(label, _Row())
        names = mine.name or _names(label, given, ours)
        chosen: list[str] = []
        if kind != "description":
            chosen += names
        if kind != "name":
            chosen += mine.description or ours.description or descriptions_of(names)
        prompts[label] = tuple(dict.fromkeys([*chosen, *mine.add]))
    return prompts


def _names(label: str, given: Prompts, ours: _Row) -> Prompts:
    from esi_fast.cqa.caption import prompts_for
    from esi_fast.evaluation.captioning import findings_in

    if given != (f"{label}.",):
        return given
    if ours.name:
        return ours.name
    # A label of a table may be a code (AFIB, 164889003) or words; what is neither stays as it is.
    stated = (prompt for concept in sorted(findings_in(label)) for prompt in prompts_for(concept))
    return tuple(stated) or given


@lru_cache(maxsize=4096)
def descriptions_of(names: Prompts) -> Prompts:
    """CQA's descriptions, with their paraphrases, of every finding that sentences state."""
    from esi_fast.cqa.concepts import display_name
    from esi_fast.cqa.generate import describe_reports
    from esi_fast.evaluation.captioning import findings_in

    concepts = sorted({concept for name in names for concept in findings_in(name)})
    described = describe_reports([[display_name(concept)] for concept in concepts])
    return tuple(text for one in described for text, _ in one.texts)


def read_prompts(path: Path) -> Mapping[str, _Row]:
    """Read a file of prompts: a table a label.

    Raises:
        ValueError: it is no TOML, or a table has an unknown key, nothing, or what is no list of
            sentences.
        FileNotFoundError: there is no such file.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML: {error}") from None
    rows: dict[str, _Row] = {}
    for label, table in content.items():
        if not isinstance(table, dict) or not table:
            raise ValueError(
                f"{path}: {label} must be a table, [{label}], with some of {', '.join(_KEYS)}"
            )
        for key, texts in table.items():
            if key not in _KEYS:
                raise ValueError(f"{path}: unknown key {label}.{key}; {_nearest(key, _KEYS)}")
            if not _are_sentences(texts):
                raise ValueError(
                    f"{path}: {label}.{key} = {texts!r} must be a list of one or more sentences"
                )
        rows[label] = _Row(**{key: tuple(texts) for key, texts in table.items()})
    return rows


def _are_sentences(texts: object) -> bool:
    return (
        isinstance(texts, list)
        and bool(texts)
        and all(isinstance(text, str) and text.strip() for text in texts)
    )


def _nearest(word: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(known)}"
