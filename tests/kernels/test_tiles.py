"""The table of tiles, and the search that ESI_FAST_AUTOTUNE asks for."""

from __future__ import annotations

import importlib
import math
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import pytest
import torch

from esi_fast import kernels
from esi_fast.kernels import tiles, tuning
from esi_fast.kernels.tiles import Kernel, Key, Tile

TILE = Tile(1, 2, 4, 8)
KEY = Key("depthwise_conv1d", "BTC", 7, "sm_90", 16, 128)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where tuned tiles go, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU, 80 GB")
    for cached in (tuning.tuned_tiles, tuning.tuned_path):
        cached.cache_clear()
    yield tuning.tuned_path(torch.device("cpu"))
    for cached in (tuning.tuned_tiles, tuning.tuned_path):
        cached.cache_clear()


def test_every_key_has_a_tile_that_its_kernel_can_take() -> None:
    for kernel in get_args(Kernel):
        for num_taps in (1,) if "grn" in kernel else (1, 7, 31):
            for bits in (16, 32, 64):
                for power in range(11):
                    key = Key(kernel, "BTC", num_taps, "sm_120", bits, 2**power)
                    tile = tiles.shipped_tile(key)
                    assert all(size & (size - 1) == 0 for size in tile)
                    walks = "backward" in kernel and "grn" not in kernel
                    assert (tile.programs > 0) == walks
                    assert tuning.fits(key, tile)
                    if "layer_norm" in kernel:
                        assert tile.block_c >= 2**power  # a program has all channels
                        assert tile.rows <= tuning.MAX_ROWS[kernel]
                    elif "grn" in kernel:
                        assert tile.rows == 1


def test_rows_are_for_their_architecture_width_and_bucket_alone() -> None:
    layer_norm = KEY._replace(kernel="depthwise_conv1d_layer_norm")
    for channels, same in ((512, True), (1024, False)):
        key = layer_norm._replace(num_channels=channels)
        ampere = tiles.shipped_tile(key._replace(architecture="sm_80"))
        assert (ampere == tiles.shipped_tile(key)) == same
        single = key._replace(architecture="sm_80", bits=32)
        assert tiles.shipped_tile(single) == tiles.shipped_tile(key)
    backward = KEY._replace(kernel="depthwise_conv1d_backward")
    double = tiles.shipped_tile(backward._replace(bits=64))
    assert double.rows < tiles.shipped_tile(backward).rows


def test_the_table_has_no_row_twice() -> None:
    rows = tiles.read_table(tiles.SHIPPED_PATH)
    assert len({row[:-1] for row in rows}) == len(rows)


def test_a_search_steps_to_the_fastest() -> None:
    key = KEY._replace(kernel="depthwise_conv1d_backward")
    wanted = Tile(2, 8, 64, 4, 2048)
    measured = []

    def measure(tile: Tile) -> float:
        measured.append(tile)
        return sum(abs(a.bit_length() - b.bit_length()) for a, b in zip(tile, wanted, strict=True))

    assert tuning.search(key, measure) == wanted
    assert measured[0] == tiles.shipped_tile(key)
    assert len(set(measured)) == len(measured) - 2  # the two ends again


def test_neighbours_are_tiles_that_the_kernel_can_take() -> None:
    for kernel in get_args(Kernel):
        key = KEY._replace(kernel=kernel, num_taps=1 if "grn" in kernel else 7)
        start = tiles.shipped_tile(key)
        found = list(tuning.neighbours(key, start))
        assert len(found) > 3
        for tile in found:
            assert tile != start
            if "layer_norm" in kernel:
                assert tile.block_c == start.block_c
                assert tile.rows <= tuning.MAX_ROWS[kernel]
            if "grn" in kernel:
                assert tile.rows == 1


def test_what_was_tuned_is_kept_beside_what_others_tuned(tuned: list[Tile], cache: Path) -> None:
    choose(tuned, 2, 9, 100)  # this process has read the table now
    with tuning.alone(cache):
        tuning.write_tuned(cache, {KEY: TILE})
    choose(tuned, 2, 9, 100, dtype=torch.float32)
    assert tuning.read_tuned(cache)[KEY] == TILE
    assert sorted(key.bits for key in tuning.read_tuned(cache)) == [16, 16, 32]
    assert {path.suffix for path in cache.parent.iterdir()} == {".csv", ".lock"}
    assert cache.is_relative_to(os.environ["XDG_CACHE_HOME"])


