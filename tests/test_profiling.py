"""``--profile``: which steps of a run it writes, wherever the run begins and ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from esi_fast.cli import UsageError
from esi_fast.pretrain.profiling import Profile


def take(profile: Profile, steps: range) -> None:
    for step in steps:
        profile.before(step)
        torch.ones(3).cumsum(0)
        profile.after(step)
    profile.close()


@pytest.mark.parametrize(
    ("first", "last", "steps", "written"),
    [
        (2, 3, range(1, 6), "profile-2-3"),
        (2, 3, range(3, 6), "profile-3-3"),  # resumed amid them
        (2, 9, range(1, 5), "profile-2-4"),  # ended, or stopped, before the last
        (4, 9, range(1, 3), None),  # stopped before the first
    ],
)
def test_the_steps_that_a_run_takes_of_them_are_written(
    first: int, last: int, steps: range, written: str | None, tmp_path: Path
) -> None:
    done = steps.start - 1
    take(Profile(tmp_path, first, last, done=done, total_steps=5, active=True), steps)
    stems = {path.stem for path in tmp_path.iterdir()}
    assert stems == ({written} if written else set())
    if written:
        assert json.loads((tmp_path / f"{written}.json").read_text())["traceEvents"]
        assert "cumsum" in (tmp_path / f"{written}.txt").read_text()


def test_other_ranks_and_other_runs_write_nothing(tmp_path: Path) -> None:
    take(Profile(tmp_path, 1, 2, done=0, total_steps=5, active=False), range(1, 6))
    take(Profile(tmp_path, 0, 0, done=0, total_steps=5, active=True), range(1, 6))
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(("first", "last", "done"), [(6, 7, 0), (2, 3, 3)])
def test_steps_that_the_run_does_not_take_are_refused_on_every_rank(
    first: int, last: int, done: int, tmp_path: Path
) -> None:
    message = f"--profile {first}:{last} is none of the steps to come: {done} of 5 are done"
    with pytest.raises(UsageError, match=message):
        Profile(tmp_path, first, last, done=done, total_steps=5, active=False)
