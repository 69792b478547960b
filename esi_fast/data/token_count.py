"""How many tokens a sentence has for a text encoder: what a caption's budget is counted in."""

from __future__ import annotations

import hashlib
import json
from typing import Any


class TokenCounter:
    """Tokens of sentences by a tokenizer of Hugging Face, each distinct sentence counted once.

    Captions are put together of few distinct sentences (measured values apart). The tokenizer is
    loaded when it is first needed, in each process for itself.

    Args:
        tokenizer: name or local path of a tokenizer or of a model that has one.
    """

    def __init__(self, tokenizer: str) -> None:
        self._name = tokenizer
        self._loaded: Any = None
        self._known: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        """Without the tokens that mark a text's start and end.

        Raises:
            OSError: there is no such tokenizer.
            ModuleNotFoundError: transformers is not installed.
        """
        count = self._known.get(text)
        if count is None:
            ids = self._tokenizer()(text, add_special_tokens=False, verbose=False)["input_ids"]
            if len(self._known) >= 1 << 20:  # a million sentences with values in them
                self._known.clear()
            count = self._known[text] = len(ids)
        return count

    def sha256(self) -> str:
        """Of the tokenizer itself, whose files may change under their name.

        Raises:
            OSError, ModuleNotFoundError: as for counting.
            ValueError: it is no fast tokenizer.
        """
        loaded = self._tokenizer()
        if not hasattr(loaded, "backend_tokenizer"):
            raise ValueError(f"{self._name} has no fast tokenizer (tokenizer.json); give another")
        return tokenizer_sha256(loaded)

    def _tokenizer(self) -> Any:
        if self._loaded is None:
            from transformers import AutoTokenizer

            self._loaded = AutoTokenizer.from_pretrained(self._name)
        return self._loaded

    def __reduce__(self) -> tuple[type[TokenCounter], tuple[str]]:
        return TokenCounter, (self._name,)


def tokenizer_sha256(tokenizer: Any) -> str:
    """Of all that decides on the ids that a fast tokenizer gives."""
    said = json.loads(tokenizer.backend_tokenizer.to_str())
    for state in ("padding", "truncation"):  # of the last call
        said.pop(state, None)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
