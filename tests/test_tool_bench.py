"""tools/bench: what it refuses and writes, and that it compares results before it times anything.

No time is asserted: ratios are for the committed CSV.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import agreement, comparison, record_files, resample_figures, signal_speed
from benchmarks.comparison import Comparison

TOOL = Path(__file__).resolve().parent.parent / "tools" / "bench"
# Nothing to compare: one side reads bytes only, or is the same program twice.
NOT_COMPARED = {"open, read, close", "2 processes"}


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def read_csv(path: Path) -> tuple[dict[str, str], list[dict[str, str]]]:
    lines = path.read_text().splitlines()
    comments = [tuple(line[2:].split(": ", 1)) for line in lines if line.startswith("# ")]
    rows = list(csv.DictReader(line for line in lines if not line.startswith("# ")))
    return dict(comments), rows


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    folder = tmp_path_factory.mktemp("bench")
    speed, accuracy = folder / "signal.csv", folder / "resample.csv"
    done = bench("signal", "--quick", "--csv", speed, "--accuracy-csv", accuracy)
    assert done.returncode == 0, done.stderr
    return done.stdout, speed, accuracy


def test_the_speed_table_is_whole(quick: tuple[str, Path, Path]) -> None:
    header, rows = read_csv(quick[1])
    assert list(header) == ["command", "date", "machine", "versions", "commit"]
    assert header["command"].startswith("tools/bench signal --quick --csv ")
    bars = {(row["pipeline"], row["bar"], row["aim"]) for row in rows if row["bar"]}
    resampled = [f"read, 500->{fs}" for fs in (100, 250, 257)]
    assert bars == {
        ("header", "100", "250"),
        ("read", "40", "70"),
        *((name, "40", "55") for name in resampled),
        *((name, "3", "5") for name in resampled),
        *((name, "1.8", "1.95") for name in ("read 500 Hz", "read, 500->250 hq")),
        *(
            (name, "0.6", "0.75")
            for name in ("read 500 Hz", "read, 500->250 hq", "read, 500->100 scipy")
        ),
    }
    assert len(rows) == 4 + 9 + 3 + 4 + 3 + 1
    for row in rows:
        assert row["pipeline"] in quick[0]


def test_nothing_is_timed_that_was_not_compared(quick: tuple[str, Path, Path]) -> None:
    _, rows = read_csv(quick[1])
    for row in rows:
        if row["note"].startswith("not measured"):
            assert row["num_rounds"] == "0"
            assert row["ratio"] == ""
            continue
        times = float(row["ours_us_per_record"]), float(row["rival_us_per_record"])
        assert min(times) > 0
        assert float(row["ratio_min"]) <= float(row["ratio_max"])
        assert int(row["num_rounds"]) >= signal_speed.QUICK.num_rounds
        compared = int(row["num_compared"])
        assert compared == 0 if {row["ours"], row["rival"]} & NOT_COMPARED else compared > 0
    measured = {row["rival"] for row in rows if row["ratio"]}
    assert {"wfdb.rdheader", "wfdb.rdrecord", "by hand + soxr HQ"} <= measured


def test_the_accuracy_table_is_whole(quick: tuple[str, Path, Path]) -> None:
    header, rows = read_csv(quick[2])
    assert "soxr" in header["versions"]
    expected = [
        (str(fs_in), str(fs_out), method)
        for fs_in, fs_out in resample_figures.RATES
        for method in resample_figures.METHODS
    ]
    assert [(row["fs_in"], row["fs_out"], row["method"]) for row in rows] == expected


@pytest.mark.parametrize(
    "arguments",
    [(), ("speed",), ("loader", "--shard"), ("signal", "--no"), ("signal", "--csv"),
     ("signal", "--csv", "/no/x.csv"),
     ("measure", "--accuracy-csv", "x.csv"), ("measure", "--ludb", "/tmp"),
     ("signal", "--accuracy-csv", "/tmp"), ("signal", "--shard", "--accuracy-csv", "x.csv")],
)  # fmt: skip
def test_what_cannot_be_is_one_line(arguments: tuple[str, ...]) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("tools/bench: error: ")
    assert done.stderr.count("\n") == 1


def test_help_loads_nothing_heavy(root: Path) -> None:
    code = (
        "import runpy, sys\nsys.argv = ['bench', 'signal', '--help']\n"
        "try:\n    runpy.run_path('tools/bench', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "assert not {'torch', 'scipy', 'numpy', 'wfdb'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout


@pytest.fixture(scope="module")
def stems(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return record_files.write_records(tmp_path_factory.mktemp("records") / "16", 2, "16")


@pytest.mark.parametrize("number", range(len(signal_speed.contests())))
def test_a_wrong_result_ends_the_run(number: int, stems: list[str]) -> None:
    contest = signal_speed.contests()[number]
    assert signal_speed.compare(contest, [stems]) == 2

    def wrong(stem: str) -> Any:
        found = contest.rival(stem)
        if isinstance(found, np.ndarray):
            # A wave of 0.1 mV about one lead, somewhere inside.
            axis = found.shape.index(12)
            lead = found[:, 3] if axis == 1 else found[3]
            lead += 0.1 * np.sin(np.linspace(0, 200, len(lead)))
        else:
            found.sig_name[3] = "V9"
        return found

    faulty = signal_speed.Contest(contest.row, contest.ours, wrong, contest.agree)
    with pytest.raises(ValueError, match=f"{contest.row.rival.split()[0]}.* differ on 40000000: "):
        signal_speed.compare(faulty, [stems])


def test_results_that_cannot_be_compared_are_no_agreement(stems: list[str]) -> None:
    contest = signal_speed.contests()[4]
    blind = signal_speed.Contest(contest.row, contest.ours, contest.rival, lambda a, b: False)
    with pytest.raises(ValueError, match="no record on which they can be compared"):
        signal_speed.compare(blind, [stems])


signal = np.random.default_rng(0).normal(size=(12, 500)).astype(np.float32)
holed = signal.copy()
holed[3, 40:50] = np.nan


@pytest.mark.parametrize(
    ("check", "other", "message"),
    [
        (agreement.within_one_ulp, signal[:, 1:], "shapes"),
        (agreement.within_one_ulp, holed, "missing samples differ"),
        (agreement.within_one_ulp, signal * (1 + 1e-6), "last place"),
        (agreement.within_a_millionth, signal + 1e-4, "full scale"),
        (agreement.same_passband, np.roll(signal, 1, axis=1), "spectra"),
    ],
)
def test_checks_refuse(check: Callable[..., bool], other: Any, message: str) -> None:
    assert check(signal, signal)
    with pytest.raises(ValueError, match=message):
        check(signal, other)


def test_missing_samples() -> None:
    assert agreement.within_one_ulp(holed, holed.astype(np.float64))
    assert not agreement.within_a_millionth(holed, holed)
    assert not agreement.same_passband(holed, holed)


def test_both_sides_take_turns() -> None:
    calls: list[str] = []
    row = Comparison("p", "a", "b")

    def ours(_: object) -> None:
        calls.append("a")

    def rival(_: object) -> None:
        calls.append("b")

    comparison.time_in_turn(row, ours, rival, [["x"], ["y"]], 2)
    assert "".join(calls) == "abbabaab"
    assert len(row.rounds) == 2


def test_the_verdict_follows_bar_and_aim() -> None:
    verdicts = [
        Comparison("p", "a", "b", bar=2, aim=4, rounds=[(1.0, ratio)]).verdict
        for ratio in (1.9, 2.0, 4.0)
    ]
    assert verdicts == ["MISSED", "met", "aim met"]
    assert Comparison("p", "a", "b", rounds=[(1.0, 1.0)]).verdict == ""


def test_medians_for_cpu_time_and_the_best_for_wall_time() -> None:
    rounds = [(1.0, 4.0), (2.0, 4.0), (4.0, 40.0)]
    row = Comparison("p", "a", "b", rounds=rounds)
    assert (row.ours_us, row.rival_us, row.ratio) == (2, 4, 4)
    row = Comparison("p", "a", "b", clock="wall", rounds=rounds)
    assert (row.ours_us, row.rival_us, row.ratio) == (1, 4, 4)


def test_files_leave_the_page_cache(stems: list[str]) -> None:
    record_files.evict(stems)
    if record_files.resident_share(stems) == 1:
        pytest.skip("this file system keeps its files in memory")
    assert record_files.resident_share(stems) == 0
    record_files.read_bytes(stems)
    assert record_files.resident_share(stems) == 1
