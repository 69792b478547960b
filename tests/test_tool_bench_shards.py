"""tools/bench loader and signal --shard: their tables are whole, and nothing wrong is timed."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import loader_speed, shard_speed
from esi_fast.data.shard_set import ShardSet
from esi_fast.signal.simulate_tree import write_tree

TOOL = Path(__file__).resolve().parent.parent / "tools" / "bench"


def rows_of(path: Path, *arguments: str) -> list[dict[str, str]]:
    command = [sys.executable, str(TOOL), *arguments, "--quick", "--csv", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# command: tools/bench ")
    return list(csv.DictReader(line for line in lines if not line.startswith("# ")))


def test_the_table_of_shards_is_whole(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "shard.csv", "signal", "--shard")
    bars = [(row["pipeline"], row["ours"], row["bar"], row["aim"]) for row in rows]
    assert bars == [
        ("build, 500 Hz", "write_shards", "10", "20"),
        ("tar, 120 KB a sample", "append_samples", "3", "4.5"),
        ("tar, 120 KB a sample", "ShardWriter", "", ""),
        ("build, 500 Hz", "2 workers", "1.7", "1.95"),
        ("build, 100 Hz, time a record", "among 400", "0.87", "0.952"),
    ]
    for row in rows:
        # The last two builds are of different trees.
        assert (int(row["num_compared"]) > 0) == (row["ours"] != "among 400")
        assert int(row["num_rounds"]) >= 2
        assert float(row["ours_us_per_record"]) > 0


def test_the_table_of_the_loader_is_whole(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "loader.csv", "loader")
    assert [(row["rival"], row["bar"], row["aim"]) for row in rows] == [
        ("webdataset", "10", "20"),
        ("webdataset", "", ""),
        ("index + pread + numpy by hand", "", ""),
        ("webdataset in DataLoader, 2 workers", "3", ""),
    ]
    for row in rows:
        # Two workers give the batches of the other rows in another order.
        compared = 0 if "workers" in row["rival"] else loader_speed.QUICK.num_records
        assert int(row["num_compared"]) == compared
        assert float(row["ours_us_per_record"]) > 0


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("bench")
    write_tree(root / "tree", 6, seed=1)
    shard_speed.build(root / "tree", root / "ours")
    shard_speed.build_by_hand(root / "tree", root / "rival")
    return root / "ours", root / "rival"


def test_shards_that_differ_are_not_timed(folders: tuple[Path, Path], tmp_path: Path) -> None:
    ours, rival = folders
    assert shard_speed.compare(ours, rival) == 6
    other = shutil.copytree(rival, tmp_path / "other")
    tar = next(other.glob("*.tar"))
    content = bytearray(tar.read_bytes())
    content[content.index(b"NUMPY") + 1000] ^= 1  # within the first signal
    tar.write_bytes(content)
    with pytest.raises(ValueError, match=r"the samples of 4000000\d differ"):
        shard_speed.compare(ours, other)
    tar.unlink()
    with pytest.raises(ValueError, match="different records"):
        shard_speed.compare(ours, other)


def test_batches_that_differ_are_not_timed(folders: tuple[Path, Path]) -> None:
    shards = ShardSet(folders[0], "all")
    loader = loader_speed.Loader(
        shards, None, 6, options=loader_speed.LoaderOptions(shuffle="none", normalize="zscore")
    )
    signal = shards.read_ecg(range(6), normalize="zscore")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader_speed, "BATCH_SIZE", 6)
        assert loader_speed.compare(loader, [(signal,)]) == 6
        with pytest.raises(ValueError, match="0 samples, not 6"):
            loader_speed.compare(loader, [])
        wrong = signal.copy()
        wrong[4] += np.float32(1e-3)
        with pytest.raises(ValueError, match="sample 4 differs"):
            loader_speed.compare(loader, [(wrong,)])
