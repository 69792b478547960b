"""What tools/caption refuses, keeps and leaves behind: files, options, stops, bad input."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from caption_runs import (
    CHAT,
    NOWHERE,
    OPENAI,
    REPORTS,
    TEMPLATE,
    contents,
    refused,
    run,
    write_tree,
)
from chat_fakes import Reply, endpoint

from esi_fast.cli import UsageError
from esi_fast.cqa.caption import CaptionDictionary

Main = Callable[[list[str]], int]


@pytest.fixture(scope="module")
def main(root: Path) -> Main:
    """The tool in this process, for errors that come before any work."""
    path = str(root / "tools" / "caption")
    loader = importlib.machinery.SourceFileLoader("tools_caption", path)
    spec = importlib.util.spec_from_loader("tools_caption", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    function: Main = module.main
    return function


def test_an_existing_file_is_kept_unless_asked(root: Path, tmp_path: Path) -> None:
    tree, out = write_tree(tmp_path / "tree", REPORTS), tmp_path / "cqa.jsonl"
    out.write_text("mine")
    refused(run(root, "--records", tree, "--out", out), 2, "--overwrite")
    assert out.read_text() == "mine"
    assert run(root, "--records", tree, "--out", out, "--overwrite").returncode == 0
    assert out.read_text() != "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*TEMPLATE, "--base-url", "http://127.0.0.1/v1"), "--base-url is of --backend openai"),
        (("--allow-remote",), "--allow-remote is of --backend openai"),
        (("--concurrency", "8"), "--concurrency is of --backend openai"),
        (("--timeout", "1"), "--timeout is of --backend openai"),
        (("--retries", "0"), "--retries is of --backend openai"),
        ((*NOWHERE, "--max-answer-tokens", "9"), "--max-answer-tokens is of --backend openai"),
        (("--model", "m"), "--model is of --backend openai or transformers"),
        ((*NOWHERE, "--retries", "5"), "--retries is of --backend openai"),
        (("--import-batch", "b"), "--import-batch is of --backend openai"),
        (("--retriever", "hybrid", "--pooling", "mean"), "--pooling is of --embedder"),
        (("--query-prefix", ""), "--query-prefix is of --embedder"),
        (("--document-prefix", "x"), "--document-prefix is of --embedder"),
        (("--retriever", "dense", "--embedder", ""), "--embedder is empty"),
        (("--backend", "openai", "--model", " "), "--model is empty"),
        ((*CHAT, "--export-batch", "b", "--concurrency", "2"), "--concurrency is of requests"),
        ((*CHAT, "--concurrency", "0"), "concurrency 0"),
        ((*CHAT, "--timeout", "nan"), "concurrency 8, timeout nan"),
        ((*CHAT, "--max-answer-tokens", "0"), "max_answer_tokens is 0; give 1 or more"),
        ((*CHAT, "--export-batch", "b", "--import-batch", "b"), "give --export-batch or --import"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(
    main: Main, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        main(["--records", str(tmp_path), "--out", str(tmp_path / "x.jsonl"), *arguments])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # What is there is kept.
        (("--out", "old.csv"), "--out {}/old.csv exists; --overwrite replaces it"),
        (("--report", "old.csv"), "--report {}/old.csv exists; --overwrite replaces it"),
        ((*CHAT, "--export-batch", "old.csv"), "--export-batch {}/old.csv exists; --overwrite"),
        (("--out", "taken"), "taken.checks.csv exists; --overwrite"),
        # No two are one.
        (("--report", "out"), "--report {}/out is --out as well"),
        (("--report", "folder/../out", "--overwrite"), "is --out as well"),
        (("--report", "out.checks.csv"), "is the count of checks of --out as well"),
        ((*CHAT, "--report", "out.answers.jsonl"), "is the answers of --out as well"),
        ((*CHAT, "--export-batch", "out"), "--export-batch {}/out is --out as well"),
        ((*CHAT, "--export-batch", "a", "--report", "a"), "--report {}/a is --export-batch as"),
        (("--out", "link", "--report", "old.csv", "--overwrite"), "is --out as well"),
        # Nothing that is read is written.
        (("--out", "tree/record_list.csv", "--overwrite"), "is in --records"),
        (("--report", "tree/record_list.csv", "--overwrite"), "is in --records"),
        (("--passages", "folder", "--report", "folder/b.md", "--overwrite"), "is in --passages"),
        ((*CHAT, "--import-batch", "old.csv", "--out", "old.csv", "--overwrite"), "--import-batch"),
        ((*CHAT, "--import-batch", "link", "--report", "old.csv", "--overwrite"), "--import-batch"),
        # Files only, and where they can be made.
        (("--out", "folder"), "--out: {}/folder is no regular file"),
        (("--report", "folder", "--overwrite"), "--report: {}/folder is no regular file"),
        (("--report", "fifo", "--overwrite"), "--report: {}/fifo is no regular file"),
        (("--report", "/dev/full", "--overwrite"), "--report: /dev/full is no regular file"),
        (("--out", "/dev/null", "--overwrite"), "--out: /dev/null is no regular file"),
        ((*CHAT, "--import-batch", "folder"), "--import-batch {}/folder is no regular file"),
        ((*CHAT, "--import-batch", "fifo"), "is no regular file"),
        ((*CHAT, "--import-batch", "absent"), "absent does not exist"),
        (("--report", "no/such.csv"), "--report: {}/no/such.csv must be in a folder that exists"),
        (("--report", "old.csv/x"), "must be in a folder that exists"),
        ((*CHAT, "--export-batch", "no/such"), "must be in a folder that exists"),
        (("--out", "/"), "--out: / is no regular file"),
        (("--out", "/proc/x"), "'/proc/x'"),
        (("--out", "x" * 256), "name too long"),
        (("--out", "x" * 240), "name too long: '{}/xxx"),  # with .checks.csv and a mark of its own
    ],
)
def test_files_to_write_are_looked_at_before_any_work(
    main: Main, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    write_tree(tmp_path / "tree", REPORTS)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.md").write_text("mine")
    os.mkfifo(tmp_path / "fifo")
    for name in ("old.csv", "taken.checks.csv"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "link").symlink_to("old.csv")
    before = contents(tmp_path)
    given = ["--out", "out", *arguments] if "--out" not in arguments else list(arguments)
    files = ("--out", "--report", "--export-batch", "--import-batch", "--passages")
    paths = [
        str(tmp_path / value) if option in files else value
        for option, value in zip(["", *given], given, strict=False)
    ]
    with pytest.raises(UsageError, match=re.escape(message.format(tmp_path))) as caught:
        main(["--records", str(tmp_path / "tree"), *paths])
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


def test_overwrite_replaces_every_file_and_a_link_stays_one(root: Path, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", REPORTS)
    for name in ("real.jsonl", "lines.csv", "link.checks.csv"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "link").symlink_to("real.jsonl")
    done = run(
        root, "--records", tree, "--out", tmp_path / "link", "--report", tmp_path / "lines.csv",
        "--overwrite",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "link").is_symlink()
    assert len(CaptionDictionary.load(tmp_path / "real.jsonl")) == 7
    assert (tmp_path / "lines.csv").read_text().startswith("count,")
    assert (tmp_path / "link.checks.csv").read_text().startswith("backend,")


def test_files_of_two_names_of_one_stem_do_not_meet(root: Path, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", REPORTS)
    for name in ("a.jsonl", "a.b"):
        assert run(root, "--records", tree, "--out", tmp_path / name).returncode == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"tree", "a.jsonl", "a.b", "a.checks.csv", "a.b.checks.csv"}
    # The one pair of names that shares them is refused.
    done = run(root, "--records", tree, "--out", tmp_path / "a")
    refused(done, 2, "a.checks.csv exists; --overwrite replaces it")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "0 lines"),
        ("\n\n", "0 lines"),
        (
            '{"custom_id": "a", "response": {"status_code": 500, "body": {}}}\n'
            '{"custom_id": "b", "response": null}\n',
            "2 lines: 2 of requests that this run does not make",
        ),
    ],
)
def test_results_without_a_usable_answer_are_refused(
    root: Path, tmp_path: Path, content: str, reason: str
) -> None:
    tree, results = write_tree(tmp_path / "tree", REPORTS), tmp_path / "results.jsonl"
    results.write_text(content)
    done = run(root, "--records", tree, "--out", tmp_path / "x", *CHAT, "--import-batch", results)
    refused(done, 1, f"{results} holds no usable answer: {reason}")
    assert {path.name for path in tmp_path.iterdir()} == {"tree", "results.jsonl"}


@pytest.mark.parametrize("name", ["nowhere", "empty", "a_file"])
def test_a_path_that_is_no_encoder_is_named(root: Path, tmp_path: Path, name: str) -> None:
    tree, model = write_tree(tmp_path / "tree", REPORTS), tmp_path / name
    if name == "empty":
        model.mkdir()
    if name == "a_file":
        model.write_text("mine")
    command = ("--records", tree, "--out", tmp_path / "x", "--retriever", "dense")
    done = run(root, *command, "--embedder", model)
    refused(done, 1, f"{model} is no encoder")
    assert "give a folder with config.json" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_leaves_nothing_half_done(
    root: Path, tmp_path: Path, number: signal.Signals
) -> None:
    tree = write_tree(tmp_path / "tree", REPORTS)
    with endpoint(lambda call: Reply(how="hang")) as server:
        command = [sys.executable, str(root / "tools" / "caption"), *map(str, (
            "--records", tree, "--out", tmp_path / "x", *CHAT, "--base-url", server.url,
            "--report", tmp_path / "lines.csv",
        ))]  # fmt: skip
        with subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            # A background job of a shell would inherit SIGINT as ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:
            while not server.calls and process.poll() is None:
                time.sleep(0.02)
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "tools/caption: error: interrupted"
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--records", "absent", "--out", "x.jsonl"], 2, "absent is no folder"),
        (["--records", "empty", "--out", "x.jsonl"], 1, "empty"),
        (["--records", "silent", "--out", "x.jsonl"], 1, "no report statement"),
        (["--records", "tree", "--out", "no/such/x.jsonl"], 2, "folder that exists"),
        (["--records", "tree", "--out", "empty"], 2, "no regular file"),
        (["--records", "tree", "--out", "x.jsonl", "--backend", "gpt"], 2, "invalid choice"),
        (["--records", "tree", "--out", "x.jsonl", "--retriever", "faiss"], 2, "invalid choice"),
        (["--records", "tree", "--out", "x.jsonl", "--embedder", "m"], 2, "of --retriever dense,"),
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
    assert {path.name for path in tmp_path.iterdir()} == {"tree", "silent", "empty"}
