"""tools/bench step: both sides are one model, the counts are right, the GPU's branch runs.

No time is asserted: ratios are for the committed CSV.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_tool_bench import bench, read_csv
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import plain_step, step_counts, step_speed
from benchmarks.plain_step import Task
from esi_fast.pretrain.flops import flops_of_record
from esi_fast.pretrain.sizes import sizes_of
from esi_fast.training import distributed

CPU = torch.device("cpu")
SAMPLES = (100.0, 96)
TINY = step_speed.Size(1, cpu_samples=SAMPLES, gpu_recipe="demo", gpu_samples=SAMPLES, max_batch=32)


@pytest.fixture(scope="module")
def task() -> Task:
    return Task.of("demo", SAMPLES)


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    """A process group of one; once, as DeepSpeed keeps what it has learned of the first."""
    import deepspeed

    environment, threads = os.environ.copy(), torch.get_num_threads()
    distributed.start(deepspeed, on_gpu=False)
    yield
    distributed.shut_down()
    torch.set_num_threads(threads)
    os.environ.clear()
    os.environ.update(environment)


def test_what_is_not_measured_says_so(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: it would be measured, at full size")
    path = tmp_path / "step.csv"
    done = bench("step", "--quick", "--csv", path)
    assert done.returncode == 0, done.stderr
    header, rows = read_csv(path)
    assert header["command"].startswith("tools/bench step --quick --csv ")
    assert "deepspeed" in header["versions"]
    bars = {(row["quantity"], row["bar"], row["aim"]) for row in rows if row["bar"]}
    assert bars == {
        ("ECGs a second of CPU time", "1.3", "2.0"),
        ("ECGs a second", "1.8", "3.0"),
        ("peak memory, GiB", "0.6", "0.4"),
        ("MFU of 989.5 TFLOP/s", "0.35", "0.5"),
    }
    for row in rows:
        assert row["quantity"] in done.stdout
        assert (row["ours"] == "") == (row["kind"] == "not measured")
        assert row["kind"] == "measured" or row["num_rounds"] == row["verdict"] == ""
        assert row["kind"] != "not measured" or row["note"] == "no GPU here"
    assert {row["device"] for row in rows if row["kind"] == "measured"} == {"CPU, 2 threads"}
    (operations,) = [row for row in rows if row["quantity"] == "GFLOP a record"]
    assert float(operations["ours"]) == pytest.approx(196.8, abs=0.1)
    hours = [float(row["ours"]) for row in rows if row["quantity"].startswith("hours")]
    assert hours == pytest.approx(
        [24e6 * 196.84e9 / (989.5e12 * m) / 3600 for m in (0.35, 0.5)], 1e-3
    )


def test_both_are_the_same_model(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, plain = task.ours(), task.plain()
    assert {name: p.shape for name, p in ours.named_parameters()} == {
        name: p.shape for name, p in plain.named_as_ours().items()
    }
    assert plain_step.compare(task, CPU) == 4
    grn = plain_step.grn
    monkeypatch.setattr(plain_step, "grn", lambda x, gamma, beta: 2 * grn(x, gamma, beta))
    with pytest.raises(ValueError, match="losses differ"):
        plain_step.compare(task, CPU)


def test_wrong_gradients_end_the_run(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    attend = plain_step.PlainLayer.attend

    def detached(self: plain_step.PlainLayer, q: Tensor, k: Tensor, *rest: Tensor) -> Tensor:
        return attend(self, q, k.detach(), *rest)

    monkeypatch.setattr(plain_step.PlainLayer, "attend", detached)
    with pytest.raises(ValueError, match="the gradients of ecg"):
        plain_step.compare(task, CPU)


def test_the_plain_decoder_reads_the_states_of_bert(task: Task) -> None:
    plain = task.plain().eval()
    (batch,) = plain_step.draw_batches(task, 3, 1, CPU)
    inputs = batch["ecg"], batch["input_ids"], batch["attention_mask"]
    contrastive, states = plain(*inputs)
    plain.decoder_reads = "words"
    same, words = plain(*inputs)
    assert same == contrastive
    assert words != states


def test_captions_are_as_long_as_real_ones(task: Task) -> None:
    batches = list(plain_step.draw_batches(task, 200, 2, CPU))
    lengths = torch.cat([batch["attention_mask"].sum(1) for batch in batches]).float()
    assert lengths.min() >= 32
    assert lengths.max() <= 74
    assert lengths.mean() == pytest.approx(plain_step.MEAN_TOKENS, abs=1)
    for batch in batches:
        assert batch["concept_key"].unique().numel() == 200
        assert batch["input_ids"].shape[1] == batch["attention_mask"].sum(1).max()
        assert ((batch["input_ids"] != 0).long() == batch["attention_mask"]).all()


def test_a_step_of_each_changes_the_weights(task: Task, alone: None) -> None:
    (batch,) = plain_step.draw_batches(task, 16, 1, CPU)
    for make in (plain_step.our_step, plain_step.our_bare_step, plain_step.plain_step):
        step = make(task, CPU)
        first = float(step(batch)[1])  # type: ignore[index]
        for _ in range(8):
            last = float(step(batch)[1])  # type: ignore[index]
        assert last < first


def test_the_branch_of_the_gpu(alone: None) -> None:
    flops = 1e9
    speed, memory, largest, mfu, paper = step_speed.measure_gpu(TINY, CPU, flops)
    assert (speed.batch, largest.batch) == (16, 32)
    assert speed.ratio == speed.ours / speed.plain > 0
    assert math.isnan(memory.ours), "there is no such count on a CPU"
    assert math.isnan(mfu.ours), "nor a peak"
    assert memory.verdict == mfu.verdict == ""
    assert paper.ours == pytest.approx(24e6 / largest.ours / 3600)


def test_memory_that_is_full_ends_the_search(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(task: Task, device: torch.device, most: int = 16) -> plain_step.Step:
        def step(batch: plain_step.Batch) -> None:
            if len(batch["ecg"]) > most:
                raise torch.cuda.OutOfMemoryError("full")

        return step

    same, largest = step_speed.alone(make, task, CPU, TINY)
    assert same is largest
    assert same.batch == 16
    with pytest.raises(torch.cuda.OutOfMemoryError):
        step_speed.alone(lambda task, device: make(task, device, 8), task, CPU, TINY)


def test_operations_are_those_that_torch_counts(task: Task) -> None:
    length = 60
    with torch.device("meta"):  # where attention is two products, which torch counts
        plain = task.plain()
        ecg_BLT = torch.zeros(1, 12, task.config.num_samples)
        ids_BN = torch.ones(1, length, dtype=torch.long)

    # torch counts the gradients of a depthwise convolution as those of a dense one.
    def backward(dy: list[int], x: list[int], w: list[int], *_: object, **__: object) -> int:
        of_input = x[1] != 12  # the record needs no gradient
        return (1 + of_input) * 2 * math.prod(dy) * math.prod(w[1:])

    right = {torch.ops.aten.convolution_backward: backward}
    with step_counts.Bytes(0), FlopCounterMode(display=False, custom_mapping=right) as counter:
        sum(plain(ecg_BLT, ids_BN, ids_BN)).backward()
    sizes = sizes_of(task.recipe, task.config, task.text_config)
    counted = sum(part.total for part in flops_of_record(sizes, length, length).values())
    # torch counts the one product of the contrastive loss too.
    assert counter.get_total_flops() == pytest.approx(counted, rel=1e-3)


def test_bytes_are_counted_while_they_live() -> None:
    with step_counts.Bytes(num_words=3) as memory:
        x = torch.zeros(1000)
        view = x[:10]
        y = (x + 1) * 2
        assert memory.now == 8000, "the sum is gone"
        assert memory.peak == 12000
        del x
        assert memory.now == 8000, "a view keeps it"
        del view
        assert memory.now == 4000
        chosen = torch.zeros(4, 5, 6)[torch.ones(4, 5, dtype=torch.bool)]
    assert chosen.shape == (3, 6)
    assert y.shape == (1000,)


def test_full_logits_and_scores_take_memory(task: Task) -> None:
    length_B = torch.full((16,), 64)
    ours, plain = (
        step_counts.count_step(make, task.config.num_samples, length_B)
        for make in (task.ours, task.plain)
    )
    assert ours.num_parameters == plain.num_parameters
    logits = 16 * 63 * 1500 * 2
    assert plain.kept_bytes - ours.kept_bytes > logits
    assert ours.kept_bytes < ours.peak_bytes - 14 * ours.num_parameters < plain.peak_bytes


def test_the_verdict_follows_bar_and_aim() -> None:
    def verdict(quantity: str, value: float, bar: float, aim: float) -> str:
        figure = step_speed.Figure(quantity, "w", "d", 1, "measured", ours=value, ratio=value)
        figure.bar, figure.aim = bar, aim
        return figure.verdict

    assert [verdict("ECGs a second", x, 1.8, 3.0) for x in (1.7, 1.8, 3.0)] == [
        "MISSED", "met", "aim met",
    ]  # fmt: skip
    assert [verdict("peak memory, GiB", x, 0.6, 0.4) for x in (0.61, 0.6, 0.4)] == [
        "MISSED", "met", "aim met",
    ]  # fmt: skip
    assert verdict("ECGs a second", math.nan, 1.8, 3.0) == ""
