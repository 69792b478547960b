from __future__ import annotations

import contextlib
import csv
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest
from shard_tree import contents

from esi_fast.cqa.generate import describe_reports
from esi_fast.signal.simulate_tree import write_tree

TOOL = Path(__file__).resolve().parent.parent / "tools" / "shard"
NUM_RECORDS = 40


def shard(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def fails(result: subprocess.CompletedProcess[str], status: int) -> str:
    assert result.returncode == status, result.stderr
    assert result.stderr.startswith("tools/shard: error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("records") / "tree"
    write_tree(root, NUM_RECORDS, seed=1)
    return root


@pytest.fixture(scope="module")
def built(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "out"
    done = shard("--records", records, "--out", out, "--fs", "100", "--samples-per-shard", "8")
    assert done.returncode == 0, done.stderr
    assert "no captions are baked in" in done.stdout
    assert f"wrote    {NUM_RECORDS} records" in done.stdout
    assert "rejected none" in done.stdout
    return out


def test_help_imports_nothing_heavy() -> None:
    for arguments in (["--help"], ["verify", "--help"], ["merge", "--help"]):
        command = [sys.executable, "-X", "importtime", str(TOOL), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "usage: tools/shard" in done.stdout
        assert "argparse" in done.stderr
        assert "numpy" not in done.stderr


def test_a_simulated_tree_becomes_shards(built: Path, records: Path) -> None:
    folder = json.loads((built / "index.json").read_text())
    assert folder["fs"] == 100.0
    assert folder["num_samples"] == 1000
    assert folder["settings"]["source"] == "mimic-iv-ecg"
    with (built / "records.csv").open(newline="") as file:
        keys = [row["key"] for row in csv.DictReader(file)]
    with (records / "record_list.csv").open(newline="") as file:
        assert sorted(keys) == sorted(row["study_id"] for row in csv.DictReader(file))
    done = shard("verify", built)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{NUM_RECORDS} records" in done.stdout


def test_verify_names_shard_and_sample(built: Path, tmp_path: Path) -> None:
    tar = next(built.glob("train-*.tar"))
    key = np.load(tar.with_suffix(".idx.npy"))["key"][2].decode()
    offset = int(np.load(tar.with_suffix(".idx.npy"))["ecg_offset"][2]) + 777
    content = bytearray(tar.read_bytes())
    content[offset] ^= 4
    for path in built.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / tar.name).write_bytes(content)
    done = shard("verify", tmp_path)
    assert done.returncode == 1
    assert f"{tar.name}: sample {key} is damaged" in done.stdout


def test_captions_are_baked_in(records: Path, tmp_path: Path) -> None:
    from esi_fast.data.shard_set import ShardSet

    describe_reports([["Sinus rhythm"]]).save(tmp_path / "cqa.jsonl")
    out = tmp_path / "out"
    done = shard("--records", records, "--out", out, "--fs", "100", "--cqa", tmp_path / "cqa.jsonl")
    assert done.returncode == 0, done.stderr
    assert "baked in" in done.stdout
    shards = ShardSet(out, "all")
    assert len(shards.rows_without_caption()) == 0
    meta, caption = shards.read_meta(0), shards.read_caption(0)
    assert caption
    assert meta["findings"]
    assert meta["statements"]


def test_unknown_patients_are_announced_once(records: Path, tmp_path: Path) -> None:
    announcement = "each record counts as its own patient"
    files = next((records / "files").iterdir())  # the headers without their csv files
    done = shard("--records", files, "--out", tmp_path / "out", "--fs", "100")
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count(announcement) == 1
    assert json.loads((tmp_path / "out" / "index.json").read_text())["patients_known"] is False


def test_damaged_rows_are_rejected(records: Path, tmp_path: Path) -> None:
    tree = shutil.copytree(records, tmp_path / "tree")
    text = (tree / "record_list.csv").read_text().splitlines()
    text[2] = "," + text[2].partition(",")[2]
    (tree / "record_list.csv").write_text("\n".join(text) + "\n")
    done = shard("--records", tree, "--out", tmp_path / "out", "--fs", "100")
    assert (done.returncode, done.stderr) == (0, "")
    assert "each record counts as its own patient" not in done.stdout
    assert f"wrote    {NUM_RECORDS - 1} records" in done.stdout
    assert "rejected row 1, see rejected.csv" in done.stdout
    with (tmp_path / "out" / "rejected.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["reason"] == "record_list.csv, line 3: subject_id is '', not a number"


def test_usage_errors(records: Path, built: Path, tmp_path: Path) -> None:
    good = ("--records", records, "--out", tmp_path / "new")
    assert "no such folder" in fails(
        shard("--records", tmp_path / "no", "--out", tmp_path / "a"), 2
    )
    assert "not empty" in fails(shard("--records", records, "--out", built), 2)
    assert "no such file" in fails(shard(*good, "--cqa", tmp_path / "no.jsonl"), 2)
    assert "fs is -1.0" in fails(shard(*good, "--fs", "-1"), 2)
    assert "leads are I,X" in fails(shard(*good, "--leads", "I,X"), 2)
    assert "keep_rejected is 'all'" in fails(shard(*good, "--keep-rejected", "all"), 2)
    assert "--part is 1of2" in fails(shard(*good, "--part", "1of2"), 2)
    assert "part is 0/2" in fails(shard(*good, "--part", "0/2"), 2)
    for option in (("--max-tokens", "40"), ("--tokenizer", "m")):
        assert f"{option[0]} is of --cqa; give that" in fails(shard(*good, *option), 2)
    # Of a build that is there, the settings are compared.
    again = ("--records", records, "--out", built, "--fs", "100", "--samples-per-shard", "8")
    resumed = shard(*again, "--resume", "--max-tokens", "40")
    assert "was begun with max_tokens=72, not 40" in fails(resumed, 2)
    assert "--workers is -1" in fails(shard(*good, "--workers", "-1"), 2)
    assert "no such file" in fails(shard(*good, "--exclude-patients", tmp_path / "no"), 2)
    assert "no such folder" in fails(shard("verify", tmp_path / "no"), 2)
    assert shard(*good, "--frequency", "5").returncode == 2
    assert not (tmp_path / "new").exists()


def test_failed_runs(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    fails(shard("--records", tmp_path / "empty", "--out", tmp_path / "out"), 1)
    assert not (tmp_path / "out" / "index.json").exists()
    assert "--resume" in fails(shard("verify", tmp_path / "empty"), 1)


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(TOOL), *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_another_rate_is_not_resumed(records: Path, tmp_path: Path) -> None:
    # A record a shard: dozens of shards are still to come when the first one is there.
    out = tmp_path / "out"
    settings = ("--records", records, "--samples-per-shard", "1", "--out", out)
    process = start(*settings, "--fs", "100", "--workers", "1")
    while process.poll() is None and not list(out.glob("*.tar")):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "index.json").exists()
    assert "fs=100.0" in fails(shard(*settings, "--resume", "--fs", "200"), 2)


def kill_again_and_again(records: Path, folder: Path, num_kills: int) -> None:
    """Kill builds at random moments, each time going on with what is there, and compare."""
    random = Random(f"kills {num_kills}")
    settings = ("--records", records, "--fs", "100", "--samples-per-shard", "2", "--workers", "2")
    began = time.monotonic()
    assert shard(*settings, "--out", folder / "whole").returncode == 0
    lasts = time.monotonic() - began
    expected = contents(folder / "whole")
    kills = builds = 0
    while kills < num_kills:
        out = folder / f"build-{builds}"
        builds += 1
        options: tuple[str, ...] = ()
        while kills < num_kills:
            process = start(*settings, "--out", out, *options)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(random.uniform(0.2, 1.0) * lasts)
            if process.poll() is not None:
                assert process.returncode == 0
                break
            process.kill()
            process.wait()
            kills += 1
            # Killed before anything was there: begun anew; after index.json: nothing is left to do.
            options = ("--resume",) if out.exists() and any(out.iterdir()) else ()
        done = shard(*settings, "--out", out, *options)
        assert done.returncode == 0 or (not options and "is not empty" in done.stderr), done.stderr
        assert contents(out) == expected, f"after {kills} kills"


def test_killed_at_random_moments_and_resumed(records: Path, tmp_path: Path) -> None:
    kill_again_and_again(records, tmp_path, 3)


@pytest.mark.slow
def test_killed_at_many_random_moments_and_resumed(records: Path, tmp_path: Path) -> None:
    kill_again_and_again(records, tmp_path, 20)


def test_a_file_that_cannot_grow_is_one_line_and_resume_goes_on(
    records: Path, built: Path, tmp_path: Path
) -> None:
    # 8 records at 100 Hz are 200 kB. The limit is the workers' too.
    settings = ("--records", records, "--fs", "100", "--samples-per-shard", "8")
    out = tmp_path / "out"
    for workers in ("1", "2"):
        limited = subprocess.run(
            [sys.executable, str(TOOL), *map(str, settings), "--out", str(out), "--resume",
             "--workers", workers],
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000)),
        )  # fmt: skip
        assert "File too large" in fails(limited, 1)
        assert str(out) in limited.stderr
        assert not (out / "index.json").exists()
    assert shard(*settings, "--out", out, "--resume").returncode == 0
    assert contents(out) == contents(built)


def test_a_folder_that_cannot_be_made_is_one_line(records: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = fails(shard("--records", records, "--out", tmp_path / "file" / "out"), 1)
    assert str(tmp_path / "file" / "out") in message
    assert "/proc/shards" in fails(shard("--records", records, "--out", "/proc/shards"), 1)


# ------------------------------------------------------------------- options, parts and estimates


def test_options_reach_the_build(records: Path, tmp_path: Path) -> None:
    with (records / "record_list.csv").open(newline="") as file:
        patients = [row["subject_id"] for row in csv.DictReader(file)]
    (tmp_path / "patients").write_text(f"{patients[0]}\n")
    done = shard(
        "--records", records, "--out", tmp_path / "out", "--fs", "100", "--leads", "v2,II",
        "--duration", "4", "--longer", "center", "--shorter", "reject",
        "--exclude-patients", tmp_path / "patients", "--keep-rejected", "checksum,leads",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"excluded {patients.count(patients[0])}" in done.stdout
    assert "excluded 1 of the 1 patients of" in done.stdout
    folder = json.loads((tmp_path / "out" / "index.json").read_text())
    assert (folder["leads"], folder["num_samples"]) == (["V2", "II"], 400)
    wanted = {"longer": "center", "shorter": "reject", "keep_rejected": ["checksum", "leads"]}
    assert folder["settings"] | wanted == folder["settings"]
    (tmp_path / "patients").write_text("nobody\n")
    done = shard(
        "--records", records, "--out", tmp_path / "all", "--fs", "100",
        "--exclude-patients", tmp_path / "patients",
    )  # fmt: skip
    assert done.returncode == 1
    assert "excluded 0 of the 1 patients of" in done.stdout
    assert "none of its patients has a record here" in done.stderr


def test_parts_are_merged(records: Path, built: Path, tmp_path: Path) -> None:
    settings = ("--records", records, "--fs", "100", "--samples-per-shard", "8")
    for number in (1, 2):
        part = ("--part", f"{number}/2", "--out", tmp_path / str(number))
        assert shard(*settings, *part).returncode == 0
    merge = ("merge", tmp_path / "1", tmp_path / "2", "--out", tmp_path / "out")
    done = shard(*merge)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tmp_path / "out") == contents(built)
    assert "not empty" in fails(shard(*merge), 2)
    assert "no such folder" in fails(shard("merge", tmp_path / "3", "--out", tmp_path / "o"), 2)


def test_a_dry_run_writes_nothing(records: Path, tmp_path: Path) -> None:
    done = shard("--records", records, "--out", tmp_path / "out", "--dry-run", "--workers", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"would write {NUM_RECORDS} records" in done.stdout
    assert "with 2 worker(s)" in done.stdout
    assert not (tmp_path / "out").exists()


def test_an_index_is_repaired(built: Path, tmp_path: Path) -> None:
    out = shutil.copytree(built, tmp_path / "out")
    index = next(out.glob("train-*.idx.npy"))
    index.unlink()
    done = shard("verify", out)
    assert done.returncode == 1
    assert f"{index.name}: is absent or damaged" in done.stdout
    done = shard("verify", out, "--repair-index")
    assert done.returncode == 0
    assert f"repaired {index.name}" in done.stdout
    assert contents(out) == contents(built)
