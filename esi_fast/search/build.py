"""Building an index: embeddings in parts, then records, vectors and graph, then its name."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esi_fast.retriever.vectors import Search
from esi_fast.search import storage
from esi_fast.search.embed import Dtype, embed_source, job_settings
from esi_fast.search.identity import ModelIdentity
from esi_fast.search.parts import Parts
from esi_fast.search.records import write_records
from esi_fast.search.sources import ShardSource
from esi_fast.search.storage import StageProgress

if TYPE_CHECKING:
    from esi_fast.models.esi import ESI


def build_folder(
    model: ESI,
    identity: ModelIdentity,
    shards: Sequence[Path],
    out: Path,
    *,
    dtype: Dtype,
    search: Search,
    batch_size: int,
    threads: int,
    resume: bool,
    progress: StageProgress,
) -> None:
    """Make the folder of an index; arguments and errors as `EcgIndex.build`.

    While it runs, ``.OUT.parts`` beside it holds the embeddings that are done: a build that is
    killed later than that makes the graph again, and nothing else.
    """
    if out.exists() and not resume:
        raise FileExistsError(f"{out} exists: choose another --out, or remove it")
    source = ShardSource(shards, model.config.fs, model.config.num_samples, told=True)
    settings = job_settings(source, identity.sha256, dtype)
    if out.exists():
        _mend(out, settings, search, threads, progress)
        shutil.rmtree(_parts_of(out), ignore_errors=True)  # of a build killed after its last step
        return
    _refuse_twins(source)
    with Parts(_parts_of(out), settings, resume=resume) as parts:
        embed_source(
            model,
            source,
            parts,
            batch_size=batch_size,
            dtype=dtype,
            progress=lambda done, total: progress("embed", done, total),
        )
        temporary = storage.fresh_folder(out.with_name(f".{out.name}.partial"))
        write_records(temporary, parts.lines())
        shape = parts.num_kept, model.config.embed_dim
        vectors = storage.write_vectors(temporary, parts.arrays(), shape, dtype)
        index = storage.vector_index(vectors, search, threads)
        index.prepare(lambda done, total: progress("graph", done, total))
        storage.write_graph(temporary, index)
        meta = {
            "settings": settings,
            "model": identity.as_json(),
            "shards": [str(folder) for folder in shards],
            "search": search,
            "rejected": parts.rejected,
        }
        storage.seal(temporary, meta)
        storage.put_in_place(temporary, out)
        parts.remove()


def _parts_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.parts")


def _refuse_twins(source: ShardSource) -> None:
    """Refuse a key that occurs twice, which takes seconds here and hours once all is embedded."""
    keys = sorted(row.key for row in source)
    twin = next((one for one, other in pairwise(keys) if one == other), None)
    if twin is not None:
        raise ValueError(f"record {twin} occurs twice in the shards: index each folder by itself")


def _mend(
    folder: Path, settings: dict[str, Any], search: Search, threads: int, progress: StageProgress
) -> None:
    """Build the graph of a finished index again, where it is not what was saved."""
    meta = storage.read_meta(folder)
    built = meta["settings"] | {"search": meta["search"]}
    for name, value in (settings | {"search": search}).items():
        if built.get(name) != value:
            raise FileExistsError(
                f"{folder} is an index of another {name}: {built.get(name)}, not {value}; give "
                "that, or choose another --out"
            )
    storage.check_files(folder, meta)
    index = storage.vector_index(storage.map_vectors(folder), meta["search"], threads)
    if index.uses_graph and not storage.adopt_saved_graph(index, folder, meta):
        index.prepare(lambda done, total: progress("graph", done, total))
        storage.write_graph(folder, index)
        storage.seal(folder, meta)
