"""The README is true: its Python runs, its commands exist, its tree is the tree."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=range(len(PYTHON_BLOCKS)))
def test_python_blocks_run(block: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_there_are_blocks_to_run() -> None:
    assert len(PYTHON_BLOCKS) >= 2


def test_every_tool_and_recipe_that_is_named_exists() -> None:
    named = set(re.findall(r"(?:^|[\s`(])(?:\./)?(tools/[a-z.]*[a-z])", README))
    assert len(named) >= 7
    for name in named:
        assert (ROOT / name).exists(), name
    for recipe in re.findall(r"--recipe (\w+)", README):
        assert (ROOT / "tools" / "recipes" / f"{recipe}.toml").is_file()


def test_flags_in_the_readme_are_known_to_their_tools() -> None:
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    calls = re.findall(r"^(?:deepspeed )?(tools/\S+) (.*)$", "\n".join(blocks), re.MULTILINE)
    assert len(calls) >= 4
    for tool, arguments in calls:
        command = [sys.executable, str(ROOT / tool)]
        if (first := arguments.split()[0]) in ("build", "query"):
            command.append(first)
        shown = subprocess.run([*command, "--help"], capture_output=True, text=True).stdout
        for flag in re.findall(r"--[\w.-]+", arguments):
            assert flag in shown, f"{tool} {flag}"


def test_every_folder_and_module_has_its_place_in_the_readme() -> None:
    table = README.split("## The story")[1]
    for path in sorted((ROOT / "esi_fast").iterdir()):
        is_package = path.is_dir() and list(path.glob("*.py"))
        is_module = path.suffix == ".py" and path.name != "__init__.py"
        if is_package or is_module:
            assert path.name in table, path.name


def test_the_demo_names_only_tools_that_exist() -> None:
    script = (ROOT / "tools" / "demo").read_text()
    for name in set(re.findall(r"tools/[\w.]+", script)):
        assert (ROOT / name).exists(), name


def test_the_scores_in_the_readme_are_those_of_the_committed_run() -> None:
    with (ROOT / "benchmarks" / "demo.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["finding"] == "macro"]
    assert {row["task"] for row in rows} == {"zeroshot", "probe"}
    for row in rows:
        for who in ("trained", "untrained"):
            values = [float(row[f"{who}_{part}"]) for part in ("auroc", "low", "high")]
            assert "{:.3f} [{:.3f}, {:.3f}]".format(*values) in README


def test_the_speeds_in_the_readme_are_those_of_the_committed_run() -> None:
    rows = []
    for name in ("signal", "loader", "shard", "measure"):
        with (ROOT / "benchmarks" / f"{name}.csv").open() as file:
            rows += csv.DictReader(line for line in file if not line.startswith("#"))
    shown = {
        (f"{us:.0f}", "{:.1f} ({:.1f} .. {:.1f})".format(*ratios))
        for row in rows
        for us in [float(row["ours_us_per_record"])]
        for ratios in [[float(row[name]) for name in ("ratio", "ratio_min", "ratio_max")]]
    }
    table = re.findall(r"^\| .* \| (\d+) \| ([\d.]+ \([\d. ]+\)) \| .* \|$", README, re.MULTILINE)
    assert len(table) == 11 + 6 + 4
    assert set(table) <= shown


def test_the_accuracy_in_the_readme_is_that_of_the_committed_run() -> None:
    with (ROOT / "benchmarks" / "measure_ludb.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    by_mark = {(row["method"], row["mark"]): row for row in rows}
    for method in ("esi_fast", "neurokit2 dwt", "neurokit2 prominence"):
        cells = [method]
        for peak, marks in (
            ("r_peak", ("qrs_onset", "qrs_end")),
            ("p_peak", ("p_onset", "p_end")),
            ("t_peak", ("t_end",)),
        ):
            cells.append(f"{float(by_mark[method, peak]['f1']):.3f}")
            deviations = [by_mark[method, mark]["sd_ms"] for mark in marks]
            cells.append(f"{', '.join(deviations)} ms")
        assert f"| {' | '.join(cells)} |" in README
        false = f"{float(by_mark[method, 'p_peak']['false_per_af_beat']):.2f}"
        assert false in README.split("False P waves a beat in atrial fibrillation:")[1][:120]


def test_the_retrievers_figures_are_those_of_the_committed_run() -> None:
    text = (ROOT / "benchmarks" / "retriever.csv").read_text()
    (job,) = re.findall(r"^# caption job: (.*)$", text, re.MULTILINE)
    assert job in README
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    large = {(row["method"], row["batch"]): row for row in rows if row["size"] == "100000"}
    assert len(large) == 12
    for method in {name for name, _ in large}:
        one, many = large[method, "1"], large[method, "32"]
        cells = [
            f"{float(row[name]):.{digits}f}"
            for row in (one, many)
            for name, digits in (("queries_per_core_s", 0), ("ratio_to_numpy", 1))
        ]
        assert f" | {' | '.join(cells)} | {float(many['recall_at_10']):.3f} |\n" in README


def test_the_steps_figures_are_those_of_the_committed_run() -> None:
    with (ROOT / "benchmarks" / "step.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    by_name = {(row["quantity"], row["work"]): row for row in rows}
    row = by_name["ECGs a second of CPU time", "step, demo"]
    ratio, low, high = (float(row[name]) for name in ("ratio", "ratio_min", "ratio_max"))
    assert (
        f"{ratio:.2f} times as many ECGs a second of CPU time ({low:.2f} .. {high:.2f};"
        in " ".join(README.split())
    )
    row = by_name["peak memory, GiB", "step, base"]
    assert f"{float(row['ours']):.1f} GiB and {float(row['plain']):.1f} GiB" in README
    assert row["kind"] == "computed"
    assert {row["kind"] for row in rows if row["device"] == "GPU"} == {"not measured"}


def test_the_searchs_figures_are_those_of_the_committed_run() -> None:
    with (ROOT / "benchmarks" / "search.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    value = {
        (row["quantity"], row["setting"]): float(row["value"])
        for row in rows
        if row["records"] == "800000"
    }
    for what in ("ECG", "text"):
        recall, ms = (value[name, "ef 1024"] for name in (f"recall@10, {what}", f"a query, {what}"))
        assert re.search(
            rf"^\| an? {what} \| {recall:.3f}\D.*\| {ms:.2f} \|$", README, re.MULTILINE
        )
    built = value["build of the graph", "M 16, ef_construction 500, CPU"]
    assert f"It took {built:.0f} s of\nCPU time" in README


def test_the_probes_figures_are_those_of_the_committed_run() -> None:
    with (ROOT / "benchmarks" / "probe.csv").open() as file:
        ours, rival, intervals = csv.DictReader(line for line in file if not line.startswith("#"))
    cpu, wall, theirs, theirs_of_intervals = (
        f"{float(row[column]):.0f}"
        for row, column in (
            (ours, "cpu_s"), (ours, "wall_s"), (rival, "cpu_s"), (intervals, "cpu_s")
        )
    )  # fmt: skip
    text = " ".join(README.split())
    assert f"grid: {cpu} s of CPU time, {wall} s on two cores; scikit-learn" in text
    assert f"three of them: {theirs} s." in text
    assert f"1,000 resamples: {theirs_of_intervals} s." in text


def test_what_was_learned_is_what_the_committed_run_says() -> None:
    with (ROOT / "benchmarks" / "learning.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    probes = [row for row in rows if row["quantity"].startswith("linear probe")]
    rows = [row for row in rows if row not in probes]
    assert len(rows) == 3 + 4
    text = " ".join(README.split())
    for name, where, above in (("ludb", "on LUDB's", True), ("mimic-like", "on", False)):
        of_set = [row for row in probes if row["work"] == name]
        values = sorted(float(row["value"]) for row in of_set)
        assert f"by {values[0]:.3f} to {values[-1]:.3f} {where} {of_set[0]['num_records']}" in text
        assert {float(row["low"]) > 0 for row in of_set} == {above}
    poolings: dict[str, list[str]] = {}
    for row in rows[3:]:
        pooling, _, rest = row["work"].partition(" pooling, ")
        assert "1.5 epochs" in rest
        poolings.setdefault(pooling, []).append(f"{float(row['value']):.3f}")
    assert f"{' and '.join(poolings['mean'])} by the mean" in README
    assert f"{' and '.join(poolings['attention'])} by\nattention" in README
    for row in rows[:3]:
        value = f"{float(row['value']):.3f}"
        if row["low"]:
            value += f" [{float(row['low']):.3f}, {float(row['high']):.3f}]"
        assert f"| {value} | {float(row['control']):.3f}, {row['against']} |" in README


def test_the_first_table_repeats_figures_of_the_others() -> None:
    first = README.split("| measured, on CPU cores")[1].split("\n\n")[0]
    factors = re.findall(r"^\| .* \| ([\d.]+) \| .* \|$", first, re.MULTILINE)
    assert len(factors) == 6
    rest = README.split("## Two commands")[1]
    for factor in factors:
        assert re.search(rf"(?<![\d.]){re.escape(factor)}(?![\d.]| ms)", rest), factor


def test_the_shares_in_the_readme_are_those_of_the_committed_sweep() -> None:
    with (ROOT / "benchmarks" / "kernel_tiles.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    shipped: dict[str, list[float]] = {}
    for row in rows:
        if row["shipped"] == "yes":
            shipped.setdefault(row["kernel"], []).append(float(row["share_of_copy"]))
    shown = re.findall(r"^\| (.*) \| (0\.\d\d \.\. 0\.\d\d) \|$", README, re.MULTILINE)
    assert len(shown) == 6
    for kernel, shares in shown:
        values = shipped[kernel]
        assert shares == f"{min(values):.2f} .. {max(values):.2f}", kernel


def test_every_path_that_the_readme_names_exists() -> None:
    for name in re.findall(r"`((?:esi_fast|csrc|tests|benchmarks|tools)/[\w./]*)`", README):
        assert (ROOT / name).exists(), name
