"""Every kernel's shipped configuration, compiled ahead of time: no GPU needed.

For sm_80 and sm_90, whose registers, memory and instructions are looked at, and for gfx942, where
nothing may spill. bfloat16 throughout; for sm_90 float16 and float32, too.

A process of its own, since what the interpreter has wrapped cannot be compiled; it prints one line
of JSON for each kernel, layout and target.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Three blocks of 128 threads on a multiprocessor, at least; of float32 two.
MAX_REGISTERS = {"*bf16": 168, "*fp16": 168, "*fp32": 224}
MAX_SHARED_BYTES = 99 * 1024  # what the smallest device of these families gives to a block
C = 128
KERNELS = (
    "forward_kernel", "backward_kernel", "sums_kernel", "norms_kernel", "coefficients_kernel",
)  # fmt: skip


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
        if isinstance(value, str) and (value.startswith("*") or value in ("i32", "fp32")):
            signature[name] = value
            if not re.fullmatch(r"T|T_out|num_\w+|w_stride_c|eps", name):
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


BOTH: tuple[Target, ...] = (80, 90, "gfx942")


def configurations() -> Iterator[tuple[str, Any, int, tuple[Target, ...], dict[str, Any]]]:
    """Name, kernel, warps, targets, and the arguments that are no int32 and no pointers to data."""
    import triton.language as tl

    conv = importlib.import_module("esi_fast.kernels.depthwise_conv1d")
    conv_ln = importlib.import_module("esi_fast.kernels.depthwise_conv1d_layer_norm")
    grn = importlib.import_module("esi_fast.kernels.grn")
    plain = {"lengths_ptr": None, "HAS_LENGTHS": False, "ACC": tl.float32, "BACKWARD": True}
    plain |= {"HAS_BIAS": True, "NEED_DX": True, "NEED_DW": True, "ACTIVATION": "gelu"}
    plain |= {"HALF": True, "FOR_LAYERS": True, "eps": "fp32"}
    statistics = ("partial", "scale", "ratio", "norm", "rows", "mean", "rstd")
    plain |= {f"{name}_ptr": "*fp32" for name in statistics}
    no_dy = {"BACKWARD": False, "dy_ptr": None} | {f"dy_stride_{axis}": 0 for axis in "btc"}

    def taps(num_taps: int) -> dict[str, Any]:
        held = num_taps <= conv.MAX_HELD_TAPS
        return {"K": num_taps, "PADDING": num_taps // 2, "HELD": held, "w_stride_k": 1}

    for layout in ("BTC", "BCT"):
        unit, first = ("t", True) if layout == "BCT" else ("c", False)
        both = plain | {f"{name}_stride_{unit}": 1 for name in ("x", "y", "dy", "dx")}
        for num_taps, targets in ((7, BOTH), (conv.MAX_TAPS, (90,))):
            for way, kernel, tile in (
                ("forward", conv.forward_kernel, conv.forward_tile(C, num_taps, first)),
                ("backward", conv.backward_kernel, conv.backward_tile(C, num_taps, first)),
            ):
                given = both | taps(num_taps)
                given |= {"G": tile.groups, "ROWS": tile.rows, "BC": tile.block_c}
                name = f"{layout} conv {way}, {num_taps} taps"
                yield name, kernel, tile.num_warps, targets, given
        tiles = grn.shipped_tiles(C, first)
        for name, kernel, more in (
            ("sums", grn.sums_kernel, no_dy),
            ("forward", grn.forward_kernel, {}),
            ("backward sums", grn.sums_kernel, {}),
            ("backward", grn.backward_kernel, {"FOR_LAYERS": False}),
            ("backward for layers", grn.backward_kernel, {}),
        ):
            tile = tiles.sums if kernel is grn.sums_kernel else tiles.apply
            given = both | {"BT": tile.block_t, "BC": tile.block_c} | more
            yield f"{layout} grn {name}", kernel, tile.num_warps, BOTH, given
    contiguous = plain | {f"{name}_stride_c": 1 for name in ("x", "y", "dy", "dx")}
    for width in (128, 256, 512, conv_ln.MAX_CHANNELS):
        for way, kernel, tile in (
            ("forward", conv_ln.forward_kernel, conv_ln.forward_tile(width)),
            ("backward", conv_ln.backward_kernel, conv_ln.backward_tile(width)),
        ):
            given = contiguous | taps(7) | {"G": tile.groups, "ROWS": tile.rows, "BC": tile.block_c}
            yield f"BTC conv_ln {way}, {width} wide", kernel, tile.num_warps, BOTH, given
    for width in (128, 6144):
        block = grn.record_block(width)
        given = plain | {"BC": block["BC"], "BR": block["BR"]}
        for kernel in (grn.norms_kernel, grn.coefficients_kernel):
            name = f"grn {kernel.__name__}, {width} wide"
            yield name, kernel, block["num_warps"], BOTH, given
    partials = importlib.import_module("esi_fast.kernels.partial_sums")
    given = plain | {"BR": partials.BLOCK_ROWS, "BN": partials.BLOCK_COLUMNS}
    yield "sum of partials", partials.sum_partials_kernel, 4, BOTH, given
    # A size or stride of one becomes a constant at launch; here with float64 and with lengths.
    ones = plain | dict.fromkeys(("T", "T_out", "C", "num_tiles", "num_partials", "w_stride_c"), 1)
    ones |= {f"{name}_stride_{axis}": 1 for name in ("x", "y", "dy", "dx") for axis in "btc"}
    ones |= {"lengths_ptr": "*i64", "HAS_LENGTHS": True, "ACC": tl.float64, "HALF": False}
    ones |= {"ACTIVATION": "gelu_tanh", "G": 4, "ROWS": 2, "num_chunks": 1} | taps(7)
    pointers = ("x", "y", "dy", "dx", "dz", "w", "b", "beta", "gamma", "ln_w", "ln_b")
    ones |= {f"{name}_ptr": "*fp64" for name in (*pointers, *statistics)}
    ones |= {"BT": 16, "BC": 16, "BR": 4}
    for module in (conv, conv_ln, grn):
        for name in KERNELS:
            if hasattr(module, name):
                kernel = getattr(module, name)
                yield f"{module.__name__.split('.')[-1]} {name}, ones", kernel, 4, (90,), ones


NUM_PROCESSES = 2


def compile_some(part: int) -> None:
    for name, kernel, num_warps, targets, given in [*configurations()][part::NUM_PROCESSES]:
        for target in targets:
            # Other dtypes where layouts do not differ and pointers are of the tensors' dtype.
            others = ("*fp16", "*fp32") if target == 90 and name.startswith("BTC") else ()
            for pointers in ("*bf16", *others):
                facts = compile_kernel(kernel, num_warps, target, pointers, **given)
                told = {"kernel": name, "target": target, "pointers": pointers, **facts}
                print(json.dumps(told))


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


def test_every_kernel_compiles_for_every_target(compiled: list[dict[str, Any]]) -> None:
    bf16 = [c for c in compiled if c["pointers"] == "*bf16"]
    assert len(bf16) == 2 * (2 * 3 + 2 + 5 * 3) + 4 * 2 * 3 + 2 * 2 * 3 + 3 + 9
    # Two more dtypes on sm_90 of a layout's convolutions and norms, and of the fusion of both.
    assert len(compiled) - len(bf16) == 2 * (2 * 2 + 5 + 4 * 2)
    keys = {(c["kernel"], c["target"], c["pointers"]) for c in compiled}
    assert len(keys) == len(compiled)
    assert {c["target"] for c in compiled} == set(BOTH)


def test_nothing_spills_and_everything_fits(compiled: list[dict[str, Any]]) -> None:
    assert [c for c in compiled if c["spilled"]] == []
    assert [c for c in compiled if c.get("registers", 0) > MAX_REGISTERS[c["pointers"]]] == []
    assert [c for c in compiled if c["shared"] > MAX_SHARED_BYTES] == []


def test_no_atomics(for_cuda: list[dict[str, Any]]) -> None:
    assert [c for c in for_cuda if c["atomics"]] == []


def test_loads_of_the_widest_tensors_are_wide(for_cuda: list[dict[str, Any]]) -> None:
    # The convolutions load 4 or 8 bytes a thread: more rows in its registers are worth more.
    wide = [c for c in for_cuda if c["kernel"].startswith("BTC grn")]
    assert len(wide) == 5 * (2 + 2)
    assert [c for c in wide if not c["wide_loads"]] == []


def test_products_and_sums_of_the_convolution_are_fused(for_cuda: list[dict[str, Any]]) -> None:
    conv = [c for c in for_cuda if "conv" in c["kernel"]]
    assert len(conv) == 2 * 6 + 16 + 4 + 2 * (2 * 2 + 4 * 2)
    assert [c for c in conv if c["fused_multiply_adds"] < 7] == []


if __name__ == "__main__":
    compile_some(int(sys.argv[1]))
