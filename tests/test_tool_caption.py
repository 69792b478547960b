"""tools/caption from end to end, as a user runs it, on tiny trees in MIMIC-IV-ECG's layout."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from caption_runs import CHAT, REPORTS, run, write_tree
from chat_fakes import completion, good_answer

from esi_fast.cqa.caption import CaptionDictionary
from esi_fast.cqa.checks import CHECKS
from esi_fast.cqa.knowledge import passages


def test_a_dictionary_is_written_whole(root: Path, tmp_path: Path) -> None:
    tree, out = write_tree(tmp_path / "tree", REPORTS), tmp_path / "cqa.jsonl"
    done = run(root, "--records", tree, "--out", out)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    by_statement = {row["statement"]: row for row in rows}
    assert list(by_statement) == sorted(by_statement)
    # Nine lines in four reports; the two spellings of sinus rhythm are one statement.
    assert set(by_statement) == {
        "sinus rhythm",
        "normal ECG",
        "possible inferior myocardial infarction of undetermined age",
        "abnormal ECG",
        "atrial fibrillation with rapid ventricular response",
        "atrial fibrillation",
        "recording limited in V3",
    }
    known = {passage.id for passage in passages()}
    for row in rows:
        assert set(row["sources"]) <= known
        if row["text"]:
            assert (row["backend"], row["checks"]) == ("template", list(CHECKS))
            assert row["sources"]
            assert len(row["prompt_sha256"]) == 64
        else:
            assert (row["backend"], row["sources"], row["checks"]) == ("statement", [], [])
    infarct = by_statement["possible inferior myocardial infarction of undetermined age"]
    assert infarct["text"] == "Possibly pathological Q waves in II, III and aVF."
    assert infarct["concept"] == "inferior_myocardial_infarction"
    assert infarct["certainty"] == "possible"
    assert infarct["acuity"] == "undetermined"
    for bare in ("recording limited in V3", "abnormal ECG"):
        assert by_statement[bare]["text"] == ""
    # Nothing of a patient or a study, and no mark for "not measured", is in the file.
    for forbidden in ("1000000", "4000000", "6000001", "2150", "29999", "files/"):
        assert forbidden not in out.read_text()
    assert len(CaptionDictionary.load(out)) == len(rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cqa.checks.csv",
        "cqa.jsonl",
        "tree",
    ]
    with (tmp_path / "cqa.checks.csv").open(encoding="utf-8", newline="") as file:
        counts = list(csv.DictReader(file))
    assert [row["check"] for row in counts] == list(CHECKS)
    described = sum(bool(row["text"]) for row in rows)
    for row in counts:
        assert (row["backend"], row["attempt"]) == ("template", "0")
        assert (row["texts"], row["failed"]) == (str(described), "0")


def test_the_closing_summary_counts(root: Path, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", REPORTS)
    done = run(root, "--records", tree, "--out", tmp_path / "cqa.jsonl")
    assert "4 records, 9 statements, 9 distinct lines, 7 canonical statements" in done.stdout
    assert "unknown: 1 distinct lines (11.1%), 1 statements (11.1%)" in done.stdout
    assert "technical notices: 1" in done.stdout
    assert "unknown, 1x: Quixotic deflections" in done.stderr


def test_the_same_tree_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", REPORTS)
    backwards = write_tree(tmp_path / "backwards", REPORTS[::-1])
    files = [tmp_path / name for name in ("a.jsonl", "b.jsonl")]
    for source, file in zip((tree, backwards), files, strict=True):
        assert run(root, "--records", source, "--out", file).returncode == 0
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("retriever", ["dense", "hybrid", "hnsw"])
def test_every_retriever_writes_the_same_descriptions(
    root: Path, tmp_path: Path, retriever: str
) -> None:
    tree = write_tree(tmp_path / "tree", REPORTS)
    by_words, other = tmp_path / "words.jsonl", tmp_path / "other.jsonl"
    assert run(root, "--records", tree, "--out", by_words).returncode == 0
    done = run(root, "--records", tree, "--out", other, "--retriever", retriever)
    assert done.returncode == 0, done.stderr
    assert other.read_bytes() == by_words.read_bytes()


def test_lines_that_were_not_read_are_listed(root: Path, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", REPORTS)
    listed = run(root, "--records", tree, "--out", tmp_path / "a.jsonl", "--report")
    assert listed.stdout.startswith(
        "count,line,read_as,not_read\n1,Quixotic deflections,,quixotic deflections\n"
    )
    run(root, "--records", tree, "--out", tmp_path / "b.jsonl", "--report", tmp_path / "lines.csv")
    with (tmp_path / "lines.csv").open(encoding="utf-8", newline="") as file:
        assert [row["line"] for row in csv.DictReader(file)] == ["Quixotic deflections"]


def test_ones_own_books_are_cited_beside_the_built_in_passages(root: Path, tmp_path: Path) -> None:
    tree, books = write_tree(tmp_path / "tree", REPORTS), tmp_path / "books"
    books.mkdir()
    about = "In atrial fibrillation the baseline undulates and no P waves are to be seen at all. "
    (books / "mine.md").write_text(f"# Atrial fibrillation\n\n{about * 2}Truly.\n")
    (books / "broken.pdf").write_bytes(b"%PDF-1.7 not really")
    out = tmp_path / "cqa.jsonl"
    done = run(root, "--records", tree, "--out", out, "--passages", books)
    assert done.returncode == 0, done.stderr
    assert "1 passages of" in done.stdout
    assert "not read: broken.pdf" in done.stderr
    rows = {
        row["statement"]: row["sources"] for row in map(json.loads, out.read_text().splitlines())
    }
    assert rows["atrial fibrillation"] == ["atrial-fibrillation", "mine.md, chunk 1"]
    assert rows["sinus rhythm"] == ["sinus-rhythm"]


def test_a_batch_goes_out_and_comes_back(root: Path, tmp_path: Path) -> None:
    tree, out = write_tree(tmp_path / "tree", REPORTS), tmp_path / "x"
    command = ("--records", tree, "--out", out, *CHAT)
    requests, results = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    sent = run(root, *command, "--export-batch", requests)
    assert sent.returncode == 0, sent.stderr
    assert not (tmp_path / "x.answers.jsonl").exists()
    rows = [json.loads(line) for line in requests.read_text().splitlines()]
    assert f"wrote {len(rows)} requests" in sent.stdout
    answered = [
        {"custom_id": row["custom_id"],
         "response": {"status_code": 200, "body": json.loads(completion(good_answer(row["body"])))}}
        for row in rows
    ]  # fmt: skip
    results.write_text("".join(json.dumps(row) + "\n" for row in answered))
    first = run(root, *command, "--import-batch", results)
    assert first.returncode == 0, first.stderr
    assert f"{len(rows)} imported" in first.stdout
    # As after a kill between the import and the dictionary.
    written = out.read_bytes()
    again = run(root, *command, "--import-batch", results, "--overwrite")
    assert again.returncode == 0, again.stderr
    assert f"{len(rows)} already known" in again.stdout
    assert out.read_bytes() == written


def test_help_imports_nothing_heavy(root: Path) -> None:
    command = [sys.executable, "-X", "importtime", str(root / "tools" / "caption"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "--records" in done.stdout
    for module in ("numpy", "torch", "tqdm", "esi_fast.cqa"):
        assert f" {module}\n" not in done.stderr


def test_captions_need_no_torch() -> None:
    code = (
        "import sys, esi_fast.cqa.caption, esi_fast.cqa.generate; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
