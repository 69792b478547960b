"""Runs of tools/caption on tiny trees in MIMIC-IV-ECG's layout."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

REPORTS = [
    ["Sinus rhythm", "", "Normal ECG"],
    ["SINUS RHYTHM.", "Possible inferior infarct - age undetermined", "Abnormal ECG"],
    ["Atrial fibrillation with rapid ventricular response", "Quixotic deflections"],
    ["*** Atrial fibrillation ***", "Lead(s) unsuitable for analysis: V3"],
]


TEMPLATE = ("--backend", "template")
CHAT = ("--backend", "openai", "--model", "m")
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


def refused(done: subprocess.CompletedProcess[str], status: int, message: str) -> None:
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("tools/caption: error: ")
    assert message in line


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }
