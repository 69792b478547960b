"""The index of ECGs: planted neighbours, filters, damage, builds that are killed, other models."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted_search import PlantedESI, planted_model, unit_of
from shard_tree import SETTINGS, Tree, build, make_tree, signal_of

from esi_fast.data.shard_set import ShardSet
from esi_fast.search import EcgIndex, RecordFilter, embed, parts, storage
from esi_fast.search.identity import identity_of
from esi_fast.search.records import FILES
from esi_fast.signal.records import read_record

NUM_RECORDS = 60


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return make_tree(tmp_path_factory.mktemp("tree"), NUM_RECORDS)


@pytest.fixture(scope="module")
def shards(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("search") / "shards"
    build(tree, out, **SETTINGS)
    return out


@pytest.fixture(scope="module")
def model() -> PlantedESI:
    return planted_model()


@pytest.fixture(scope="module")
def built(model: PlantedESI, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("index") / "index"
    EcgIndex.build(model, shards, out, search="hnsw", threads=1)
    return out


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built, tmp_path / "index")


def nearest_numbers(vector: np.ndarray, allowed: Sequence[int], k: int) -> list[str]:
    """Keys of the k nearest records, by brute force over what was planted."""
    scores = {number: float(unit_of(number) @ vector) for number in allowed}
    best = sorted(scores, key=lambda number: -scores[number])[:k]
    return [f"k{number:03d}" for number in best]


def answers(index: EcgIndex) -> list[Any]:
    return [index.query_text(f"lead {lead}", k=9) for lead in range(12)]


@pytest.mark.parametrize("search", ["exact", "hnsw"])
def test_what_was_planted_is_found(
    search: Any, built: Path, model: PlantedESI, tree: Tree, shards: Path
) -> None:
    index = EcgIndex.load(built, model=model, search=search)
    assert len(index) == NUM_RECORDS
    everyone = range(NUM_RECORDS)
    for lead in range(12):
        hits = index.query_text(f"lead {lead}", k=7)
        assert [hit.key for hit in hits] == nearest_numbers(np.eye(12)[lead], everyone, 7)
        assert [hit.rank for hit in hits] == list(range(7))
        wanted = [unit_of(int(hit.key[1:]))[lead] for hit in hits]
        np.testing.assert_allclose([hit.score for hit in hits], wanted, atol=1e-5)
    # A recording finds itself; by its key, all but itself.
    found = index.query_ecg(read_record(tree.entries[17].path), k=3)
    assert [hit.key for hit in found] == nearest_numbers(unit_of(17), everyone, 3)
    assert found[0].key == "k017"
    assert found[0].score == pytest.approx(1, abs=1e-5)
    others = [number for number in everyone if number != 17]
    found = index.query_key("k017", k=4)
    assert [hit.key for hit in found] == nearest_numbers(unit_of(17), others, 4)
    assert len(index.query_text("lead 1", k=1000)) == NUM_RECORDS
    signal = next(index.recordings(found[:1])).signal
    number = int(found[0].key[1:])
    np.testing.assert_allclose(signal, signal_of(number) / 200, atol=1e-6)


@pytest.mark.parametrize("search", ["exact", "hnsw"])
def test_half_precision_moves_scores_little(
    search: Any, built: Path, model: PlantedESI, shards: Path, tmp_path: Path
) -> None:
    half = EcgIndex.build(model, shards, tmp_path / "half", search=search, dtype="float16")
    sizes = [(folder / "vectors.npy").stat().st_size - 128 for folder in (half.folder, built)]
    assert sizes == [NUM_RECORDS * 24, NUM_RECORDS * 48]
    for one, other in zip(answers(half), answers(EcgIndex.load(built, model=model)), strict=True):
        scores = [[hit.score for hit in hits] for hits in (one, other)]
        np.testing.assert_allclose(*scores, atol=1e-3)
        assert scores[0] != scores[1]


def test_hits_say_what_the_shards_say(built: Path, model: PlantedESI, shards: Path) -> None:
    everything = ShardSet(shards, "all")
    meta = {key: everything.read_meta(row) for row, key in enumerate(everything.keys)}
    splits = {
        key: split for split in ("train", "val", "test") for key in ShardSet(shards, split).keys
    }
    hits = EcgIndex.load(built, model=model).query_text("lead 0", k=NUM_RECORDS)
    assert {hit.key for hit in hits} == meta.keys()
    for hit in hits:
        said = meta[hit.key]
        assert (hit.subject_id, hit.age, hit.sex) == (said["subject_id"], said["age"], said["sex"])
        assert [*hit.statements] == said["statements"]
        assert [*hit.findings] == said["findings"]
        assert hit.split == splits[hit.key]
        assert hit.caption is None, "these shards have none"


FILTERS: list[tuple[RecordFilter, Callable[[Any], bool]]] = [
    (RecordFilter(age=(50, 60)), lambda hit: 50 <= hit.age <= 60),
    (RecordFilter(age=(None, 41)), lambda hit: hit.age <= 41),
    (RecordFilter(age=(90.5, None)), lambda hit: hit.age >= 90.5),
    (RecordFilter(sex="female"), lambda hit: hit.sex == "female"),
    (RecordFilter(split="test"), lambda hit: hit.split == "test"),
    (RecordFilter(statements=("Atrial fibrillation",)),
     lambda hit: "atrial_fibrillation" in hit.findings),
    (RecordFilter(statements=("atrial_fibrillation", "left AXIS")),
     lambda hit: "Left axis deviation" in hit.statements),
    (RecordFilter(statements=("bundle branch",), sex="male", age=(40, 99)),
     lambda hit: "Left bundle branch block" in hit.statements and hit.sex == "male"),
    (RecordFilter(), lambda hit: True),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(FILTERS)))
def test_filters_find_what_brute_force_finds(number: int, built: Path, model: PlantedESI) -> None:
    index = EcgIndex.load(built, model=model)
    wanted, passes = FILTERS[number]
    everyone = index.query_text("lead 0", k=NUM_RECORDS)
    allowed = [int(hit.key[1:]) for hit in everyone if passes(hit)]
    if number < len(FILTERS) - 2:
        assert 0 < len(allowed) < NUM_RECORDS
    for lead in range(12):
        for k in (1, 5, 100):
            found = index.query_text(f"lead {lead}", k, wanted)
            expected = nearest_numbers(np.eye(12)[lead], allowed, k)
            assert [hit.key for hit in found] == expected


def test_a_denial_is_no_finding(model: PlantedESI, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", 12)
    for number, entry in enumerate(tree.entries):
        said = ("Atrial fibrillation", "No atrial fibrillation", "Sinus rhythm")[number % 3]
        entry.statements = (said,)
        entry.age = None
    build(tree, tmp_path / "shards", **SETTINGS)
    index = EcgIndex.build(model, tmp_path / "shards", tmp_path / "index")
    found = index.query_text("lead 0", 99, RecordFilter(statements=("atrial fibrillation",)))
    assert {hit.statements for hit in found} == {("Atrial fibrillation",)}
    found = index.query_text("lead 0", 99, RecordFilter(statements=("no atrial",)))
    assert {hit.statements for hit in found} == {("No atrial fibrillation",)}
    assert index.query_text("lead 0", 9, RecordFilter(age=(0, 200))) == [], "no age is known"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"age": (60, 40)}, "age is"),
        ({"age": (-1, None)}, "age is"),
        ({"sex": "f"}, "give male or female"),
        ({"split": "dev"}, "give train, val, test"),
        ({"statements": "atrial"}, "give a tuple"),
        ({"statements": (" ",)}, "give a tuple"),
    ],
)
def test_filters_that_no_record_passes_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecordFilter(**arguments)


def test_queries_that_make_no_sense_are_refused(built: Path, model: PlantedESI) -> None:
    index = EcgIndex.load(built, model=model)
    for call, message in (
        (lambda: index.query_text(" "), "give words"),
        (lambda: index.query_text("lead 0", k=0), "k is 0"),
        (lambda: index.query_key("k017", k=0), "k is 0"),
        (lambda: index.query_key("k999"), "no record 'k999'"),
        (lambda: index.query_vector(np.ones(13)), "give"),
        (lambda: index.query_vector(np.full(12, np.nan)), "is not finite"),
        (lambda: index.query_ecg(np.full((12, 1000), np.nan), fs=500), "every sample"),
        (lambda: index.query_text("lead 0", 3, RecordFilter(statements=("unicorn",))), "unicorn"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("name", [storage.META, storage.VECTORS, storage.GRAPH, *FILES])
def test_damage_is_refused_or_mended(
    name: str, copied: Path, model: PlantedESI, shards: Path
) -> None:
    wanted = answers(EcgIndex.load(copied, model=model))
    path, random = copied / name, np.random.default_rng()
    whole = path.read_bytes()
    damaged = [b"", whole[: len(whole) // 2], whole + b"x"]
    for _ in range(12):
        flipped = bytearray(whole)
        flipped[random.integers(len(whole))] ^= int(random.integers(1, 256))
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        if name == storage.GRAPH:
            with pytest.warns(UserWarning, match="is not what was saved: it is built again"):
                index = EcgIndex.load(copied, model=model)
            assert answers(index) == wanted
        else:
            with pytest.raises(ValueError, match=f"{name} (is damaged|is )"):
                EcgIndex.load(copied, model=model)
    path.unlink()
    if name != storage.GRAPH:
        with pytest.raises((ValueError, FileNotFoundError)):
            EcgIndex.load(copied, model=model)
        return
    # A finished build is mended for good.
    with pytest.warns(UserWarning, match="mends it"):
        mended = EcgIndex.build(model, shards, copied, search="hnsw", threads=1, resume=True)
    assert answers(mended) == wanted
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert answers(EcgIndex.load(copied, model=model)) == wanted
    assert path.read_bytes() == whole


def test_a_graph_of_other_settings_is_built_again(
    copied: Path, model: PlantedESI, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = answers(EcgIndex.load(copied, model=model))
    monkeypatch.setattr(storage, "_BUILT_WITH", {"m": 8})
    with pytest.warns(UserWarning, match="built again"):
        assert answers(EcgIndex.load(copied, model=model)) == wanted


@pytest.mark.parametrize("when", ["embed", "part", "graph", "seal", "rename"])
def test_a_build_that_is_killed_goes_on(
    when: str, model: PlantedESI, shards: Path, built: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(embed, "PART_SIZE", 16)
    out = tmp_path / "index"
    batches: list[int] = []
    encode = PlantedESI.encode_ecg

    def count(self: PlantedESI, ecg_BLT: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        if when == "embed" and sum(batches) == 40:
            raise KeyboardInterrupt
        batches.append(len(ecg_BLT))
        return encode(self, ecg_BLT, normalize)

    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    arguments: dict[str, Any] = {
        "batch_size": 8,
        "search": "hnsw",
        "threads": 1,
        "dtype": "float32",
    }
    with monkeypatch.context() as patch:
        patch.setattr(PlantedESI, "encode_ecg", count)
        if when != "embed":
            owner, name = {
                "part": (parts, "sync_path"), "graph": (storage, "write_graph"),
                "seal": (storage, "seal"), "rename": (storage, "put_in_place"),
            }[when]  # fmt: skip
            patch.setattr(owner, name, fail)
        with pytest.raises(KeyboardInterrupt):
            EcgIndex.build(model, shards, out, **arguments)
    assert not out.exists()
    with pytest.raises(FileExistsError, match="unfinished job: go on with --resume"):
        EcgIndex.build(model, shards, out, **arguments)
    with pytest.raises(FileExistsError, match="was begun with model"):
        EcgIndex.build(planted_model(1), shards, out, resume=True, **arguments)
    left = {"embed": 32, "part": 0}.get(when, NUM_RECORDS)
    done = batches.copy()
    batches.clear()

    def again(self: PlantedESI, ecg_BLT: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        batches.append(len(ecg_BLT))
        return encode(self, ecg_BLT, normalize)

    monkeypatch.setattr(PlantedESI, "encode_ecg", again)
    index = EcgIndex.build(model, shards, out, resume=True, **arguments)
    assert sum(done) >= left
    assert sum(batches) == NUM_RECORDS - left, "what was finished is not made again"
    assert answers(index) == answers(EcgIndex.load(built, model=model))
    (tmp_path / ".index.parts").mkdir()  # as a build leaves it that is killed after its last step
    EcgIndex.build(model, shards, out, resume=True, **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    for name in (storage.VECTORS, storage.GRAPH, *FILES):
        assert (out / name).read_bytes() == (built / name).read_bytes()


def test_another_model_is_refused_and_both_are_named(
    copied: Path, model: PlantedESI, shards: Path, tmp_path: Path
) -> None:
    other = planted_model(1)
    with pytest.raises(ValueError, match="cannot be compared") as refused:
        EcgIndex.load(copied, model=other)
    assert str(identity_of(model)) in str(refused.value)
    assert str(identity_of(other)) in str(refused.value)
    with pytest.raises(FileNotFoundError, match="made by a model in memory"):
        EcgIndex.load(copied).query_text("lead 0")
    assert EcgIndex.load(copied).query_key("k017", 2), "which needs no model"
    with pytest.raises(FileExistsError, match="index of another model"):
        EcgIndex.build(other, shards, copied, search="hnsw", resume=True)
    with pytest.raises(FileExistsError, match="choose another --out"):
        EcgIndex.build(model, shards, copied)


def test_a_finished_index_is_not_made_another_by_resuming(
    copied: Path, model: PlantedESI, shards: Path
) -> None:
    with pytest.raises(FileExistsError, match="another search: hnsw, not exact; give that, or"):
        EcgIndex.build(model, shards, copied, resume=True, search="exact")
    assert len(EcgIndex.build(model, shards, copied, resume=True, search="hnsw")) == NUM_RECORDS


def test_a_key_that_occurs_twice_is_found_before_anything_is_embedded(
    model: PlantedESI, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PlantedESI, "encode_ecg", lambda *_, **__: pytest.fail("was called"))
    copy = shutil.copytree(shards, tmp_path / "copy")
    with pytest.raises(ValueError, match="record k000 occurs twice in the shards"):
        EcgIndex.build(model, [shards, copy], tmp_path / "twice")
    assert [*tmp_path.iterdir()] == [copy]


def test_the_models_folder_is_remembered(model: PlantedESI, shards: Path, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    EcgIndex.build(tmp_path / "model", shards, tmp_path / "index")
    index = EcgIndex.load(tmp_path / "index")
    assert index.identity.path == str(tmp_path / "model")
    wanted = [hit.key for hit in index.query_text("sinus rhythm", 5)]
    (tmp_path / "model").rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match="not there any more"):
        EcgIndex.load(tmp_path / "index").query_text("sinus rhythm")
    moved = EcgIndex.load(tmp_path / "index", model=tmp_path / "moved")
    assert [hit.key for hit in moved.query_text("sinus rhythm", 5)] == wanted
    other = planted_model(1)
    other.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="cannot be compared"):
        EcgIndex.load(tmp_path / "index").query_text("sinus rhythm")


def test_what_cannot_be_embedded_is_left_out_and_named(
    model: PlantedESI, tree: Tree, shards: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(shards, tmp_path / "shards")
    one = ShardSet(folder, "train")
    key, tar = one.key(3), folder / "train-000000.tar"
    content = bytearray(tar.read_bytes())
    at = content.index(f"{key}.ecg.npy".encode()) + 512 + 200
    content[at] ^= 1
    tar.write_bytes(content)
    index = EcgIndex.build(model, folder, tmp_path / "index")
    assert [rejected[0] for rejected in index.rejected] == [key]
    assert "is damaged" in index.rejected[0][1]
    assert len(index) == NUM_RECORDS - 1
    with pytest.raises(ValueError, match="no record"):
        index.query_key(key)


def test_equal_ecgs_and_several_folders(model: PlantedESI, shards: Path, tmp_path: Path) -> None:
    twin = make_tree(tmp_path / "tree", 8)
    for entry in twin.entries:
        entry.key = f"twin{entry.key}"
    build(twin, tmp_path / "twins", **SETTINGS)
    folders = [shards, tmp_path / "twins"]
    index = EcgIndex.build(model, folders, tmp_path / "index", search="hnsw")
    assert len(index) == NUM_RECORDS + 8
    first, second = index.query_key("k003", 2)
    assert (first.key, round(first.score, 3)) == ("twink003", 1.0)
    assert second.score < 0.99
    with pytest.raises(ValueError, match="each once"):
        EcgIndex.build(model, [shards, shards], tmp_path / "twice")


def test_no_index_and_older_formats(copied: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "absent", tmp_path):
        with pytest.raises(FileNotFoundError, match="holds no index of ECGs"):
            EcgIndex.load(folder)
    meta = json.loads((copied / "index.json").read_text())
    (copied / "index.json").write_text(json.dumps(meta | {"version": 0}))
    with pytest.raises(ValueError, match="build the index again"):
        EcgIndex.load(copied)
