"""tools/caption from end to end, as a user runs it, on tiny trees in MIMIC-IV-ECG's layout."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from esi_fast.cqa.caption import CaptionDictionary
from esi_fast.cqa.checks import CHECKS
from esi_fast.cqa.knowledge import passages

REPORTS = [
    ["Sinus rhythm", "", "Normal ECG"],
    ["SINUS RHYTHM.", "Possible inferior infarct - age undetermined", "Abnormal ECG"],
    ["Atrial fibrillation with rapid ventricular response", "Quixotic deflections"],
    ["*** Atrial fibrillation ***", "Lead(s) unsuitable for analysis: V3"],
]


OPENAI = ("--backend", "openai", "--model", "m", "--retries", "0", "--base-url")
NOWHERE = ("--backend", "transformers", "--model", "nowhere")


def write_tree(folder: Path, reports: list[list[str]]) -> Path:
    folder.mkdir(parents=True)
    columns = [f"report_{number}" for number in range(18)]
    measured = ["rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end"]
    measured += ["p_axis", "qrs_axis", "t_axis"]
    names = ["subject_id", "study_id", "cart_id", "ecg_time", *columns]
    with (
        (folder / "machine_measurements.csv").open("w", newline="") as machine_file,
        (folder / "record_list.csv").open("w", newline="") as list_file,
    ):
        machine = csv.writer(machine_file)
        machine.writerow([*names, "bandwidth", "filtering", *measured])
        listed = csv.writer(list_file)
        listed.writerow(["subject_id", "study_id", "file_name", "ecg_time", "path"])
        for number, lines in enumerate(reports):
            subject, study, time = f"1000000{number}", f"4000000{number}", "2150-01-02 03:04:05"
            path = f"files/p1000/p{subject}/s{study}/{study}"
            listed.writerow([subject, study, study, time, path])
            filled = [*lines, *[""] * (18 - len(lines))]
            machine.writerow(
                [subject, study, "6000001", time, *filled, "0-150 Hz", "60 Hz", *["29999"] * 9]
            )
    return folder


def run(root: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "tools" / "caption"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


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


def test_an_existing_file_is_kept_unless_asked(root: Path, tmp_path: Path) -> None:
    tree, out = write_tree(tmp_path / "tree", REPORTS), tmp_path / "cqa.jsonl"
    out.write_text("mine")
    refused = run(root, "--records", tree, "--out", out)
    assert refused.returncode == 2
    assert refused.stderr.startswith("tools/caption: error: ")
    assert "--overwrite" in refused.stderr
    assert out.read_text() == "mine"
    assert run(root, "--records", tree, "--out", out, "--overwrite").returncode == 0
    assert out.read_text() != "mine"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--records", "absent", "--out", "x.jsonl"], 2, "absent is no folder"),
        (["--records", "empty", "--out", "x.jsonl"], 1, "empty"),
        (["--records", "silent", "--out", "x.jsonl"], 1, "no report statement"),
        (["--records", "tree", "--out", "no/such/x.jsonl"], 2, "folder that exists"),
        (["--records", "tree", "--out", "empty"], 2, "must be a file"),
        (["--records", "tree", "--out", "x.jsonl", "--backend", "gpt"], 2, "invalid choice"),
        (["--records", "tree", "--out", "x.jsonl", "--retriever", "faiss"], 2, "invalid choice"),
        (["--records", "tree", "--out", "x.jsonl", "--embedder", "m"], 2, "--embedder is of dense"),
        (["--records", "tree", "--out", "x.jsonl", "--passages", "no"], 2, "--passages no is no"),
        (["--records", "tree", "--out", "x.jsonl", "--top-k", "0"], 2, "--top-k is 0"),
        (["--records", "tree", "--out", "x.jsonl", "--backend", "openai"], 2, "needs --model"),
        (
            ["--records", "tree", "--out", "x.jsonl", *OPENAI, "http://10.0.0.1/v1"],
            2,
            "not on this",
        ),
        (["--records", "tree", "--out", "x.jsonl", *OPENAI, "ftp://127.0.0.1"], 2, "is no http"),
        (["--records", "tree", "--out", "x.jsonl", *OPENAI, "http://127.0.0.1:1/v1"], 1, "running"),
        (
            ["--records", "tree", "--out", "x.jsonl", "--export-batch", "b"],
            2,
            "of --backend openai",
        ),
        (["--records", "tree", "--out", "x.jsonl", *NOWHERE], 1, "nowhere"),
        (["--records", "tree"], 2, "--out"),
        (["--records", "tree", "--out", "x.jsonl", "--colour"], 2, "--colour"),
    ],
)
def test_bad_input_is_one_line(
    root: Path, tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    write_tree(tmp_path / "tree", REPORTS)
    write_tree(tmp_path / "silent", [["", ""], []])
    (tmp_path / "empty").mkdir()
    paths = [
        str(tmp_path / value) if before in ("--records", "--out") else value
        for before, value in zip(["", *arguments], arguments, strict=False)
    ]
    done = run(root, *paths)
    assert done.returncode == status
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(("tools/caption: error: ", "usage: ", "caption: error: "))
    assert message in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x.jsonl").exists()
    assert not list(tmp_path.glob(".x.jsonl*"))


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
