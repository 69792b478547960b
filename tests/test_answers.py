"""Remembered answers: whatever ends a run, what was whole stays and is read again."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from esi_fast.cqa.answers import AnswerFile

THREE = {
    "a": "A wide QRS.",
    "b": "T waves: \u00e4 \u2028 \U0001f600",
    "c": 'With "quotes"\nand lines.',
}


def filled(path: Path, answers: dict[str, str]) -> bytes:
    with AnswerFile(path) as file:
        for key, text in answers.items():
            file.add(key, text)
    return path.read_bytes() if answers else b""


def held(path: Path, keys: str = "abcd") -> dict[str, str]:
    with AnswerFile(path) as file:
        found = {key: text for key in keys if (text := file.get(key)) is not None}
        assert len(file) == len(found)
    return found


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    filled(path, THREE)
    assert held(path) == THREE
    filled(path, {"d": ""})
    assert held(path) == {**THREE, "d": ""}


@hypothesis.given(st.dictionaries(st.text(), st.text()))
def test_any_text_is_remembered(
    tmp_path_factory: pytest.TempPathFactory, answers: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("answers") / "a.jsonl"
    filled(path, answers)
    with AnswerFile(path) as file:
        assert {key: file.get(key) for key in answers} == answers
        assert len(file) == len(answers)


def test_a_torn_last_line_is_dropped_at_every_cut(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    data = filled(path, THREE)
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        whole = data[:cut].count(b"\n")
        kept = dict(list(THREE.items())[:whole])
        assert held(path) == kept
        # What is added next begins a line of its own.
        filled(path, {"d": "more"})
        assert held(path) == {**kept, "d": "more"}


@pytest.mark.parametrize(
    "line",
    [
        b"", b"{not JSON", b"[]", b"null", b"7", b'{"key": "a"}', b'{"key": 1, "text": "b"}',
        b'{"key": "a", "text": null}', b"\xff\xfe", b"\x00" * 40, b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_corrupt_line_in_the_middle_is_named_and_nothing_lost(
    tmp_path: Path, line: bytes
) -> None:
    path = tmp_path / "answers.jsonl"
    lines = filled(path, THREE).splitlines(keepends=True)
    data = b"".join([lines[0], line + b"\n", *lines[1:]])
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"answers\.jsonl, line 2: no answer; delete that line"):
        AnswerFile(path)
    assert path.read_bytes() == data
    path.write_bytes(b"".join(lines))  # as told; the lock has been let go of
    assert held(path) == THREE


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        filled(tmp_path / "answers.jsonl", THREE)
    finally:
        os.umask(before)
    assert (tmp_path / "answers.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_file_in_use_by_another_run_is_refused_until_that_ends(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    code = (
        "import sys; from esi_fast.cqa.answers import AnswerFile\n"
        "file = AnswerFile(sys.argv[1]); file.add('a', 'first'); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(ValueError, match="in use by another run; wait for its end"):
            AnswerFile(path)
        with pytest.raises(ValueError, match="in use by another run"):
            AnswerFile(path)
        other.send_signal(signal.SIGKILL)
    # Killed without closing; what it added is there.
    assert held(path) == {"a": "first"}


def test_two_in_one_process_are_refused_as_well(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerFile(path), pytest.raises(ValueError, match="in use"):
        AnswerFile(path)
    assert held(path) == {}


def test_without_an_answer_no_file_is_left(tmp_path: Path) -> None:
    path, link = tmp_path / "answers.jsonl", tmp_path / "link"
    with AnswerFile(path):
        assert path.exists()  # and holds off other runs
    assert not path.exists()
    link.symlink_to(path)
    with AnswerFile(link):
        pass
    assert link.is_symlink()
    assert not path.exists()
    filled(link, {"a": "first"})
    assert held(path) == {"a": "first"}
    assert path.exists()


def test_an_answer_is_kept_though_another_run_ended_with_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "answers.jsonl"
    first, lock = AnswerFile(path), fcntl.flock
    ending = [first]

    def end_the_first(file: int, operation: int) -> None:
        if ending:
            ending.pop().close()  # which takes the file away that was just opened
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", end_the_first)
    filled(path, {"a": "second"})
    assert held(path) == {"a": "second"}


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF])
def test_a_file_system_without_locks_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / "answers.jsonl"
    if number == errno.EBADF:
        with pytest.raises(OSError, match="Bad file descriptor"):
            AnswerFile(path)
    else:
        filled(path, THREE)
        assert held(path) == THREE


def test_only_a_regular_file_is_taken(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/null"), Path("/dev/full")):
        with pytest.raises(OSError, match=f"{path} is no regular file"):
            AnswerFile(path)
        assert path.exists()


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    size = len(filled(path, THREE))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
    try:
        with AnswerFile(path) as file:
            with pytest.raises(OSError, match=f"too large: '{path}'$"):
                file.add("d", "x" * 100)
            assert file.get("d") is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.stat().st_size == size
    assert held(path) == THREE


def test_an_interrupt_in_the_middle_of_a_line_leaves_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "answers.jsonl"
    write, calls = os.write, []

    def half(file: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write(file, data[: len(data) // 2])

    with AnswerFile(path) as file:
        file.add("a", THREE["a"])
        monkeypatch.setattr(os, "write", half)
        with pytest.raises(KeyboardInterrupt):
            file.add("b", THREE["b"])
        monkeypatch.setattr(os, "write", write)
        file.add("c", THREE["c"])
    assert held(path) == {key: THREE[key] for key in "ac"}


def test_what_cannot_be_opened_is_an_os_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "such"):
        with pytest.raises(OSError, match=str(path)):
            AnswerFile(path)
