"""Wrong command lines of tools/evaluate: one line, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_tool_evaluate import tool


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--dataset": "mit"}, "dataset 'mit' is not available (available: shards, ptbxl, cinc"),
        ({"--task": "zeroshot,sing"}, "task 'sing' is not available"),
        ({"--labels": "super"}, "labels 'super' are not available for shards"),
        ({"--folds": "train=1-8,val=9,test=10"}, "--folds is for ptbxl"),
        ({"--dataset": "ptbxl", "--folds": "train=1"}, "must name train, val and test"),
        ({"--protocol": "other"}, "--protocol 'other' is none of fixed, merl"),
        ({"--baselines": "convnext,other"}, "baseline 'other' is none of convnext, xresnet"),
        ({"--layers": "first"}, "--layers 'first' is none of full, last"),
        ({"--prompts": "absent.toml"}, "--prompts absent.toml is no file"),
        ({"--prompts-by": "heart"}, "--prompts-by 'heart' is none of name, description, both"),
        ({"--pretrained-on": "absent"}, "--pretrained-on folder absent does not exist"),
        ({"--seeds": "-1"}, "--seeds -1 must not be negative"),
        ({"--against": "absent"}, "--against absent does not exist"),
        ({"--tokenizer": "bert"}, "--tokenizer is of weights in the published layout"),
        ({"--same-record-crops": ""}, "--same-record-crops is of the task identify"),
        (
            {"--same-record-crops": "", "--task": "identify", "--protocol": "merl"},
            "which --protocol merl does not tell from the rest: give --protocol fixed",
        ),
        ({"--split": "val"}, "cannot be scored on val"),
        ({"--split": "dev"}, "is none of train, val, test"),
        ({"--root": "absent"}, "--root folder absent does not exist"),
        ({"--resamples": "0"}, "--resamples 0 must be at least 1"),
        ({"--seed": "-1"}, "--seed -1 must be at least 0"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(
    root: Path, tmp_path: Path, change: dict[str, str], message: str
):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    options = {"--dataset": "shards", "--root": str(tmp_path), "--out": str(tmp_path / "out")}
    flags = [word for pair in (options | change).items() for word in pair if word]
    done = tool(root, "evaluate", tmp_path / "model", *flags)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("tools/evaluate: error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not (tmp_path / "out").exists()
