"""The core's part in shards, against plain Python: checksums, tar headers, batches."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esi_fast import _core
from esi_fast.data.shard_index import npy_header


def crc_by_the_bit(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_crc32c_of_the_standards() -> None:
    assert _core.crc32c(b"123456789") == 0xE3069283
    assert _core.crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert _core.crc32c(b"\xff" * 32) == 0x62A8AB43
    assert _core.crc32c(bytes(range(32))) == 0x46DD794E
    assert _core.crc32c(b"") == 0


@pytest.mark.parametrize("length", [1, 7, 8, 9, 100, 12287, 12288, 12289, 24576, 30001])
def test_crc32c_at_the_edges_of_its_blocks_and_in_pieces(length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    expected = crc_by_the_bit(data)
    assert _core.crc32c(data) == expected
    for cut in {0, 1, length // 3, length - 1, length}:
        assert _core.crc32c(data[cut:], _core.crc32c(data[:cut])) == expected


# ------------------------------------------------------------------------------------------ append


class Tar:
    """A tar being written and read by the core."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w+b", buffering=0)
        self.path = path

    def append(
        self,
        ecg: np.ndarray,
        keys: list[str],
        jsons: list[bytes],
        captions: list[bytes | None],
    ) -> dict[str, np.ndarray]:
        """Append samples; gives the arguments of `read_samples` that say where they are."""
        begin = os.lseek(self.file.fileno(), 0, os.SEEK_END)
        frames = _core.append_samples(
            self.file.fileno(),
            keys=[key.encode() for key in keys],
            ecg=ecg,
            npy_header=npy_header(*ecg.shape[1:]),
            jsons=jsons,
            captions=captions,
        )
        sizes = [len(head) + ecg[0].nbytes + len(tail) for head, tail, _ in frames]
        with self.path.open("rb") as file:
            file.seek(begin)
            for number, (head, tail, crc) in enumerate(frames):
                content = file.read(sizes[number])
                assert content == head + ecg[number].tobytes() + tail
                assert _core.crc32c(content) == crc
        begins = begin + np.cumsum([0, *sizes[:-1]])
        return {
            "descriptors": np.full(len(ecg), self.file.fileno()),
            "begins": begins,
            "sizes": np.array(sizes),
            "crcs": np.array([crc for *_, crc in frames]),
            "starts": np.zeros(len(ecg), np.int64),
        }


@pytest.fixture
def tar(tmp_path: Path) -> Iterator[Tar]:
    made = Tar(tmp_path / "a.tar")
    yield made
    made.file.close()


def random_ecg(num: int, length: int, leads: int = 12) -> np.ndarray:
    return np.random.default_rng(length).integers(-32767, 32768, (num, leads, length), np.int16)


def test_members_are_those_of_tarfile(tar: Tar) -> None:
    ecg = random_ecg(3, 1001)
    keys = ["a", "k" * 92, "b-1"]
    jsons, captions = [b"{}", b"x" * 512, b"y" * 513], [None, b"z" * 511, b""]
    tar.append(ecg, keys, jsons, captions)
    tar.file.write(bytes(1024))
    expected = io.BytesIO()
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.USTAR_FORMAT) as other:
        for key, one, meta, caption in zip(keys, ecg, jsons, captions, strict=True):
            npy = io.BytesIO()
            np.save(npy, one)
            for suffix, data in (("ecg.npy", npy.getvalue()), ("json", meta), ("txt", caption)):
                if data is None:
                    continue
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(data)
                other.addfile(info, io.BytesIO(data))
    content = tar.path.read_bytes()
    assert content == expected.getvalue()[: len(content)]
    assert not any(expected.getvalue()[len(content) :])  # tarfile fills up its last record


def test_more_samples_than_a_call_of_writev_takes(tar: Tar) -> None:
    ecg = random_ecg(800, 3, leads=1)
    keys = [f"k{number}" for number in range(800)]
    places = tar.append(ecg, keys, [b"{}"] * 800, [None] * 800)
    out = np.empty((800, 1, 3), np.float32)
    assert not any(read(places, out, 3))
    np.testing.assert_array_equal(out, (ecg / 1000).astype(np.float32))


