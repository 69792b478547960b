"""Every row of the table of tiles, compiled ahead of time: no GPU needed.

All for sm_90, those of the models' cases for sm_80 and gfx942 too; bfloat16 and float32, and the
other dtypes of the widest. Once at its worst (lengths, odd strides, channels that fill no block),
where nothing may spill, and dense, where registers are few besides.

A process of its own, since what the interpreter has wrapped cannot be compiled; it prints one line
of JSON for each kernel, layout and target.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

# Three blocks of 128 threads on a multiprocessor, at least. Of float64 two: it is for checks.
MAX_REGISTERS = {"*bf16": 168, "*fp16": 168, "*fp32": 168, "*fp64": 255}
MAX_SHARED_BYTES = 99 * 1024  # what the smallest device of these families gives to a block
Target = int | str  # a compute capability, or AMD's name


def compile_kernel(
    kernel: Any, num_warps: int, target: Target, pointers: str, **given: Any
) -> dict[str, Any]:
    """Compiles as the launcher would for contiguous tensors whose sizes are multiples of 16."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, divisible = {}, {}, {}
    for position, name in enumerate(kernel.arg_names):
        value = given.get(name, pointers if name.endswith("_ptr") else "i32")
        if isinstance(value, str) and (value.startswith("*") or value == "i32"):
            signature[name] = value
            if not re.fullmatch(r"T|T_out|num_\w+|w_stride_c", name):
                divisible[(position,)] = [["tt.divisibility", 16]]
        else:
            signature[name], constants[name] = "constexpr", value
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=divisible)
    is_amd = isinstance(target, str)
    gpu = GPUTarget("hip", target, 64) if is_amd else GPUTarget("cuda", target, 32)
    compiled = triton.compile(source, target=gpu, options={"num_warps": num_warps})
    if is_amd:
        spilled = re.findall(r"\.[vs]gpr_spill_count:\s+(\d+)", compiled.asm["amdgcn"])
        return {"spilled": sum(map(int, spilled)), "shared": compiled.metadata.shared}
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        usage = subprocess.run(
            [str(tool), "-res-usage", str(cubin)], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage)
    assert found is not None, usage
    registers, stack, _, local = map(int, found.groups())
    ptx = compiled.asm["ptx"]
    return {
        "registers": registers,
        "spilled": stack + local,
        "shared": compiled.metadata.shared,
        "atomics": len(re.findall(r"^\s*(?:@\S+ )?(?:atom|red)\.", ptx, re.MULTILINE)),
        "wide_loads": len(re.findall(r"ld\.global[\w.:]*\.v4\.b32", ptx)),
        "fused_multiply_adds": len(re.findall(r"\bfma\.rn", ptx)),
    }


class Configuration(NamedTuple):
    """A kernel as it is compiled; `given` has what is no int32 and no pointer to the data."""

    name: str
    kernel: Any
    num_warps: int
    target: Target
    pointers: str
    given: dict[str, Any]


ARCHITECTURES: dict[Target, str] = {80: "sm_80", 90: "sm_90", "gfx942": "gfx942"}
DTYPES = {"*bf16": 16, "*fp16": 16, "*fp32": 32, "*fp64": 64}
STATISTICS = ("partial", "scale", "ratio", "norm", "rows", "mean", "rstd")


def is_tuned(row: Any) -> bool:
    """Whether it is among the cases that the models have."""
    return row.layout == "BTC" and row.max_taps <= 7 and row.max_channels > 32


def identity(row: Any) -> str:
    """A row's own words."""
    bounds = row.max_taps, row.max_channels, row.architecture, row.bits
    return f"{row.kernel} {row.layout} " + " ".join(map(str, bounds))


def variants(row: Any) -> Iterator[tuple[Target, str, bool]]:
    """Target, dtype, and whether at its worst: lengths, odd strides, blocks that are not filled."""
    if row.bits == "64":
        yield 90, "*fp64", True
        return
    yield 90, "*bf16", True
    if row.layout == "BTC":
        yield 90, "*fp32", True
    if is_tuned(row):
        yield 80, "*bf16", True
        yield 80, "*bf16", False
        yield 90, "*bf16", False
        yield "gfx942", "*bf16", False
        if row.max_channels in (128, 1024, math.inf):
            yield from ((90, dtype, False) for dtype in ("*fp16", "*fp32", "*fp64"))


