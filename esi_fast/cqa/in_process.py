"""A causal language model of Hugging Face in this process, as a backend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from esi_fast.cqa.requests import Answer, Request

_MAX_TOKENS = 200


class TransformersBackend:
    """Describes by greedy generation.

    Args:
        model: name or local path of a causal language model.
        batch_size: requests at a time, of like length.
        device: as torch names it; by default a GPU where there is one.

    Raises:
        OSError: there is no such model.
    """

    name = "transformers"

    def __init__(self, model: str, *, batch_size: int = 8, device: str = "") -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model = model
        self._batch_size = batch_size
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._tokenizer: Any = AutoTokenizer.from_pretrained(model, padding_side="left")
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model: Any = AutoModelForCausalLM.from_pretrained(model).to(self._device).eval()

    def parameters(self) -> dict[str, object]:
        """Sampling: greedy."""
        return {"max_new_tokens": _MAX_TOKENS}

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """The answer to each request, batch by batch, the shortest prompts first."""
        prompts = [self._prompt(request) for request in requests]
        by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        for first in range(0, len(by_length), self._batch_size):
            rows = by_length[first : first + self._batch_size]
            yield from zip(rows, self._generate([prompts[row] for row in rows]), strict=True)

    def _prompt(self, request: Request) -> str:
        messages = request.messages()
        if self._tokenizer.chat_template is None:
            return "\n\n".join(one["content"] for one in messages) + "\n\n"
        return str(
            self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        )

    def _generate(self, prompts: Sequence[str]) -> list[Answer]:
        import torch

        batch = self._tokenizer(list(prompts), padding=True, return_tensors="pt").to(self._device)
        longest = getattr(self._model.config, "max_position_embeddings", None)
        num_prompt = batch["input_ids"].shape[1]
        if longest is not None and num_prompt + _MAX_TOKENS > longest:
            error = f"prompt of {num_prompt} tokens is too long for a model of {longest}"
            return [Answer("", error)] * len(prompts)
        with torch.inference_mode():
            tokens_BN = self._model.generate(
                **batch, max_new_tokens=_MAX_TOKENS, do_sample=False,
                pad_token_id=self._tokenizer.pad_token_id,
            )  # fmt: skip
        texts = self._tokenizer.batch_decode(tokens_BN[:, num_prompt:], skip_special_tokens=True)
        return [
            Answer(text.strip()) if text.strip() else Answer("", "empty answer") for text in texts
        ]