def test_others_wait_for_what_one_finds(tuned: list[Tile], cache: Path) -> None:
    with ThreadPoolExecutor(1) as pool, tuning.alone(cache) as is_alone:
        assert is_alone
        waiting = pool.submit(choose, tuned, 2, 9, 100)
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        key = Key("grn", "BTC", 1, "none", 16, 100)
        tuning.write_tuned(cache, {key: Tile(4, 1, 64, 2)})
        # Before the lock is free: its holder may search another key by now.
        assert waiting.result(30) == Tile(4, 1, 64, 2)
    assert tuned == []


def test_no_search_asks_for_another(
    cache: Path, tuned: list[Tile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which would wait for the lock that it holds itself, for ever."""
    searching: list[Key] = []
    searched: set[str] = set()

    def search(key: Key, measure: Callable[[Tile], float]) -> Tile:
        assert not searching
        searching.append(key)
        measure(tiles.shipped_tile(key))
        searched.add(searching.pop().kernel)
        return tiles.shipped_tile(key)

    class Launched:
        def __getitem__(self, grid: object) -> Callable[..., None]:
            return lambda *args, **options: None

    names = "depthwise_conv1d", "depthwise_conv1d_layer_norm", "grn"
    conv, both, grn = (importlib.import_module(f"esi_fast.kernels.{name}") for name in names)
    for module in (conv, both, grn, importlib.import_module("esi_fast.kernels.partial_sums")):
        for name in [name for name in vars(module) if name.endswith("_kernel")]:
            monkeypatch.setattr(module, name, Launched())
    monkeypatch.setattr(tuning, "search", search)
    monkeypatch.setattr(tuning, "seconds", lambda call: (call(), 1.0)[1])
    monkeypatch.setattr(tuning.dispatch, "accumulator", lambda dtype: None)

    def on_gpu(*shape: int) -> torch.Tensor:
        return torch.zeros(shape).as_subclass(Gpu)

    x, weight, one, rows = on_gpu(2, 64, 128), on_gpu(128, 1, 7), on_gpu(128), on_gpu(2, 64)
    need = [True, True, True]
    conv.launch_forward(x, weight, one, 3, None)
    both.launch_forward(x, weight, one, one, one, 1e-6, None)
    both.launch_backward(x, x, weight, one, one, one.dtype, rows, rows, None, need)
    grn.launch_forward(x, one, one, 1e-6, "gelu", None)
    grn.launch_backward(x, x, one, one.dtype, on_gpu(2, 128), 1e-6, "gelu", None, beta=one)
    assert searched == set(get_args(Kernel))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense\n1\n", "is no table of tiles .*: delete it"),
        (",".join(tiles.COLUMNS) + "\na,b,c\n", "is no table of tiles"),
        (tiles.SHIPPED_PATH.read_text(), "invalid literal for int"),
        (",".join(tiles.COLUMNS) + "\ngrn,BTC,1,sm_90,16,128,7,1,64,4,0\n", "grn cannot take"),
    ],
)
def test_a_damaged_table_is_named_and_searched_anew(
    tuned: list[Tile], cache: Path, text: str, message: str
) -> None:
    cache.parent.mkdir()
    cache.write_text(text)
    with pytest.warns(RuntimeWarning, match=f"tuned tiles are searched anew: .*{message}"):
        assert tuning.tuned_tiles(cache) == {}
    with pytest.warns(RuntimeWarning, match="searched anew"):
        choose(tuned, 2, 9, 100)
    assert len(tuning.read_tuned(cache)) == 1


def test_noise_leaves_the_shipped_tile() -> None:
    draw = random.Random(0)
    for _ in range(50):
        assert tuning.search(KEY, lambda tile: draw.uniform(1.0, 1.02)) == tiles.shipped_tile(KEY)


def test_a_tile_of_programs_is_never_without_one() -> None:
    key = KEY._replace(kernel="depthwise_conv1d_layer_norm_backward")
    found = set(tuning.neighbours(key, Tile(4, 4, 128, 4, 1)))
    assert {tile.programs for tile in found} == {1, 2}


class Gpu(torch.Tensor):
    """A tensor of the CPU that says it is on a GPU."""

    is_cuda = True


@pytest.fixture
def tuned(cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[Tile]:
    """Turns the search on, with a clock that finds 8 warps fastest; what it timed."""
    timed: list[Tile] = []
    monkeypatch.setenv("ESI_FAST_AUTOTUNE", "1")
    monkeypatch.setattr(tuning, "seconds", lambda call: abs(call().num_warps - 8))
    monkeypatch.setattr(tuning.dispatch, "on_device", lambda x: torch.no_grad())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return timed


def choose(timed: list[Tile], *shape: int, dtype: torch.dtype = torch.bfloat16) -> Tile:
    x = torch.empty(shape, dtype=dtype).as_subclass(Gpu)
    return tuning.choose("grn", x, False, 1, lambda tile: timed.append(tile) or tile)  # type: ignore[func-returns-value]


def test_autotune_searches_once_for_a_key_without_batch_and_time(
    tuned: list[Tile], cache: Path
) -> None:
    assert choose(tuned, 2, 9, 100).num_warps == 8
    count = len(tuned)
    assert count > 3
    assert choose(tuned, 5, 77, 100).num_warps == 8
    assert len(tuned) == count
    choose(tuned, 2, 9, 100, dtype=torch.float32)
    assert len(tuned) > count
    count = len(tuned)
    tuning.tuned_tiles.cache_clear()  # another process
    assert choose(tuned, 2, 9, 100).num_warps == 8
    assert len(tuned) == count
    assert len(tuning.read_tuned(cache)) == 2


def test_where_nothing_can_be_written_the_process_keeps_what_it_tuned(
    tuned: list[Tile], cache: Path
) -> None:
    cache.parent.parent.joinpath("esi_fast").write_text("a file where the folder would be")
    with pytest.warns(RuntimeWarning, match="grn is tuned for this process alone: .*esi_fast"):
        choose(tuned, 2, 9, 100)
    count = len(tuned)
    assert choose(tuned, 2, 9, 100).num_warps == 8
    assert len(tuned) == count


def test_a_tile_that_does_not_fit_is_slower_than_any(monkeypatch: pytest.MonkeyPatch) -> None:
    triton = pytest.importorskip("triton")

    def do_bench(call: Callable[[], object], **_: object) -> None:
        call()

    def launch() -> None:
        raise triton.runtime.errors.OutOfResources(300_000, 232_448, "shared memory")

    monkeypatch.setattr(triton.testing, "do_bench", do_bench)
    assert tuning.seconds(launch) == math.inf


def test_nothing_is_timed_inside_a_graph_or_without_data_or_unasked(
    tuned: list[Tile], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    choose(tuned, 0, 9, 100)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    choose(tuned, 2, 9, 100)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setenv("ESI_FAST_AUTOTUNE", "0")
    choose(tuned, 2, 9, 100)
    assert tuned == []
    assert not cache.exists()


def test_an_unknown_wish_is_refused_and_the_table_says_what_is_used(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    assert "tiles: shipped" in kernels.describe()
    monkeypatch.setenv("ESI_FAST_AUTOTUNE", "1")
    assert f"tiles: tuned, kept in {cache.parent}" in kernels.describe()
    monkeypatch.setenv("ESI_FAST_AUTOTUNE", "yes")
    with pytest.raises(ValueError, match="ESI_FAST_AUTOTUNE='yes' is unknown: use 0 or 1"):
        kernels.describe()


@pytest.mark.gpu
def test_autotune_on_a_gpu(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("ESI_FAST_AUTOTUNE", "1")
    x = torch.randn(8, 300, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    gamma, beta = torch.randn(2, 64, device="cuda")
    y = kernels.gelu_grn(x, gamma, beta)
    y.sum().backward()
    assert len(tuning.read_tuned(cache)) == 4
    monkeypatch.setenv("ESI_FAST_AUTOTUNE", "0")
    torch.testing.assert_close(y, kernels.gelu_grn(x, gamma, beta))
