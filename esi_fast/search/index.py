"""The index of a shard set's ECGs: found by a text, by an ECG, or by a record's key.

At 800,000 records of 512 dimensions (``benchmarks/search.csv``, embeddings drawn with a trained
model's spread) a query takes a millisecond of one core and finds all of the ten nearest of an ECG,
99.6 % of those of a text: a text lies apart from the ECGs, and its nearest are many and nearly
equally near. A process holds 0.4 GB; the vectors (1.6 GB) are mapped from disk, and the system may
drop them. With ``search="exact"`` there is no graph and nothing is missed; a query reads all
vectors, in about a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from esi_fast.data.shard_set import ShardSet
from esi_fast.retriever.vectors import Search, VectorIndex
from esi_fast.search import storage
from esi_fast.search.embed import Dtype
from esi_fast.search.identity import ModelIdentity, identity_of, load_model
from esi_fast.search.records import RecordFilter, RecordTable
from esi_fast.search.storage import StageProgress

if TYPE_CHECKING:
    from esi_fast.models.esi import ESI
    from esi_fast.signal.inputs import ECGSource


@dataclass(frozen=True, slots=True)
class EcgHit:
    """A record found.

    Attributes:
        rank: 0 is the best.
        key: the record.
        score: cosine similarity of the embeddings, -1 to 1.
        caption: the shards' caption; None where they have none.
        subject_id: the patient.
        split: train, val or test.
        age: years, or None.
        sex: ``"male"``, ``"female"`` or None.
        statements: the machine's report lines.
        findings: concepts that they state.
    """

    rank: int
    key: str
    score: float
    caption: str | None
    subject_id: str
    split: str
    age: float | None
    sex: str | None
    statements: tuple[str, ...]
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recording:
    """The signal of a hit; ``esi_fast.plot_ecg`` draws it.

    Attributes:
        signal: (leads, T) float32, mV, NaN where missing.
        fs: Hz.
        leads: names of the signal's rows.
    """

    signal: NDArray[np.float32]
    fs: float
    leads: tuple[str, ...]


class EcgIndex:
    """Nearest ECGs by the cosine of embeddings; made by `build` or `load`.

    Up to 20,000 records are searched exactly, more through an hnswlib graph; so are the records
    that a filter lets through where they are less than 15 % of all.

    Attributes:
        folder: where it lies.
        identity: the model that made its embeddings.
        shards: folders of the shards that were indexed.
        rejected: key and reason of records that are not in it.
    """

    def __init__(
        self, folder: Path, meta: dict[str, Any], vectors: VectorIndex, device: str | None = None
    ) -> None:
        self.folder = folder
        self.identity = ModelIdentity(**meta["model"])
        self.shards = tuple(map(Path, meta["shards"]))
        self.rejected = tuple((key, reason) for key, reason in meta["rejected"])
        self._vectors = vectors
        self._records = RecordTable(folder)
        self._device = device
        self._model: ESI | None = None
        if len(self._records) != len(vectors):
            raise ValueError(f"{folder} holds {len(vectors)} vectors, not {len(self._records)}")

    def __len__(self) -> int:
        """Records that can be found."""
        return len(self._vectors)

    @classmethod
    def build(
        cls,
        model: ESI | str | Path,
        shards: Sequence[str | Path] | str | Path,
        out: str | Path,
        *,
        dtype: Dtype = "float32",
        search: Search = "auto",
        batch_size: int = 64,
        threads: int = 0,
        resume: bool = False,
        device: str | None = None,
        progress: StageProgress = lambda stage, done, total: None,
    ) -> EcgIndex:
        """Embed every record of shard folders, and make their index.

        Args:
            model: the model, its folder or its hub id; a path is remembered for `query_text`.
            shards: one folder or several.
            out: folder to make.
            dtype: of the vectors on disk; float16 halves them, and moves cosines by up to 1e-3:
                of a dense set's ten nearest one in fifty is then another.
            search: ``"exact"``; ``"hnsw"``, at any size; ``"auto"``: exact up to 20,000.
            batch_size: records a forward pass.
            threads: for building the graph, 0: all cores; with 1 it always comes out the same.
            resume: go on with a build that was killed; mend the graph of a finished one.
            device: torch device of a model given by its path.
            progress: called with "embed" or "graph", what is done of it and in all.

        Raises:
            FileExistsError: ``out`` exists, or ``resume`` and it is of another model, shards, dtype
                or search.
            FileNotFoundError: model or shards are missing.
            ValueError: an argument is out of range, a key occurs twice, or no record can be
                embedded.
        """
        from esi_fast.search.build import build_folder

        paths = [shards] if isinstance(shards, str | Path) else list(shards)
        identity, loaded = _identified(model, device)
        build_folder(
            loaded,
            identity,
            [Path(path).resolve() for path in paths],
            Path(out),
            dtype=dtype,
            search=search,
            batch_size=batch_size,
            threads=threads,
            resume=resume,
            progress=progress,
        )
        made = cls.load(out)
        made._model = loaded
        return made

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        model: ESI | str | Path | None = None,
        search: Search | None = None,
        device: str | None = None,
    ) -> EcgIndex:
        """Read and verify an index.

        Args:
            folder: what `build` made.
            model: the model that made it, or its path; None: it is loaded from where it was when
                it is first needed.
            search: as `build`, in place of what was asked for then; ``"exact"`` loads no graph.
            device: torch device of a model that is loaded.

        Raises:
            FileNotFoundError: the folder holds no index.
            ValueError: a file but the graph is damaged, or the model is another one than the
                index's; both are named.
        """
        folder = Path(folder)
        meta = storage.read_meta(folder)
        storage.check_files(folder, meta)
        vectors = storage.map_vectors(folder)
        index = storage.vector_index(vectors, search or meta["search"])
        if index.uses_graph:
            storage.adopt_saved_graph(index, folder, meta)
        loaded = cls(folder, meta, index, device)
        if model is not None:
            loaded._take(model)
        return loaded

    @property
    def model(self) -> ESI:
        """The index's model, loaded when first asked for.

        Raises:
            FileNotFoundError: it is not where it was.
            ValueError: what is there is another one.
        """
        if self._model is None:
            path = self.identity.path
            if path is None:
                raise FileNotFoundError(
                    f"{self.folder} was made by a model in memory: give it as model= or --model"
                )
            if Path(path).is_absolute() and not Path(path).is_dir():
                raise FileNotFoundError(
                    f"the model {self.identity} of {self.folder} is not there any more: give its "
                    "folder as model= or --model"
                )
            self._take(path)
        assert self._model is not None
        return self._model

    def query_text(
        self, text: str, k: int = 10, filter: RecordFilter | None = None
    ) -> list[EcgHit]:
        """The ECGs nearest to a text; errors as `query_vector`, and the text is blank."""
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"text is {text!r}; give words to search for")
        return self.query_vector(self.model.encode_text([text])[0].float().cpu().numpy(), k, filter)

    def query_ecg(
        self,
        ecg: ECGSource,
        k: int = 10,
        filter: RecordFilter | None = None,
        *,
        fs: float | None = None,
        leads: Sequence[str] | None = None,
        unit: str | None = None,
    ) -> list[EcgHit]:
        """The ECGs nearest to another; ``ecg`` and what describes it as ``ESI.preprocess``."""
        signal_LT = self.model.preprocess(ecg, fs, leads, unit)
        if bool(signal_LT.isnan().all()):
            raise ValueError("every sample of the ECG is missing")
        return self.query_vector(self.model.encode_ecg(signal_LT[None])[0].cpu().numpy(), k, filter)

    def query_key(self, key: str, k: int = 10, filter: RecordFilter | None = None) -> list[EcgHit]:
        """The ECGs nearest to one of the index, itself left out; no model is needed.

        Raises:
            ValueError: as `query_vector`, and there is no such key.
        """
        row = self._records.row_of(key)
        vector = np.asarray(self._vectors.vectors[row], np.float32)
        rows, scores = self.nearest(vector, _checked_k(k) + 1, filter)
        pairs = zip(rows[0].tolist(), scores[0].tolist(), strict=True)
        return self._hits([(at, score) for at, score in pairs if at != row][:k])

    def query_vector(
        self, vector: NDArray[np.floating[Any]], k: int = 10, filter: RecordFilter | None = None
    ) -> list[EcgHit]:
        """The ECGs nearest to an embedding (D,) of the index's model, best first.

        Returns:
            At most k hits; fewer where the filter lets fewer through.

        Raises:
            ValueError: k is below 1, the embedding is not finite or has another size, or no record
                has a statement of the filter.
        """
        rows, scores = self.nearest(vector, k, filter)
        return self._hits([*zip(rows[0].tolist(), scores[0].tolist(), strict=True)])

    def nearest(
        self, vectors: NDArray[np.floating[Any]], k: int, filter: RecordFilter | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Rows (m, k) nearest to embeddings (m, D), -1 for none, and cosines; as `VectorIndex`."""
        mask = self._records.mask(filter) if filter is not None else None
        return self._vectors.search(vectors, k, mask)

    def recordings(
        self, hits: Sequence[EcgHit], shards: Sequence[Path] | None = None
    ) -> Iterator[Recording]:
        """The signals of hits, as the shards hold them.

        Args:
            hits: of this index.
            shards: the folders that were indexed, if they are not where they were.

        Raises:
            FileNotFoundError: the shards are not there.
            ValueError: a sample is damaged, or the shards have no such record.
        """
        folders = [*(shards or self.shards)]
        splits = {hit.split for hit in hits}
        sets = {split: ShardSet(folders, split) for split in splits}
        rows = {split: {key: row for row, key in enumerate(sets[split].keys)} for split in splits}
        for hit in hits:
            one = sets[hit.split]
            if hit.key not in rows[hit.split]:
                raise ValueError(f"{', '.join(map(str, folders))} have no record {hit.key}")
            yield Recording(one.read_ecg([rows[hit.split][hit.key]])[0], one.fs, one.leads)

    def prepare(self, progress: StageProgress = lambda stage, done, total: None) -> None:
        """Build a graph that is lacking now; the first query does it otherwise."""
        self._vectors.prepare(lambda done, total: progress("graph", done, total))

    def _hits(self, found: Sequence[tuple[int, float]]) -> list[EcgHit]:
        hits: list[EcgHit] = []
        for row, score in found:
            if row < 0:
                break
            line = self._records.line(row)
            for name in ("statements", "findings"):
                line[name] = tuple(line[name])
            hits.append(EcgHit(rank=len(hits), score=score, **line))
        return hits

    def _take(self, model: ESI | str | Path) -> None:
        """Use a model, if it is the one that made the index."""
        given, loaded = _identified(model, self._device)
        if given.sha256 != self.identity.sha256:
            raise ValueError(
                f"{self.folder} was made by the model {self.identity}; its embeddings cannot be "
                f"compared with those of {given}"
            )
        self._model = loaded


def _identified(model: ESI | str | Path, device: str | None = None) -> tuple[ModelIdentity, ESI]:
    """A model, loaded where it is a path, and which it is."""
    if isinstance(model, str | Path):
        loaded = load_model(model, device)
        return identity_of(loaded, model), loaded
    return identity_of(model), model


def _checked_k(k: int) -> int:
    if k < 1:
        raise ValueError(f"k is {k}; give a whole number, 1 or more")
    return k
