"""tools/bench kernels: the rivals compute what we do, every call runs, the verdicts are right.

On a CPU and with tiny shapes; no time is asserted.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_tool_bench import bench, read_csv
from torch import Tensor

from benchmarks import commands, kernel_speed, kernel_works
from benchmarks.kernel_encoder import Encoder, encoder
from benchmarks.kernel_verdicts import Row, verdicts
from benchmarks.kernel_works import OPERATORS, Cell, Run

CELL = Cell("atto", 3, 1, "fp32")


class WallClock:
    """Times by the wall, once."""

    def us(self, call: Run) -> float:
        started = time.perf_counter()
        call()
        return (time.perf_counter() - started) * 1e6

    host_us = us


@pytest.fixture(autouse=True)
def compile_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces what would be compiled; code of Inductor would take minutes."""
    monkeypatch.setattr(
        kernel_works,
        "compiled",
        lambda function, mode: torch.compile(function, backend="aot_eager", fullgraph=True),
    )


def outputs(result: object) -> list[Tensor]:
    """The tensors of a call's result; of a channels-first one as (B, T, C)."""
    tensors = list(result) if isinstance(result, tuple) else [result]
    num_steps, num_channels = CELL.shape[1:]
    return [
        t.transpose(1, 2) if t.shape[1:] == (num_channels, num_steps) else t
        for t in tensors
        if isinstance(t, Tensor)
    ]


@pytest.mark.parametrize("works", OPERATORS, ids=lambda works: works.__name__)
def test_the_rivals_compute_what_we_do(works: kernel_works.Run) -> None:
    torch.manual_seed(0)
    ours: dict[tuple[str, str], list[Tensor]] = {}
    num_rivals = 0
    for compile_only in (False, True):
        torch.manual_seed(0)  # the same numbers again
        for work in works(CELL, compile_only, "cpu"):
            key = work.operator, work.work
            if work.who == "ours":
                ours[key] = outputs(work.call())
            elif key in ours and "FLA" not in work.who:
                num_rivals += 1
                for actual, wanted in zip(outputs(work.call()), ours[key], strict=True):
                    torch.testing.assert_close(actual, wanted, rtol=1e-3, atol=1e-3)
    assert num_rivals >= 4


def test_every_call_of_a_cell_runs() -> None:
    rows = [
        row
        for compile_only in (False, True)
        for row in kernel_speed.measure_cell(CELL, compile_only, WallClock(), 1e9, "cpu")
    ]
    assert all(row.us > 0 and row.host_us > 0 and row.share_of_copy > 0 for row in rows)
    for operator in ("depthwise_conv1d", "depthwise_conv1d_layer_norm", "gelu_grn"):
        ours = {row.work for row in rows if (row.operator, row.who) == (operator, "ours")}
        assert ours == {"forward", "backward", "step"}
    assert {row.who for row in rows if row.operator == "gelu_grn_mlp"} == {
        "ours", "eager", "compile", "compile max-autotune",
    }  # fmt: skip


def test_a_rival_that_fails_is_shown_and_ours_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError("no engine")

    for who in ("eager", "ours"):
        work = kernel_works.Work("gelu_grn", "step", who, 8, fail)
        monkeypatch.setattr(kernel_speed, "OPERATORS", [lambda *_, work=work: [work]])
        rows = kernel_speed.measure_cell(CELL, False, WallClock(), 1e9, "cpu")
        if who == "ours":
            with pytest.raises(RuntimeError, match="no engine"):
                next(iter(rows))
        else:
            (row,) = rows
            assert math.isnan(row.us)
            assert "gelu_grn by eager: no engine" in capsys.readouterr().out


def test_the_cells_are_all_models_stages_batches_and_dtypes() -> None:
    plain, with_compile = kernel_speed.cells(quick=False)
    assert len(plain) == len(set(plain)) == 5 * 4 * 4 * 3
    assert plain[:4] == with_compile == [Cell("base", stage, 64, "bf16") for stage in range(4)]
    assert kernel_speed.cells(quick=True)[0] == plain[:4]
    assert plain[0].shape == (64, 1250, 128)
    assert plain[3].shape == (64, 156, 1024)


def test_the_encoders_are_one_model() -> None:
    counts = {
        who: sum(p.numel() for p in encoder("atto", who).parameters())
        for who in ("ours", "eager", "compile")
    }
    assert len(set(counts.values())) == 1


def row(stage: int, operator: str, work: str, who: str, us: float, share: float = 0.5) -> Row:
    return Row("base", stage, 64, 1, 1, "bf16", operator, work, who, us, 1.0, 1.0, share)


def test_verdicts_take_the_worst_stage_and_the_best_rival() -> None:
    rows = [
        row(1, "gelu_grn", "step", "ours", 10.0),
        row(1, "gelu_grn", "step", "eager", 60.0),
        row(2, "gelu_grn", "step", "ours", 10.0),
        row(2, "gelu_grn", "step", "eager", 40.0),
        row(1, "gelu_grn", "forward", "ours", 1.0, 0.95),
        row(2, "gelu_grn", "forward", "ours", 1.0, 0.91),
        row(1, "depthwise_conv1d", "step", "ours", 10.0),
        row(1, "depthwise_conv1d", "step", "eager conv1d", 90.0),
        row(1, "depthwise_conv1d", "step", "compile conv1d", 14.0),
        row(1, "depthwise_conv1d", "step", "compile shifted sum", math.nan),
        row(1, "depthwise_conv1d", "step", "FLA, causal", 1.0),
        row(1, "depthwise_conv1d", "step", "ours", 99.0)._replace(dtype="fp32"),
    ]
    encoders = [
        Encoder("base", 64, "ours", 1.0, 1.0, 4.0),
        Encoder("base", 64, "eager", 2.5, 1.0, 20.0),
        Encoder("atto", 8, "compile", 9.0, 1.0, 1.0),
    ]
    found = {one.what: (one.value, one.word) for one in verdicts(rows, encoders)}
    assert found["gelu_grn step vs eager, 2 of 4 stages"] == (4.0, "met")
    assert found["gelu_grn forward, share of copy, 2 of 4 stages"] == (0.91, "aim met")
    best = found["depthwise_conv1d step vs the best of torch's, 1 of 4 stages"]
    assert best == (1.4, "MISSED")
    assert found["encoder step vs eager"] == (2.5, "met")
    assert found["peak memory of eager's step / ours"] == (5.0, "aim met")
    assert found["encoder step vs compile"][1] == "not measured"
    assert found["gelu_grn backward, share of copy"][1] == "not measured"


def test_what_was_measured_is_kept_as_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "kernels.csv"
    rows = [row(1, "gelu_grn", "step", "ours", 10.0)]
    more = [*rows, row(1, "gelu_grn", "step", "eager", 35.0)]
    seen = []

    def measure(quick: bool) -> Iterator[tuple[float, list[Row], list[Encoder]]]:
        yield 1e12, rows, []
        seen.append(len(read_csv(path)[1]))
        yield 1e12, more, []

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(kernel_speed, "measure", measure)
    commands.run_kernels(argparse.Namespace(quick=True, csv=path), "tools/bench kernels")
    assert seen == [1]
    assert [line["who"] for line in read_csv(path)[1]] == ["ours", "eager"]
    assert "# gelu_grn step vs eager, 1 of 4 stages: 3.50 (bar 3, aim 5): met" in path.read_text()
    assert "gelu_grn step vs eager" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    result = bench("kernels", "--quick")
    assert result.returncode == 2
    assert "the kernels are measured on a CUDA GPU, and torch sees none" in result.stderr
