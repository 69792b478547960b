"""Embeddings that are spread as a trained model's, in any number and width.

Approximate search is easy or hard by how vectors lie, and white noise lies like no model's
embeddings. So the spread of a trained model's embeddings is measured once, kept in
``search_spread.csv``, and embeddings are drawn by it:

1. Measured, in the eigenbasis of the pooled covariance within clusters (a cluster: records of one
   concept key): per axis the variance within clusters, the variance between their means, the mean
   of all, the mean offset of texts (captions of records) from their own cluster's mean, and the
   texts' variance around that; the clusters' shares of the records; and 33 quantiles of the length
   of a record's deviation from its cluster's mean, in units of the root mean square.
2. Widened from the model's D to more axes: the measured ones as they are, and after them the tail
   as it falls; or the whole decay stretched over several times as many axes, its sum kept, for a
   harder case than was measured. The signs of the two means are random.
3. Drawn: cluster means normal with the variance between, records normal around them with the
   variance within, their deviations stretched to lengths drawn from the quantiles; then unit
   length. Texts: a cluster's mean, the offset, and normal with the texts' variance.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

TABLE = Path(__file__).with_name("search_spread.csv")
_AXES = ("within", "between", "mean", "text_offset", "text_within")
_NUM_QUANTILES = 33
_BLOCK = 16_384
_TAIL = 32  # axes that tell how the decay goes on
_MOST_RECORDS, _MOST_TEXTS = 20_000, 2_000

Vectors = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spread:
    """How a model's embeddings lie; arrays (D,) but the last two.

    Attributes:
        within, between, text_within: variances on each axis.
        mean, text_offset: means on each axis.
        shares: (clusters,) of the records.
        lengths: (33,) quantiles of the deviations' lengths over their root mean square.
    """

    within: Numbers
    between: Numbers
    mean: Numbers
    text_offset: Numbers
    text_within: Numbers
    shares: Numbers
    lengths: Numbers

    def save(self, path: Path, about: dict[str, str]) -> None:
        """Write the table, under a header that says where it is from."""
        with path.open("w", encoding="utf-8", newline="") as file:
            for name, value in about.items():
                file.write(f"# {name}: {value}\n")
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("what", "index", "value"))
            for name in (*_AXES, "shares", "lengths"):
                for index, value in enumerate(getattr(self, name).tolist()):
                    writer.writerow((name, index, f"{value:.6g}"))

    @classmethod
    def load(cls, path: Path = TABLE) -> Spread:
        """Read the table."""
        found: dict[str, list[float]] = {}
        with path.open(encoding="utf-8", newline="") as file:
            lines = (line for line in file if not line.startswith("#"))
            for row in csv.DictReader(lines):
                found.setdefault(row["what"], []).append(float(row["value"]))
        return cls(**{name: np.array(values) for name, values in found.items()})

    def widened(self, dimension: int, stretch: float = 1.0, seed: int = 0) -> Spread:
        """The same decay in more axes; ``stretch`` times as many of them hold what one held."""
        rng = np.random.default_rng(seed)
        axes: dict[str, Numbers] = {}
        for name in _AXES:
            own: Numbers = getattr(self, name)
            is_mean = name in ("mean", "text_offset")
            power = np.maximum(own**2 if is_mean else own, 1e-12)
            at = (np.arange(dimension) + 0.5) / stretch - 0.5
            logs = np.log(power)
            last = len(own) - 1
            tail = logs[-_TAIL:]
            slope = min(0.0, np.polyfit(np.arange(len(tail)), tail, 1)[0])
            wide = np.exp(np.interp(at, np.arange(len(own)), logs))
            wide *= np.exp(slope * np.maximum(at - last, 0))
            wide *= power.sum() / wide.sum()
            axes[name] = np.sqrt(wide) * rng.choice([-1, 1], dimension) if is_mean else wide
        return Spread(**axes, shares=self.shares, lengths=self.lengths)


def measure_spread(
    embeddings: Vectors,
    clusters: npt.NDArray[np.int64],
    texts: Vectors,
    text_rows: npt.NDArray[np.int64],
) -> Spread:
    """The spread of embeddings (n, D), of their clusters (n,), and of texts (m, D) on some rows."""
    numbers, which, counts = np.unique(clusters, return_inverse=True, return_counts=True)
    wide = embeddings.astype(np.float64)
    means = np.zeros((len(numbers), wide.shape[1]))
    np.add.at(means, which, wide)
    means /= counts[:, None]
    # Of clusters of one or two the mean is too near to its records.
    is_told = counts[which] >= 5
    deviations = (wide - means[which])[is_told] * np.sqrt(
        counts[which] / np.maximum(counts[which] - 1, 1)
    )[is_told, None]
    within, axes = np.linalg.eigh(np.cov(deviations.T))
    within, axes = within[::-1], axes[:, ::-1]
    offsets = (texts - means[which[text_rows]])[is_told[text_rows]] @ axes
    weights = counts / counts.sum()
    centre = weights @ means
    lengths = np.linalg.norm(deviations, axis=1)
    lengths /= np.sqrt(np.mean(lengths**2))
    return Spread(
        within=within,
        between=weights @ ((means - centre) @ axes) ** 2,
        mean=centre @ axes,
        text_offset=offsets.mean(axis=0),
        text_within=offsets.var(axis=0),
        shares=np.sort(weights)[::-1],
        lengths=np.quantile(lengths, np.linspace(0, 1, _NUM_QUANTILES)),
    )


def spread_of_model(model_folder: Path, shards: Path) -> tuple[Spread, dict[str, str]]:
    """Measure a model's spread on up to 20,000 records of its shards, and say what it is of."""
    import torch

    from esi_fast.data.shard_set import ShardSet
    from esi_fast.search.identity import identity_of, load_model

    model = load_model(model_folder)
    shard_set = ShardSet(shards, "all")
    rng = np.random.default_rng(0)
    count = min(len(shard_set), _MOST_RECORDS)
    rows = np.sort(rng.choice(len(shard_set), count, replace=False))
    embeddings = np.empty((count, model.config.embed_dim), np.float32)
    for at in range(0, count, 64):
        signals = torch.from_numpy(shard_set.read_ecg(rows[at : at + 64]))
        embeddings[at : at + 64] = model.encode_ecg(signals).float().cpu().numpy()
    text_rows = np.sort(rng.choice(count, min(count, _MOST_TEXTS), replace=False))
    captions = [shard_set.read_caption(int(rows[at])) or "" for at in text_rows]
    texts = np.concatenate(
        [
            model.encode_text(captions[at : at + 64]).float().cpu().numpy()
            for at in range(0, len(captions), 64)
        ]
    )
    spread = measure_spread(embeddings, shard_set.concept_keys[rows], texts, text_rows)
    return spread, described(spread, embeddings, str(identity_of(model)).split(" (")[0])


