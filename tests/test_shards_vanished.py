"""A source that vanishes while several workers read: what one of them knows counts for all."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from esi_fast.data import shards
from esi_fast.data.samples import SampleMaker
from esi_fast.data.settings import BuildSettings

MISSING = [("k1", "p1", "s1", "train", "missing", "rec1.hea: no such file")]


class Pool:
    """Two workers whose results are given."""

    num_workers = 2

    def __init__(self, *results: Any) -> None:
        self._results = iter(results)

    def submit(self, job: object) -> Future[Any]:
        done: Future[Any] = Future()
        result = next(self._results)
        if isinstance(result, Exception):
            done.set_exception(result)
        else:
            done.set_result(result)
        # The first one is looked at when all have begun.
        done.done = lambda: False  # type: ignore[method-assign]
        return done


def written(witness: str, rejected: list[Any], paths: tuple[Path, ...] = ()) -> Any:
    records = [SimpleNamespace(entry=SimpleNamespace(path=path)) for path in paths]
    job = SimpleNamespace(planned=SimpleNamespace(records=records))
    return SimpleNamespace(record={"witness": witness}, rejected_rows=rejected, job=job)


def commit(root: Path, committed: list[Any], *results: Any) -> None:
    """Writes shards with these results and lists those that are committed."""
    journal: Any = SimpleNamespace(shards=[], job=lambda planned: planned, commit=committed.append)
    maker = SampleMaker(root, BuildSettings(), None, None)
    pool: Any = Pool(*results)
    plan: Any = [SimpleNamespace(records=()) for _ in results]
    shards._write(journal, maker, pool, plan, lambda done: None)


@pytest.mark.parametrize(
    "other", [written("rec9.hea", []), FileNotFoundError("the recordings have vanished")]
)
def test_nothing_is_rejected_as_missing_where_another_worker_has_read(
    other: Any, tmp_path: Path
) -> None:
    committed: list[Any] = []
    with pytest.raises(FileNotFoundError, match="the recordings have vanished"):
        commit(tmp_path, committed, written("", MISSING), other)
    assert not committed


def test_what_was_never_there_is_rejected_once_something_was_read(tmp_path: Path) -> None:
    (tmp_path / "rec9.hea").touch()
    first, second = written("", MISSING), written("rec9.hea", [])
    committed: list[Any] = []
    commit(tmp_path, committed, first, second)
    assert committed == [first, second]


def test_nothing_is_rejected_where_nothing_was_ever_read(tmp_path: Path) -> None:
    committed: list[Any] = []
    with pytest.raises(FileNotFoundError, match="vanished, or were never there: none could be"):
        commit(tmp_path, committed, written("", MISSING), written("", MISSING))
    assert not committed


def test_where_a_header_is_left_the_source_is_and_the_record_lacks_its_data(tmp_path: Path) -> None:
    (tmp_path / "rec1.hea").touch()
    missing = written("", MISSING, (tmp_path / "rec1",))
    committed: list[Any] = []
    commit(tmp_path, committed, missing)
    assert committed == [missing]
