"""Prompts of labels: where they come from, and a user's file that is read strictly."""

from __future__ import annotations

import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from esi_fast.cqa.caption import prompts_for
from esi_fast.cqa.concepts import concepts
from esi_fast.cqa.knowledge import passages
from esi_fast.evaluation import prompts as module
from esi_fast.evaluation.captioning import findings_in
from esi_fast.evaluation.prompts import descriptions_of, label_prompts, read_prompts


def dataset(**prompts: tuple[str, ...]) -> SimpleNamespace:
    return SimpleNamespace(
        name="planted", label_names=tuple(prompts), prompts=tuple(prompts.values())
    )


FIBRILLATION = prompts_for("atrial_fibrillation")


def test_the_datasets_own_prompts_are_the_names():
    given = dataset(AFIB=FIBRILLATION, MI=("Heart attack.",))
    assert label_prompts(given) == {"AFIB": FIBRILLATION, "MI": ("Heart attack.",)}


def test_a_label_with_no_words_but_its_name_gets_those_of_its_concept():
    given = dataset(MI=("MI.",), atrial_fibrillation=("atrial_fibrillation.",), my_own=("my_own.",))
    found = label_prompts(given)
    assert found["MI"] == ("Myocardial infarction.", "The ECG shows myocardial infarction.")
    assert found["atrial_fibrillation"] == FIBRILLATION
    assert found["my_own"] == ("my_own.",)


def test_codes_and_words_of_a_table_are_called_as_the_findings_that_they_state():
    def of(label: str) -> tuple[str, ...]:
        given = SimpleNamespace(name="table", label_names=(label,), prompts=((f"{label}.",),))
        return label_prompts(given)[label]

    for label in ("AFIB", "164889003", "AF", "atrial_fibrillation", "Atrial Fibrillation"):
        assert of(label) == FIBRILLATION
    assert of("AF with LVH") == FIBRILLATION + prompts_for("left_ventricular_hypertrophy")
    # Only part of these is understood: they are other things than ischemia and fibrillation.
    for label in ("ischemic stroke", "history of AF", "no AF", "death"):
        assert of(label) == (f"{label}.",)


def test_descriptions_are_those_of_the_passages():
    (passage,) = (one for one in passages() if one.metadata["concept"] == "atrial_fibrillation")
    wordings = [passage.metadata["appearance"], *passage.metadata["paraphrases"]]
    sentences = tuple(f"{text[0].upper()}{text[1:]}." for text in wordings)
    given = dataset(AFIB=FIBRILLATION, NORM=("Normal ECG.",), my_own=("my_own.",))
    described = label_prompts(given, kind="description")
    assert described["AFIB"] == sentences
    assert described["my_own"] == ()
    assert len(described["NORM"]) == 2
    both = label_prompts(given, kind="both")
    assert both["AFIB"] == FIBRILLATION + sentences
    assert both["my_own"] == ("my_own.",)
    (inferior, *_) = descriptions_of(prompts_for("inferior_st_elevation"))
    assert "II, III and aVF" in inferior


def test_what_is_shipped_is_for_labels_that_are_no_findings():
    shipped = tomllib.loads(module._SHIPPED.read_text(encoding="utf-8"))
    assert set(shipped) == {"CD", "HYP", "MI", "NORM", "STTC"}
    assert set(read_prompts(module._SHIPPED)) == set(shipped)
    assert not set(shipped) & set(concepts())
    for label, row in shipped.items():
        assert set(row) == {"name", "description"}
        # A description must not name what it describes, or it would be a name.
        named = {concept for text in row["name"] for concept in findings_in(text)}
        described = {concept for text in row["description"] for concept in findings_in(text)}
        assert not named & described, label


def test_a_users_file_replaces_and_adds(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text(
        '[AFIB]\nname = ["AF."]\nadd = ["Irregular.", "AF."]\n[MI]\ndescription = ["Deep Q."]\n'
    )
    given = dataset(AFIB=FIBRILLATION, MI=("Heart attack.",), NORM=("Normal ECG.",))
    named = label_prompts(given, path=file)
    assert named == {
        "AFIB": ("AF.", "Irregular."),
        "MI": ("Heart attack.",),
        "NORM": ("Normal ECG.",),
    }
    described = label_prompts(given, kind="description", path=file)
    assert described["MI"] == ("Deep Q.",)
    # "AF." states atrial fibrillation too, whose descriptions stay.
    assert described["AFIB"] == (*descriptions_of(FIBRILLATION), "Irregular.", "AF.")
    assert label_prompts(given, kind="both", path=file)["MI"] == ("Heart attack.", "Deep Q.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[AFIBB]\nname = ["x"]', r"planted has no label 'AFIBB'; did you mean AFIB\?"),
        ('[unlike]\nname = ["x"]', "no label 'unlike'; known: AFIB, MI"),
        ('[AFIB]\nnames = ["x"]', r"unknown key AFIB.names; did you mean name\?"),
        ("[AFIB]\nname = []", r"AFIB.name = \[\] must be a list of one or more"),
        ('[AFIB]\nname = "x"', "AFIB.name = 'x' must be a list"),
        ('[AFIB]\nadd = ["x", " "]', "AFIB.add = .* must be a list"),
        ("[AFIB]\nadd = [1]", "AFIB.add = .* must be a list"),
        ("[AFIB]", "AFIB must be a table, .AFIB., with some of name, description, add"),
        ('AFIB = ["x"]', "AFIB must be a table"),
        ("[AFIB", "is no TOML"),
    ],
)
def test_a_users_file_is_read_strictly(text: str, message: str, tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        label_prompts(dataset(AFIB=FIBRILLATION, MI=("x",)), path=file)
    assert str(file) in str(caught.value)


def test_an_unknown_kind_and_an_absent_file_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="by 'names' are not available; take one of name, desc"):
        label_prompts(dataset(AFIB=FIBRILLATION), kind="names")
    with pytest.raises(FileNotFoundError):
        label_prompts(dataset(AFIB=FIBRILLATION), path=tmp_path / "absent.toml")