def arguments(pointers: str, lengths: bool) -> dict[str, Any]:
    """What all kernels are given: everything is asked for."""
    import triton.language as tl

    wide = pointers == "*fp64"
    given = {"lengths_ptr": "*i64" if lengths else None, "HAS_LENGTHS": lengths}
    given |= {"ACC": tl.float64 if wide else tl.float32, "HALF": pointers in ("*bf16", "*fp16")}
    given |= {f"{name}_ptr": "*fp64" if wide else "*fp32" for name in STATISTICS}
    given |= {"HAS_BIAS": True, "NEED_DX": True, "NEED_DW": True, "FOR_LAYERS": True}
    return given | {"ACTIVATION": "gelu", "EPS": 1e-6, "w_stride_k": 1}


def configurations() -> Iterator[Configuration]:
    """Every row of the table of tiles, and the kernels that have no tile."""
    conv, conv_ln, grn, partials, tiles = (
        importlib.import_module(f"esi_fast.kernels.{name}")
        for name in (
            "depthwise_conv1d", "depthwise_conv1d_layer_norm", "grn", "partial_sums", "tiles",
        )
    )  # fmt: skip
    kernels = {
        "depthwise_conv1d": conv.forward_kernel,
        "depthwise_conv1d_backward": conv.backward_kernel,
        "depthwise_conv1d_layer_norm": conv_ln.forward_kernel,
        "depthwise_conv1d_layer_norm_backward": conv_ln.backward_kernel,
        "grn_sums": grn.sums_kernel,
        "grn": grn.forward_kernel,
        "grn_backward_sums": grn.sums_kernel,
        "grn_backward": grn.backward_kernel,
    }
    for row in tiles.read_table(tiles.SHIPPED_PATH):
        for target, pointers, worst in variants(row):
            most = 2 * row.tile.block_c if row.max_channels == math.inf else int(row.max_channels)
            width = most - most // 4 if worst else most
            kind = row.kernel, row.layout, row.max_taps, ARCHITECTURES[target], DTYPES[pointers]
            if tiles.shipped_tile(tiles.Key(*kind, width)) != row.tile:
                continue  # there is another row for these
            channels_first = row.layout == "BCT"
            given = arguments(pointers, worst)
            axis = "t" if channels_first else "c"
            given |= {f"{name}_stride_{axis}": 1 for name in ("x", "y", "dy", "dx")}
            given |= {"G": row.tile.groups, "ROWS": row.tile.rows, "BC": row.tile.block_c}
            given |= {"BT": row.tile.block_t}
            if "grn" in row.kernel:
                given |= {"BACKWARD": "backward" in row.kernel}
                if row.kernel == "grn_sums":
                    given |= {"dy_ptr": None} | {f"dy_stride_{axis}": 0 for axis in "btc"}
            else:
                dense = not channels_first and not worst
                given |= {"C": width, "DENSE": dense, "K": row.max_taps}
                given |= {"PADDING": row.max_taps // 2, "HELD": row.max_taps <= tiles.MAX_HELD_TAPS}
            name = f"{'worst' if worst else 'dense'} {identity(row)}"
            kernel = kernels[row.kernel]
            yield Configuration(name, kernel, row.tile.num_warps, target, pointers, given)
    given = arguments("*bf16", False)
    for target in ARCHITECTURES:
        for width in (128, 6144):
            block = grn.record_block(width)
            sizes = {"BC": block["BC"], "BR": block["BR"]}
            for kernel in (grn.norms_kernel, grn.coefficients_kernel):
                name, num_warps = f"{kernel.__name__} {width}", block["num_warps"]
                yield Configuration(name, kernel, num_warps, target, "*bf16", given | sizes)
        sizes = {"BR": partials.BLOCK_ROWS, "BN": partials.BLOCK_COLUMNS}
        kernel = partials.sum_partials_kernel
        yield Configuration("sum of partials", kernel, 4, target, "*bf16", given | sizes)
    # A size or stride of one becomes a constant at launch.
    ones = arguments("*fp64", True)
    ones |= dict.fromkeys(("T", "T_out", "num_tiles", "num_partials", "w_stride_c"), 1)
    ones |= {f"{name}_stride_{axis}": 1 for name in ("x", "y", "dy", "dx") for axis in "btc"}
    ones |= {"ACTIVATION": "gelu_tanh", "G": 4, "ROWS": 2, "num_chunks": 1, "BACKWARD": True}
    ones |= {"BT": 16, "BC": 16, "BR": 4, "DENSE": False, "C": 1, "K": 7, "PADDING": 3}
    ones |= {"HELD": True}
    for name, kernel in (*kernels.items(), ("norms", grn.norms_kernel)):
        yield Configuration(f"{name} of ones", kernel, 4, 90, "*fp64", ones)


NUM_PROCESSES = 2


def compile_some(part: int) -> None:
    for one in [*configurations()][part::NUM_PROCESSES]:
        facts = compile_kernel(one.kernel, one.num_warps, one.target, one.pointers, **one.given)
        told = {"kernel": one.name, "target": one.target, "pointers": one.pointers}
        print(json.dumps(told | facts))


@pytest.fixture(scope="module")
def compiled() -> list[dict[str, Any]]:
    pytest.importorskip("triton")
    import esi_fast.kernels

    package_root = Path(next(iter(esi_fast.kernels.__path__))).parent.parent
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(package_root), os.environ.get("PYTHONPATH", "")]),
    }
    environment.pop("TRITON_INTERPRET", None)
    running = [
        subprocess.Popen(
            [sys.executable, __file__, str(part)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for part in range(NUM_PROCESSES)
    ]
    found: list[dict[str, Any]] = []
    for one in running:
        lines, errors = one.communicate()
        assert one.returncode == 0, errors
        found += map(json.loads, lines.splitlines())
    return found


@pytest.fixture(scope="module")
def for_cuda(compiled: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [c for c in compiled if c["target"] != "gfx942"]


def test_every_row_of_the_table_is_compiled(compiled: list[dict[str, Any]]) -> None:
    tiles = importlib.import_module("esi_fast.kernels.tiles")
    keys = {(c["kernel"], c["target"], c["pointers"]) for c in compiled}
    assert len(keys) == len(compiled)
    found = {c["kernel"].partition(" ")[2] for c in compiled}
    assert {identity(row) for row in tiles.read_table(tiles.SHIPPED_PATH)} <= found
    assert {c["target"] for c in compiled} == set(ARCHITECTURES)
    assert {c["pointers"] for c in compiled} == set(DTYPES)


def test_nothing_spills_and_everything_fits(compiled: list[dict[str, Any]]) -> None:
    assert [c for c in compiled if c["spilled"]] == []
    dense = [c for c in compiled if not c["kernel"].startswith("worst")]
    assert [c for c in dense if c.get("registers", 0) > MAX_REGISTERS[c["pointers"]]] == []
    assert [c for c in compiled if c["shared"] > MAX_SHARED_BYTES] == []


def test_no_atomics(for_cuda: list[dict[str, Any]]) -> None:
    assert [c for c in for_cuda if c["atomics"]] == []


def test_loads_of_the_widest_tensors_are_wide(for_cuda: list[dict[str, Any]]) -> None:
    # The convolutions load 4 or 8 bytes a thread: more rows in its registers are worth more.
    half = [c for c in for_cuda if c["pointers"] != "*fp64"]
    wide = [c for c in half if re.match(r"dense grn\w* BTC 1 (64|128|inf) ", c["kernel"])]
    assert len(wide) > 4 * 3
    assert [c for c in wide if not c["wide_loads"]] == []


def test_products_and_sums_of_the_convolution_are_fused(for_cuda: list[dict[str, Any]]) -> None:
    conv = [c for c in for_cuda if " depthwise" in c["kernel"]]
    assert len(conv) > 30
    assert [c for c in conv if c["fused_multiply_adds"] < 7] == []


if __name__ == "__main__":
    compile_some(int(sys.argv[1]))
