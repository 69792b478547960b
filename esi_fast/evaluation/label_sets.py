"""Label sets: from the statements of a record to the names of its labels.

Labels are known by their names, never by a column's place: files that are handed on with columns in
another order in the test split than in the training split have scored probes on other labels than
they were trained on.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# Number of labels of each in the published table.
PTBXL_SETS: Mapping[str, int] = {
    "all": 71, "diagnostic": 44, "sub": 23, "super": 5, "form": 19, "rhythm": 12
}  # fmt: skip
SETS_OF: Mapping[str, tuple[str, ...]] = {
    "shards": ("concepts",),
    "ptbxl": ("concepts", *PTBXL_SETS),
    "cinc": ("scored", "concepts"),
    "cpsc": ("scored", "concepts"),
    "ludb": ("rhythm", "concepts"),
}


@dataclass(frozen=True)
class LabelSet:
    """How labels are named.

    Attributes:
        names_of: the statements of a record to its labels.
        names: all labels of the set; None: those that occur.
        titles: human words of a label, where they differ from its name.
        prompts: zero-shot prompts of a label; a concept has its own, and the other labels have
            theirs in ``prompts.toml``.
        only_labelled: whether records without any label of the set are left out.
    """

    names_of: Callable[[Sequence[str]], Iterable[str]]
    names: tuple[str, ...] | None = None
    titles: Mapping[str, str] = field(default_factory=dict)
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    only_labelled: bool = False


def label_set(dataset: str, name: str, root: Path) -> LabelSet:
    """The label set of a dataset.

    Args:
        dataset: "ptbxl", "cinc", "cpsc", "ludb" or "shards".
        name: one of `SETS_OF` that dataset.
        root: its folder; PTB-XL's has ``scp_statements.csv``, LUDB's ``ludb.csv``.

    Raises:
        ValueError: the dataset has no such label set, or a table is damaged.
        FileNotFoundError: that table is absent.
    """
    from esi_fast.cqa.caption import findings_of

    if name not in SETS_OF[dataset]:
        raise ValueError(
            f"labels {name!r} are not available for {dataset} "
            f"(available: {', '.join(SETS_OF[dataset])})"
        )
    if name == "concepts":
        return LabelSet(findings_of)
    if dataset == "ptbxl":
        return _ptbxl(root, name)
    if dataset == "ludb":
        return _ludb_rhythms(root)
    return _snomed(dataset)


def _ludb_rhythms(root: Path) -> LabelSet:
    """What LUDB's column of rhythms says; extrasystoles, blocks and pacing have their own."""
    from esi_fast.cqa.caption import findings_of

    rows, _ = _read_table(root / "ludb.csv", ["Rhythms"])
    rhythms = {line.strip() for row in rows for line in row["Rhythms"].splitlines()}
    return LabelSet(lambda texts: findings_of([text for text in texts if text in rhythms]))


def _read_table(path: Path, columns: Sequence[str]) -> tuple[list[dict[str, str]], str]:
    """The rows of a csv file by name, and its first column's name."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; the label set is read from it")
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file, restval="")
        names = list(table.fieldnames or [""])
        if lacking := [column for column in columns if column not in names]:
            raise ValueError(f"{path} lacks the column {lacking[0]}")
        return list(table), names[0]


def _ptbxl(root: Path, name: str) -> LabelSet:
    """A set of PTB-XL's SCP codes, or of their diagnostic classes (Wagner et al. 2020, table 2).

    Every code that a record states counts, whatever its likelihood: form and rhythm codes have none
    (0), and the published benchmark (Strodthoff et al. 2021) counts them alike. Of sets that do not
    apply to every record, those without a label are left out, as there.
    """
    needed = ("description", "diagnostic", "form", "rhythm", "diagnostic_class")
    rows, first = _read_table(root / "scp_statements.csv", [*needed, "diagnostic_subclass"])
    table = {row[first]: row for row in rows}
    if name in ("super", "sub"):
        column = "diagnostic_class" if name == "super" else "diagnostic_subclass"
        label_of = {code: row[column] for code, row in table.items() if row[column]}
    else:
        label_of = {code: code for code, row in table.items() if name == "all" or row[name]}
    codes_of: dict[str, list[str]] = {}
    for code, label in label_of.items():
        codes_of.setdefault(label, []).append(code)
    titles = {} if name in ("super", "sub") else {c: table[c]["description"] for c in label_of}
    prompts: dict[str, tuple[str, ...]] = {}
    if name != "super":  # superclasses are no findings of their own: prompts.toml has their words
        prompts = {
            label: _prompts_of(codes, [table[code]["description"] for code in codes])
            for label, codes in codes_of.items()
        }
    return LabelSet(
        lambda codes: {label_of[code] for code in codes if code in label_of},
        tuple(sorted(codes_of)),
        titles,
        prompts,
        only_labelled=name != "all",
    )


def _snomed(dataset: str) -> LabelSet:
    with (Path(__file__).parent / "label_sets.toml").open("rb") as file:
        classes: dict[str, list[str]] = tomllib.load(file)[dataset]
    label_of = {code: name for name, (_, *codes) in classes.items() for code in codes}
    # CPSC codes its normal ECGs as sinus rhythm, which most of its others have, too.
    coded = {name: texts for name, texts in classes.items() if name != "NORM"}
    return LabelSet(
        lambda codes: {label_of[code] for code in codes if code in label_of},
        tuple(sorted(classes)),
        {name: title for name, (title, *_) in classes.items()},
        {name: _prompts_of(codes, [title]) for name, (title, *codes) in coded.items()},
    )


def _prompts_of(codes: Collection[str], descriptions: Sequence[str]) -> tuple[str, ...]:
    """The prompts of the concepts that codes stand for; of codes that are none, their words."""
    from esi_fast.cqa.caption import findings_of, prompts_for

    concepts = sorted({concept for code in codes for concept in findings_of([code])})
    found = dict.fromkeys(prompt for concept in concepts for prompt in prompts_for(concept))
    return tuple(found) or tuple(f"{text[:1].upper()}{text[1:]}." for text in descriptions)
