"""Embeddings of folders: every source and format, killed jobs, records that cannot be embedded."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wfdb
from planted_search import PlantedESI, planted_model, unit_of
from shard_tree import NUM_SAMPLES, SETTINGS, Tree, build, make_tree

from esi_fast.data.shard_set import ShardSet
from esi_fast.leads import STANDARD_LEADS
from esi_fast.search import embed
from esi_fast.search.embed import embed_source, job_settings
from esi_fast.search.embedding_file import beside, write_embeddings
from esi_fast.search.parts import JOURNAL, Parts
from esi_fast.search.sources import RecordSource, ShardSource, Source, open_source
from esi_fast.signal.inputs import read_ecg
from esi_fast.signal.record_batch import read_records

NUM_RECORDS = 22


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return make_tree(tmp_path_factory.mktemp("tree"), NUM_RECORDS)


@pytest.fixture(scope="module")
def shards(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("embed") / "shards"
    build(tree, out, **SETTINGS)
    return out


@pytest.fixture(scope="module")
def model() -> PlantedESI:
    return planted_model()


def run_job(
    model: PlantedESI, source: Source, folder: Path, *, resume: bool = False, **options: Any
) -> Parts:
    with Parts(folder, job_settings(source, "model", "float32"), resume=resume) as parts:
        embed_source(model, source, parts, **options)
    return parts


def embedded(parts: Parts) -> dict[str, np.ndarray]:
    lines = [line for part in parts.lines() for line in part]
    arrays = np.concatenate([*parts.arrays()])
    assert len(lines) == len(arrays) == parts.num_kept
    return {line["key"]: array for line, array in zip(lines, arrays, strict=True)}


def number_of(key: str) -> int:
    return int("".join(filter(str.isdigit, key.split("--")[-1])))


@pytest.mark.parametrize("kind", ["records", "shards"])
def test_every_record_has_its_own_embedding(
    kind: str, model: PlantedESI, tree: Tree, shards: Path, tmp_path: Path
) -> None:
    source = open_source(tree.root if kind == "records" else shards, 500.0, NUM_SAMPLES)
    assert isinstance(source, RecordSource if kind == "records" else ShardSource)
    seen: list[tuple[int, int]] = []
    parts = run_job(
        model, source, tmp_path / "parts", batch_size=4, progress=lambda *at: seen.append(at)
    )
    found = embedded(parts)
    assert sorted(map(number_of, found)) == list(range(NUM_RECORDS))
    for key, vector in found.items():
        np.testing.assert_allclose(vector, unit_of(number_of(key)), atol=1e-5)
    assert seen[0] == (0, NUM_RECORDS)
    assert seen[-1] == (NUM_RECORDS, NUM_RECORDS)
    if kind == "shards":
        lines = [line for part in parts.lines() for line in part]
        splits = {
            key: split for split in ("train", "val", "test") for key in ShardSet(shards, split).keys
        }
        assert {line["key"]: line["split"] for line in lines} == splits
        assert {line["subject_id"] for line in lines} == {f"p{n}" for n in range(NUM_RECORDS // 2)}


def test_records_and_shards_with_some_leads_are_read_as_a_query_is(
    tree: Tree, tmp_path: Path
) -> None:
    records, fs = tmp_path / "records", 500.0
    records.mkdir()
    whole = read_records([tree.entries[0].path, tree.entries[1].path], fs=fs).signal
    for name, leads in (("limb", ("I", "II", "V5")), ("chest", ("V1", "V2"))):
        rows = [STANDARD_LEADS.index(lead) for lead in leads]
        wfdb.wrsamp(
            name, fs=fs, units=["mV"] * len(leads), sig_name=list(leads),
            p_signal=whole[0, rows].T.astype(np.float64), fmt=["16"] * len(leads),
            adc_gain=[1000.0] * len(leads), baseline=[0] * len(leads), write_dir=str(records),
        )  # fmt: skip
    source = open_source(records, fs, NUM_SAMPLES)
    signals, errors = source.read([*source])
    assert errors == ["", ""]
    by_name = {row.key: signal for row, signal in zip(source, signals, strict=True)}
    for name, signal in by_name.items():
        wanted = read_ecg(records / name).signal
        np.testing.assert_array_equal(signal[:, : wanted.shape[1]], wanted)
    assert np.isfinite(by_name["limb"][2]).all()  # III, computed
    assert np.isnan(by_name["chest"][:6]).all()
    build(tree, tmp_path / "shards", **SETTINGS | {"leads": ("I", "II", "V5")})
    stored = open_source(tmp_path / "shards", fs, NUM_SAMPLES)
    rows = [*stored][:4]
    for signal in stored.read(rows)[0]:
        two = signal[[0, 1, 10]]
        wanted = read_ecg(two, fs=fs, leads=["I", "II", "V5"], unit="mV").signal
        np.testing.assert_allclose(signal, wanted, atol=1e-6)


def test_single_files_of_any_format_are_embedded_by_their_names(
    model: PlantedESI, tmp_path: Path
) -> None:
    folder, rng = tmp_path / "files", np.random.default_rng(0)
    (folder / "more").mkdir(parents=True)
    signals = rng.normal(size=(2, 12, NUM_SAMPLES)).astype(np.float32)
    for name, signal in zip(("a", "more/b"), signals, strict=True):
        np.savez(folder / f"{name}.npz", signal=signal, fs=500.0)
    np.save(folder / "no_rate.npy", signals[0])
    source = open_source(folder, 500.0, NUM_SAMPLES)
    parts = run_job(model, source, tmp_path / "parts")
    found = embedded(parts)
    assert set(found) == {"a.npz", "more/b.npz"}
    for name, signal in zip(("a.npz", "more/b.npz"), signals, strict=True):
        unit = signal[:, 0] / np.linalg.norm(signal[:, 0])
        np.testing.assert_allclose(found[name], unit, atol=1e-6)
    ((key, reason),) = parts.rejected
    assert key == "no_rate.npy"
    assert "does not say its rate" in reason


def test_rates_lengths_and_leads_are_brought_to_the_models(tree: Tree, tmp_path: Path) -> None:
    build(tree, tmp_path / "limb", **SETTINGS | {"leads": ("I", "II", "V5")})
    for root in (tree.root, tmp_path / "limb"):
        for num_samples in (200, 700):  # cut, and ended by missing samples
            source = open_source(root, 250.0, num_samples)
            signals, errors = source.read([*source][:3])
            assert errors == ["", "", ""]
            assert signals.shape == (3, 12, num_samples)
            assert signals.dtype == np.float32
            # Of shards with two limb leads the other four are computed, as of a query like them.
            recorded = [*range(6), 10] if root != tree.root else range(12)
            for lead in range(12):
                missing = np.isnan(signals[:, lead]).all(axis=0)
                assert missing.tolist() == [
                    lead not in recorded or at >= NUM_SAMPLES // 2 for at in range(num_samples)
                ]


@pytest.fixture
def blind_to_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model makes NaN of a signal that is 1 throughout."""
    encode = PlantedESI.encode_ecg

    def broken(self: PlantedESI, ecg_BLT: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        embedding_BD = encode(self, ecg_BLT, normalize)
        embedding_BD[(ecg_BLT == 1).flatten(1).all(dim=1)] = torch.nan
        return embedding_BD

    monkeypatch.setattr(PlantedESI, "encode_ecg", broken)


class Lame:
    """A source whose records fail in each way there is."""

    identity: dict[str, Any] = {"records": "lame"}  # noqa: RUF012

    def __init__(self, source: Source, num_rows: int = NUM_RECORDS) -> None:
        self._rows = [*source][:num_rows]
        self._source = source

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Any:
        return iter(self._rows)

    def read(self, rows: Sequence[Any]) -> tuple[np.ndarray, list[str]]:
        if not rows:
            return np.empty((0, 12, NUM_SAMPLES), np.float32), []
        signals, errors = self._source.read(rows)
        for at, row in enumerate(rows):
            number = number_of(row.key)
            if number == 2:
                signals[at], errors[at] = np.nan, "is cut off"
            elif number in (3, 4, 5):
                signals[at] = {3: np.nan, 4: 0.0, 5: 1.0}[number]
        return signals, errors

    def line(self, row: Any) -> dict[str, Any]:
        if number_of(row.key) == 6:
            raise ValueError("its texts are damaged")
        return self._source.line(row)


@pytest.mark.usefixtures("blind_to_ones")
def test_what_cannot_be_embedded_is_rejected_with_the_reason(
    model: PlantedESI, tree: Tree, tmp_path: Path
) -> None:
    source = Lame(RecordSource(tree.root, 500.0, NUM_SAMPLES))
    parts = run_job(model, source, tmp_path / "parts", batch_size=5)
    assert {number_of(key): reason for key, reason in parts.rejected} == {
        2: "is cut off",
        3: "every sample is missing",
        4: "the model's embedding has no direction",
        5: "the model's embedding is not finite",
        6: "its texts are damaged",
    }
    found = embedded(parts)
    assert len(found) == NUM_RECORDS - 5
    for key, vector in found.items():
        np.testing.assert_allclose(vector, unit_of(number_of(key)), atol=1e-5)


def test_nothing_embedded_is_an_error(model: PlantedESI, tree: Tree, tmp_path: Path) -> None:
    class Blind(Lame):
        def read(self, rows: Sequence[Any]) -> tuple[np.ndarray, list[str]]:
            return np.full((len(rows), 12, NUM_SAMPLES), np.nan, np.float32), ["gone"] * len(rows)

    source = Blind(RecordSource(tree.root, 500.0, NUM_SAMPLES))
    with pytest.raises(ValueError, match=r"no record has an embedding; the first, .*: gone"):
        run_job(model, source, tmp_path / "parts")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no recordings: neither shards, nor a database"):
        open_source(tmp_path / "empty", 500.0, NUM_SAMPLES)
    for options, message in (({"batch_size": 0}, "batch_size is 0"), ({"dtype": "int8"}, "int8")):
        with pytest.raises(ValueError, match=message):
            run_job(model, source, tmp_path / "other", resume=True, **options)


@pytest.fixture
def killed(
    model: PlantedESI, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[RecordSource, Path, list[int]]:
    """A job of 4 records a part that was killed in its fourth, and what was embedded since."""
    monkeypatch.setattr(embed, "PART_SIZE", 4)
    source, folder = RecordSource(tree.root, 500.0, NUM_SAMPLES), tmp_path / "parts"
    batches: list[int] = []
    encode = PlantedESI.encode_ecg

    def count(self: PlantedESI, ecg_BLT: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        if sum(batches) == 14 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        batches.append(len(ecg_BLT))
        return encode(self, ecg_BLT, normalize)

    monkeypatch.setattr(PlantedESI, "encode_ecg", count)
    with pytest.raises(KeyboardInterrupt):
        run_job(model, source, folder, batch_size=2)
    (tmp_path / "again").touch()
    batches.clear()
    return source, folder, batches


@pytest.mark.parametrize("damage", ["none", "journal cut", "flipped", "absent", "stray"])
def test_a_killed_job_goes_on(
    damage: str, killed: tuple[RecordSource, Path, list[int]], model: PlantedESI, tmp_path: Path
) -> None:
    source, folder, batches = killed
    journal, second = folder / JOURNAL, folder / "part-000001.npy"
    num_left = NUM_RECORDS - 12
    if damage == "journal cut":
        journal.write_bytes(journal.read_bytes()[:-7])
        num_left += 4
    elif damage == "flipped":
        content = bytearray(second.read_bytes())
        content[-3] ^= 4
        second.write_bytes(content)
        num_left += 8
    elif damage == "absent":
        second.unlink()
        num_left += 8
    elif damage == "stray":
        (folder / "part-000003.npy").write_bytes(b"half of a part")
    parts = run_job(model, source, folder, batch_size=2, resume=True)
    assert sum(batches) == num_left
    again = run_job(model, source, tmp_path / "whole", batch_size=3)
    np.testing.assert_equal(embedded(parts), embedded(again))


def test_a_job_goes_on_only_with_what_it_was_begun_with(
    killed: tuple[RecordSource, Path, list[int]], model: PlantedESI, tree: Tree, tmp_path: Path
) -> None:
    source, folder, _ = killed
    with pytest.raises(FileExistsError, match="unfinished job: go on with --resume"):
        run_job(model, source, folder)
    with pytest.raises(FileExistsError, match="begun with model model, not other"):
        Parts(folder, job_settings(source, "other", "float32"), resume=True)
    with (
        Parts(folder, job_settings(source, "model", "float32"), resume=True),
        pytest.raises(FileExistsError, match="being written by another process"),
    ):
        run_job(model, source, folder, resume=True)
    moved = shutil.copytree(tree.root, tmp_path / "moved")
    shutil.rmtree(moved / "r001")
    changed = RecordSource(moved, 500.0, NUM_SAMPLES)
    with (
        Parts(folder, job_settings(source, "model", "float32"), resume=True) as parts,
        pytest.raises(ValueError, match="the recordings have changed"),
    ):
        embed_source(model, changed, parts)
    (folder / JOURNAL).write_text("nonsense\n")
    with pytest.raises(ValueError, match="is damaged: remove"):
        run_job(model, source, folder, resume=True)


def test_parts_end_by_time_too(
    model: PlantedESI, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = RecordSource(tree.root, 500.0, NUM_SAMPLES)
    assert len(run_job(model, source, tmp_path / "one", batch_size=5).done) == 1
    monkeypatch.setattr(embed, "PART_SECONDS", 0.0)
    assert len(run_job(model, source, tmp_path / "many", batch_size=5).done) == 5


@pytest.mark.usefixtures("blind_to_ones")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("suffix", [".parquet", ".npy"])
def test_files_hold_what_was_embedded(
    suffix: str, dtype: Any, model: PlantedESI, shards: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(embed, "PART_SIZE", 8)
    source = Lame(ShardSource([shards], 500.0, NUM_SAMPLES))
    out = tmp_path / f"embeddings{suffix}"
    with Parts(tmp_path / "parts", {}, resume=False) as parts:
        embed_source(model, source, parts, batch_size=4, dtype=dtype)
        write_embeddings(parts, out, dtype=dtype, dimension=12, about={"model": "planted"})
    with pytest.raises(FileExistsError, match="has appeared meanwhile"):
        write_embeddings(parts, out, dtype=dtype, dimension=12, about={})
    lines = [line for part in parts.lines() for line in part]
    if suffix == ".parquet":
        pq = pytest.importorskip("pyarrow.parquet")
        table = pq.read_table(out)
        names = ("key", "subject_id", "split")
        assert table.column_names == [*names, "embedding"]
        told = [dict(zip(names, row, strict=True)) for row in zip(*(table[n].to_pylist() for n in names), strict=True)]  # fmt: skip  # noqa: E501
        column = table["embedding"].combine_chunks()
        assert column.type.list_size == 12
        vectors = column.flatten().to_numpy().reshape(-1, 12)
        assert pq.read_metadata(out).num_row_groups == 3
        assert table.schema.metadata[b"model"] == b"planted"
    else:
        vectors = np.load(out)
        with beside(out, ".keys.csv").open(newline="") as file:
            told = [*csv.DictReader(file)]
    assert vectors.dtype == dtype
    assert told == lines
    wanted = [unit_of(number_of(line["key"])) for line in lines]
    np.testing.assert_allclose(vectors, wanted, atol=1e-3 if dtype == "float16" else 1e-5)
    with beside(out, ".rejected.csv").open(newline="") as file:
        rejected = [*csv.reader(file)]
    assert rejected[0] == ["key", "reason"]
    assert [tuple(row) for row in rejected[1:]] == parts.rejected
    assert len(parts.rejected) == 5


def test_a_file_that_fails_halfway_is_not_there(
    model: PlantedESI, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ShardSource([shards], 500.0, NUM_SAMPLES)
    parts = run_job(model, source, tmp_path / "parts")

    def fail(_: Parts) -> Any:
        raise OSError("no space left")

    monkeypatch.setattr(Parts, "arrays", fail)
    for suffix in (".npy", ".parquet"):
        out = tmp_path / f"x{suffix}"
        with pytest.raises(OSError, match="no space left"):
            write_embeddings(parts, out, dtype="float32", dimension=12, about={})
        assert not out.exists()
    with pytest.raises(ValueError, match=r"must end in \.parquet or \.npy"):
        write_embeddings(parts, tmp_path / "x.csv", dtype="float32", dimension=12, about={})
