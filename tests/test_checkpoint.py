"""What a checkpoint promises: it is whole on disk before it takes the place of another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from esi_fast.training.checkpoint import load_weights, resolve, save


class Engine:
    """Writes what DeepSpeed would, some of it in a folder of its own."""

    def save_checkpoint(self, folder: str, *, tag: str, **_: Any) -> None:
        (Path(folder) / tag / "zero").mkdir(parents=True)
        for name in ("model.pt", "zero/optimizer.pt"):
            (Path(folder) / tag / name).write_bytes(b"0" * 100)


def save_step(run: Path, step: int) -> None:
    save(Engine(), run, step, {"step": step}, records=8, keep=1)


def test_it_is_on_disk_before_it_is_named_and_older_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_step(tmp_path, 1)
    folder = tmp_path / "checkpoints"
    done: list[tuple[str, str]] = []

    def name(path: str | Path) -> str:
        return Path(path).relative_to(tmp_path).as_posix()

    sync, rename, remove = os.fsync, Path.rename, shutil.rmtree

    def fsync(descriptor: int) -> None:
        done.append(("sync", name(Path(f"/proc/self/fd/{descriptor}").readlink())))
        sync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        done.append(("rename", name(target)))
        return rename(path, target)

    def removed(path: Path, **options: Any) -> None:
        done.append(("remove", name(path)))
        remove(path, **options)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(shutil, "rmtree", removed)
    save_step(tmp_path, 2)

    partial = "checkpoints/.step-00000002.partial"
    assert done[0] == ("remove", partial)
    named = done.index(("rename", "checkpoints/step-00000002"))
    written = ("", "/made_by.json", "/model.pt", "/zero", "/zero/optimizer.pt")
    assert sorted(done[1:named]) == [("sync", partial + path) for path in written]
    assert done[named + 1 :] == [
        ("sync", "checkpoints"),
        ("sync", "checkpoints/.latest"),
        ("rename", "checkpoints/latest"),
        ("sync", "checkpoints"),
        ("remove", "checkpoints/step-00000001"),
    ]
    assert [path.name for path in folder.glob("step-*")] == ["step-00000002"]


def test_a_disk_that_takes_no_more_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_step(tmp_path, 1)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"step-00000002 could not be written .*No space left"):
            save_step(tmp_path, 2)
    assert resolve(tmp_path, "latest") == "step-00000001"
    save_step(tmp_path, 2)
    assert resolve(tmp_path, "latest") == "step-00000002"


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("reader", ["ours", "deepspeed"])
def test_weights_of_a_strangers_run_run_no_code(
    reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    folder = tmp_path / "checkpoints" / "step-00000001"
    folder.mkdir(parents=True)
    content = {"module": {}, "more": Payload(tmp_path / "ran")}
    torch.save(content, folder / "mp_rank_00_model_states.pt")
    if reader == "deepspeed":
        torch.save(content, folder / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    with pytest.raises(ValueError, match=r"holds \w+\.mkdir, which is no part of a training"):
        load_weights(tmp_path, "step-00000001")
    assert not (tmp_path / "ran").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
