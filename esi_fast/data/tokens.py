"""The captions of a shard set as token ids: tokenized once, kept in a file, cut to batches.

Captions are composed of sentences, and few of those are distinct. So each distinct sentence is
tokenized once, and a caption is a list of sentences; some sentences of one are a shorter list.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import warnings
import zipfile
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from esi_fast.data.augment import draw_sentences, sentences_of
from esi_fast.data.token_count import tokenizer_sha256

if TYPE_CHECKING:
    from esi_fast.data.shard_set import ShardSet

# Of a zip archive or an array: an unknown compression is a NotImplementedError of zipfile's.
_DAMAGE = OSError, KeyError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile
_VERSION = 1
_CHUNK = 4096  # sentences tokenized at once
_NUM_PROVED = 512  # captions on which it is proved that sentences can be tokenized one by one


class Tokenizer(Protocol):
    """What is used of a fast tokenizer of Hugging Face transformers."""

    cls_token_id: int
    sep_token_id: int
    pad_token_id: int

    def __call__(self, text: list[str], *, add_special_tokens: bool) -> Any:
        """A mapping whose ``input_ids`` is a list of ids for each text."""
        ...


class CaptionTokens:
    """Token ids of the captions of a shard set.

    Attributes:
        lengths: (rows,) int32, tokens of each caption, [CLS] and [SEP] included, cut to
            ``max_tokens``.
        path: the file that keeps them; None if there is none.
    """

    lengths: NDArray[np.int32]
    path: Path | None

    def __init__(
        self,
        shard_set: ShardSet,
        tokenizer: Tokenizer,
        max_tokens: int,
        *,
        folders: Sequence[Path] = (),
        allow_damage: bool = False,
        progress: Callable[[int], object] = lambda num_captions: None,
    ) -> None:
        """Read the tokens of these captions from their file, or tokenize and keep them.

        Args:
            shard_set: whose captions.
            tokenizer: a fast tokenizer with [CLS], [SEP] and [PAD].
            max_tokens: longer captions are cut to this many, [SEP] at the end.
            folders: where the file, named by what it depends on, is looked for; it is kept in the
                first of them that can be written to.
            allow_damage: a caption that is damaged or cannot be read counts as empty, and then no
                file is kept.
            progress: called with the number of captions just read.

        Raises:
            ValueError: a record has no caption or a damaged one, the tokenizer does not treat
                sentences one by one, or ``max_tokens`` leaves no room for text.
            OSError: the file can be written to none of the folders.
        """
        if max_tokens < 3:
            raise ValueError(f"max_tokens is {max_tokens}, it must be 3 or more")
        if len(bare := shard_set.rows_without_caption()):
            raise ValueError(
                f"{len(bare)} of {len(shard_set)} records have no caption, the first is "
                f"{shard_set.key(int(bare[0]))}: bake captions in with tools/shard --cqa, or give "
                "an overlay (data.captions)"
            )
        self._max_tokens = max_tokens
        self._special = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
        self.path = None
        named = f"{_VERSION} {shard_set.digest} {tokenizer_sha256(tokenizer)}"
        name = f"tokens-{hashlib.sha256(named.encode()).hexdigest()[:16]}.npz"
        for folder in folders:
            if self._load(folder / name, len(shard_set)):
                self.path = folder / name
                break
        else:
            num_damaged = self._tokenize(shard_set, tokenizer, allow_damage, progress)
            if folders and not num_damaged:
                self.path = self._save_in(folders, name)
        sentence_lengths = np.diff(self._sentence_ends, prepend=0)
        of_captions = np.concatenate([[0], np.cumsum(sentence_lengths[self._sentences])])
        ends = np.concatenate([[0], self._caption_ends])
        lengths = of_captions[ends[1:]] - of_captions[ends[:-1]] + 2
        self.lengths = np.minimum(lengths, max_tokens).astype(np.int32)

    def batch(
        self, rows: Sequence[int] | NDArray[np.int64], *, seed: int, epoch: int, share: float
    ) -> dict[str, torch.Tensor]:
        """Captions, and the texts for the contrastive loss.

        Args:
            rows: (B,) of the shard set.
            seed, epoch, share: of `esi_fast.data.augment.draw_sentences`.

        Returns:
            ``input_ids`` and ``attention_mask`` (B, N) int64 of the captions, ``text_ids`` and
            ``text_mask`` (B, M) of some sentences of each; the same two if ``share`` is 0.
        """
        if not len(rows):
            raise ValueError("rows is empty")
        every = [self._sentences_of(int(row)) for row in rows]
        ids, mask = self._padded(every)
        batch = {"input_ids": ids, "attention_mask": mask, "text_ids": ids, "text_mask": mask}
        if share > 0:
            some = []
            for row, sentences in zip(rows, every, strict=True):
                kept = draw_sentences(
                    len(sentences), seed=seed, epoch=epoch, row=int(row), share=share
                )
                some.append(sentences if kept is None else sentences[kept])
            batch["text_ids"], batch["text_mask"] = self._padded(some)
        return batch

    def _sentences_of(self, row: int) -> NDArray[np.int32]:
        begin = int(self._caption_ends[row - 1]) if row else 0
        return self._sentences[begin : int(self._caption_ends[row])]

    def _padded(self, texts: list[NDArray[np.int32]]) -> tuple[torch.Tensor, torch.Tensor]:
        first, last, padding = self._special
        rows = []
        for sentences in texts:
            pieces = [self._ids[self._begin(s) : self._sentence_ends[s]] for s in sentences]
            whole = np.concatenate(pieces) if pieces else np.empty(0, np.int32)
            rows.append(whole[: self._max_tokens - 2])
        lengths = np.array([len(row) + 2 for row in rows])
        ids = np.full((len(rows), int(lengths.max())), padding, np.int64)
        for number, row in enumerate(rows):
            ids[number, 0] = first
            ids[number, 1 : len(row) + 1] = row
            ids[number, len(row) + 1] = last
        mask = np.arange(ids.shape[1]) < lengths[:, None]
        return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))

    def _begin(self, sentence: int) -> int:
        return int(self._sentence_ends[sentence - 1]) if sentence else 0

    def _tokenize(
        self,
        shard_set: ShardSet,
        tokenizer: Tokenizer,
        allow_damage: bool,
        progress: Callable[[int], object],
    ) -> int:
        """Tokenize every sentence once; the number of captions that were damaged."""
        num_damaged = 0
        number_of: dict[str, int] = {}
        numbers, counts = array("i"), array("i")  # as lists, 800,000 captions would take 300 MB
        proved = set(np.linspace(0, len(shard_set) - 1, _NUM_PROVED).astype(int).tolist())
        for row in range(len(shard_set)):
            try:
                caption = shard_set.read_caption(row) or ""
            except ValueError:
                if not allow_damage:
                    raise
                num_damaged, caption = num_damaged + 1, ""
            sentences = sentences_of(caption)
            if row in proved:
                _prove(tokenizer, caption, sentences)
            numbers.extend(number_of.setdefault(one, len(number_of)) for one in sentences)
            counts.append(len(sentences))
            progress(1)
        distinct = list(number_of)
        ids: list[NDArray[np.int32]] = []
        for start in range(0, len(distinct), _CHUNK):
            found = tokenizer(distinct[start : start + _CHUNK], add_special_tokens=False)
            ids += [np.array(one, np.int32) for one in found["input_ids"]]
        self._sentences = np.array(numbers, np.int32)
        self._caption_ends = np.cumsum(counts, dtype=np.int64)
        self._ids = np.concatenate(ids)
        self._sentence_ends = np.cumsum([len(one) for one in ids], dtype=np.int64)
        return num_damaged

    def _save_in(self, folders: Sequence[Path], name: str) -> Path:
        for number, folder in enumerate(folders, start=1):
            try:
                self._save(folder / name)
            except OSError:
                if number == len(folders):
                    raise
            else:
                break
        return folder / name

    def _save(self, path: Path) -> None:
        """Write the file, whole or not at all; ranks may do so at the same time."""
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(".partial", f".{path.name}.", path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                np.savez(
                    file,
                    sentences=self._sentences,
                    caption_ends=self._caption_ends,
                    ids=self._ids,
                    sentence_ends=self._sentence_ends,
                )
                file.flush()
                os.fsync(descriptor)
            Path(partial).chmod(0o644)  # mkstemp's files are the owner's alone
            Path(partial).replace(path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise

    def _load(self, path: Path, num_rows: int) -> bool:
        """Whether the file is there and whole (each array in it has a checksum); damage is said."""
        try:
            with zipfile.ZipFile(path) as members:
                arrays = [
                    np.lib.format.read_array(io.BytesIO(members.read(f"{one}.npy")))
                    for one in ("sentences", "caption_ends", "ids", "sentence_ends")
                ]
        except (FileNotFoundError, NotADirectoryError):
            return False
        except _DAMAGE as error:
            message = f"{path} cannot be read ({error}) and is left aside"
            warnings.warn(message, RuntimeWarning, stacklevel=3)
            return False
        self._sentences, self._caption_ends, self._ids, self._sentence_ends = arrays
        return len(self._caption_ends) == num_rows


def _prove(tokenizer: Tokenizer, caption: str, sentences: list[str]) -> None:
    found = tokenizer([caption, *sentences], add_special_tokens=False)["input_ids"]
    if found[0] != [token for one in found[1:] for token in one]:
        raise ValueError(
            f"the tokenizer reads {caption[:60]!r}... otherwise than its sentences one by one, as "
            "BERT's does not: it cannot be used here"
        )