def test_what_does_not_fit_a_header_is_refused(tar: Tar) -> None:
    ecg = random_ecg(1, 5)
    with pytest.raises(ValueError, match=r"k{93}\.ecg\.npy of 248 bytes does not fit"):
        tar.append(ecg, ["k" * 93], [b"{}"], [None])
    with pytest.raises(ValueError, match="differ in length"):
        tar.append(ecg, ["a", "b"], [b"{}"], [None])
    with pytest.raises(ValueError, match=r"ecg must be \(n, leads, T\)"):
        _core.append_samples(
            tar.file.fileno(), keys=[], ecg=ecg[0], npy_header=b"", jsons=[], captions=[]
        )
    assert tar.path.stat().st_size == 0


def test_a_failing_write_is_an_os_error(tmp_path: Path) -> None:
    ecg = random_ecg(1, 5)
    arguments = {"keys": [b"a"], "ecg": ecg, "jsons": [b"{}"], "captions": [None]}
    with pytest.raises(OSError, match="Bad file descriptor"):
        _core.append_samples(-1, npy_header=npy_header(12, 5), **arguments)
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.raises(OSError, match="No space left on device"),
    ):
        _core.append_samples(full.fileno(), npy_header=npy_header(12, 5), **arguments)


# -------------------------------------------------------------------------------------------- read


def read(
    places: dict[str, np.ndarray],
    out: np.ndarray,
    num_samples: int,
    normalize: str = "mv",
    nan_policy: str = "nan",
    threads: int = 1,
    **changes: np.ndarray,
) -> list[str]:
    return _core.read_samples(
        **(places | changes),
        out=out,
        npy_header=npy_header(out.shape[1], num_samples),
        num_samples=num_samples,
        normalize=normalize,
        nan_policy=nan_policy,
        threads=threads,
    )


def expected_of(ecg: np.ndarray, normalize: str, nan_policy: str) -> np.ndarray:
    """The specification, in double precision."""
    missing = ecg == -32768
    signal = np.where(missing, np.nan, ecg / 1000.0)
    if nan_policy == "mean":
        for record, gaps in zip(signal, missing, strict=True):
            for lead, gap in zip(record, gaps, strict=True):
                lead[gap] = lead[~gap].mean() if not gap.all() else 0.0
    if normalize == "zscore":
        for record in signal:
            there = record[~np.isnan(record)]
            mean = there.mean() if len(there) else 0.0
            sd = there.std(ddof=1) if len(there) > 1 else 0.0
            record[:] = (record - mean) / (sd + 1e-6)
        if nan_policy == "mean":  # a lead without any sample has the mean 0 mV, as is
            return signal
    return np.nan_to_num(signal, nan=0.0) if nan_policy == "zero" else signal


@pytest.mark.parametrize("instruction_set", _core.instruction_sets())
@pytest.mark.parametrize("normalize", ["mv", "zscore"])
@pytest.mark.parametrize("nan_policy", ["nan", "zero", "mean"])
@pytest.mark.parametrize("length", [1, 7, 8, 16, 17, 33, 1000, 5003])
def test_batches_are_as_specified(
    tar: Tar, instruction_set: str, normalize: str, nan_policy: str, length: int
) -> None:
    ecg = random_ecg(7, length)
    ecg[1] = -32768
    ecg[2, 3] = -32768
    ecg[3, :, length // 3 : length // 2] = -32768
    ecg[4] = 32767
    ecg[5] = 1
    ecg[6] = np.random.default_rng(1).integers(-50, 50, (12, length))
    places = tar.append(ecg, [*"abcdefg"], [b"{}"] * 7, [None] * 7)
    try:
        _core.use_instruction_set(instruction_set)
        for crop in {length, max(1, length // 3), max(1, length - 5)}:
            start = length - crop
            out = np.full((7, 12, crop), 77, np.float32)
            assert not any(
                read(places, out, length, normalize, nan_policy, starts=np.full(7, start))
            )
            cut = ecg[:, :, start:]
            np.testing.assert_allclose(
                out, expected_of(cut, normalize, nan_policy), rtol=3e-6, atol=3e-6
            )
            if normalize == "mv" and nan_policy != "mean":
                nearest = expected_of(cut, normalize, nan_policy).astype(np.float32)
                np.testing.assert_array_equal(out, nearest)
    finally:
        _core.use_instruction_set(_core.instruction_sets()[0])


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 200),
    seed=st.integers(0, 1000),
    gaps=st.floats(0, 1),
    scale=st.sampled_from([1, 30, 32767]),
    normalize=st.sampled_from(["mv", "zscore"]),
    nan_policy=st.sampled_from(["nan", "zero", "mean"]),
    data=st.data(),
)
def test_instruction_sets_and_threads_agree_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory,
    length: int,
    seed: int,
    gaps: float,
    scale: int,
    normalize: str,
    nan_policy: str,
    data: st.DataObject,
) -> None:
    random = np.random.default_rng(seed)
    ecg = random.integers(-scale, scale + 1, (4, 12, length)).astype(np.int16)
    ecg[random.random(ecg.shape) < gaps] = -32768
    crop = data.draw(st.integers(1, length))
    starts = random.integers(0, length - crop + 1, 4)
    made = Tar(tmp_path_factory.mktemp("tar") / "a.tar")
    places = made.append(ecg, [*"abcd"], [b"{}"] * 4, [None] * 4)
    results = []
    try:
        for name in _core.instruction_sets():
            _core.use_instruction_set(name)
            for threads in (1, 3):
                # One float beyond a vector's alignment.
                memory = np.empty(4 * 12 * crop + 1, np.float32)
                out = memory[1:].reshape(4, 12, crop)
                assert not any(
                    read(places, out, length, normalize, nan_policy, threads, starts=starts)
                )
                results.append(out)
    finally:
        _core.use_instruction_set(_core.instruction_sets()[0])
        made.file.close()
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_every_damage_is_told(tar: Tar) -> None:
    ecg = random_ecg(6, 100)
    places = tar.append(ecg, [*"abcdef"], [b"{}"] * 6, [b"text"] * 6)
    out = np.empty((6, 12, 100), np.float32)
    begins = places["begins"].copy()
    sizes = places["sizes"].copy()
    descriptors = places["descriptors"].copy()
    crcs = places["crcs"].copy()
    begins[0] = tar.path.stat().st_size - 100
    sizes[1] = 2000
    descriptors[2] = -1
    crcs[3] ^= 1
    begins[4] += 1
    sizes[5] = -5
    errors = read(places, out, 100, begins=begins, sizes=sizes, descriptors=descriptors, crcs=crcs)
    assert errors == [
        "is cut off",
        "is too short for its signal",
        "cannot be read: Bad file descriptor",
        "is damaged",
        "has another signal shape or type",
        "is too short for its signal",
    ]


def test_senseless_reads_are_refused(tar: Tar) -> None:
    places = tar.append(random_ecg(2, 100), ["a", "b"], [b"{}"] * 2, [None] * 2)
    out = np.empty((2, 12, 40), np.float32)
    for starts in (np.array([0, 61]), np.array([-1, 0])):
        with pytest.raises(ValueError, match="a crop lies outside"):
            read(places, out, 100, starts=starts)
    with pytest.raises(ValueError, match="a crop lies outside"):
        read(places, out, 39)
    for wrong in (np.zeros((2, 12, 40)), out[:, :, ::2], out[0]):
        with pytest.raises(ValueError, match="out must be a C-contiguous"):
            read(places, wrong, 100)
    with pytest.raises(ValueError, match="a place for each row"):
        read(places, out, 100, begins=places["begins"][:1])
    with pytest.raises(ValueError, match="normalize is 'l2'"):
        read(places, out, 100, normalize="l2")
    with pytest.raises(ValueError, match="nan_policy is 'drop'"):
        read(places, out, 100, nan_policy="drop")