def described(spread: Spread, embeddings: Vectors, model: str) -> dict[str, str]:
    """What a spread is of, and how near the embeddings drawn by it are to the measured ones."""
    drawn = np.concatenate([block for block, _ in Drawer(spread).records(len(embeddings), 1)])
    pair = f"{local_dimension(embeddings):.1f}, drawn in its own width {local_dimension(drawn):.1f}"
    return {
        "spread of": f"{model}, {len(embeddings)} records, {len(spread.shares)} clusters",
        "intrinsic dimension": f"measured {pair} ({len(embeddings)} records)",
        "drawn as": "clusters with the measured decay of variance within and between, its tail "
        "prolonged to 512 axes; measured lengths of deviations; texts with the measured offset: "
        "see benchmarks/search_spread.py",
    }


def read_about(path: Path = TABLE) -> dict[str, str]:
    """The header of a table."""
    about = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.startswith("# "):
                break
            name, _, value = line[2:].rstrip("\n").partition(": ")
            if name in ("spread of", "intrinsic dimension", "drawn as"):
                about[name] = value
    return about


class Drawer:
    """Draws embeddings by a spread; the clusters' means are drawn at once.

    Args:
        spread: of the width that is wanted.
        seed: of the means.
    """

    def __init__(self, spread: Spread, seed: int = 0) -> None:
        self._spread = spread
        rng = np.random.default_rng(seed)
        normal = rng.standard_normal((len(spread.shares), len(spread.mean)))
        self._means = spread.mean + normal * np.sqrt(spread.between)

    def records(self, count: int, seed: int) -> Iterator[tuple[Vectors, npt.NDArray[np.int64]]]:
        """Blocks of unit embeddings (m, D), with the cluster of each (m,)."""
        rng = np.random.default_rng(seed)
        rms = np.sqrt(self._spread.within.sum())
        places = np.linspace(0, 1, len(self._spread.lengths))
        for first in range(0, count, _BLOCK):
            size = min(_BLOCK, count - first)
            which = rng.choice(len(self._means), size, p=self._shares)
            normal = rng.standard_normal((size, len(self._spread.within)), np.float32)
            normal *= np.sqrt(self._spread.within).astype(np.float32)
            wanted = rms * np.interp(rng.random(size), places, self._spread.lengths)
            normal *= (wanted / np.linalg.norm(normal, axis=1))[:, None].astype(np.float32)
            yield _unit(normal + self._means[which].astype(np.float32)), which

    def texts(self, count: int, seed: int) -> Vectors:
        """Unit embeddings (count, D) of texts on clusters, each as often as its records."""
        rng = np.random.default_rng(seed)
        which = rng.choice(len(self._means), count, p=self._shares)
        normal = rng.standard_normal((count, len(self._spread.mean)))
        offset = self._spread.text_offset + normal * np.sqrt(self._spread.text_within)
        return _unit((self._means[which] + offset).astype(np.float32))

    @property
    def _shares(self) -> Numbers:
        return self._spread.shares / self._spread.shares.sum()


def local_dimension(vectors: Vectors, num_queries: int = 500, k: int = 20) -> float:
    """Intrinsic dimension around points, median: how hard a neighbourhood is to search.

    Source: Levina & Bickel 2004, "Maximum likelihood estimation of intrinsic dimension".
    """
    picked = np.random.default_rng(0).choice(len(vectors), min(num_queries, len(vectors)), False)
    squares = 2 - 2 * (vectors[picked] @ vectors.T).astype(np.float64)
    squares[np.arange(len(picked)), picked] = np.inf
    near = np.sqrt(np.maximum(np.sort(np.partition(squares, k, axis=1)[:, :k], axis=1), 1e-12))
    ratios = np.log(near[:, -1:] / near[:, :-1])
    return float(np.median(1 / np.maximum(ratios.mean(axis=1), 1e-12)))


def _unit(vectors: Vectors) -> Vectors:
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors
