"""A causal language model of Hugging Face in this process, as a backend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from esi_fast.cqa.requests import Answer, Request, spoken

_MAX_TOKENS = 200


class TransformersBackend:
    """Describes by greedy generation.

    Args:
        model: name or local path of a causal language model.
        batch_size: requests at a time, of like length.
        device: as torch names it; by default a GPU where there is one.

    Raises:
        OSError: there is no such model.
        ValueError: ``batch_size`` is below 1, or ``model`` is something else.
    """

    name = "transformers"

    def __init__(self, model: str, *, batch_size: int = 8, device: str = "") -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; give 1 or more")
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model = model
        self._batch_size = batch_size
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(model, padding_side="left")
            loaded: Any = AutoModelForCausalLM.from_pretrained(model)
        except OSError:
            raise OSError(
                f"no model {model!r}: it is no folder here and could not be fetched; give the path "
                "of a local one"
            ) from None
        except ValueError as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"{model}: no causal language model to load ({reason})") from None
        self._model = loaded.to(self._device).eval()
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token

    def parameters(self) -> dict[str, object]:
        """Sampling: greedy."""
        return {"max_new_tokens": _MAX_TOKENS}

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """The answer to each request, batch by batch, the shortest prompts first."""
        longest = getattr(self._model.config, "max_position_embeddings", None)
        prompts = [self._prompt(request) for request in requests]
        fitting = []
        for index, prompt in enumerate(prompts):
            if longest is not None and len(prompt) + _MAX_TOKENS > longest:
                error = f"prompt of {len(prompt)} tokens is too long for a model of {longest}"
                yield index, Answer("", error)
            else:
                fitting.append(index)
        fitting.sort(key=lambda index: len(prompts[index]))
        for first in range(0, len(fitting), self._batch_size):
            rows = fitting[first : first + self._batch_size]
            yield from zip(rows, self._generate([prompts[row] for row in rows]), strict=True)

    def _prompt(self, request: Request) -> list[int]:
        """The tokens of a request's prompt."""
        messages = request.messages()
        as_one = "\n\n".join(one["content"] for one in messages)
        if self._tokenizer.chat_template is None:
            return list(self._tokenizer(f"{as_one}\n\n")["input_ids"])
        from jinja2 import TemplateError

        chat = partial(
            self._tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True
        )
        try:
            prompt = chat(messages)
        except TemplateError:  # some know no system message
            prompt = chat([{"role": "user", "content": as_one}])
        # The template has written the special tokens already.
        return list(self._tokenizer(prompt, add_special_tokens=False)["input_ids"])

    def _generate(self, prompts: Sequence[list[int]]) -> list[Answer]:
        import torch

        padded = self._tokenizer.pad({"input_ids": list(prompts)}, return_tensors="pt")
        batch = {name: padded[name].to(self._device) for name in ("input_ids", "attention_mask")}
        num_prompt = batch["input_ids"].shape[1]
        with torch.inference_mode():
            tokens_BN = self._model.generate(
                **batch, max_new_tokens=_MAX_TOKENS, do_sample=False,
                pad_token_id=self._tokenizer.pad_token_id,
            )  # fmt: skip
        texts = self._tokenizer.batch_decode(tokens_BN[:, num_prompt:], skip_special_tokens=True)
        said = [spoken(text) for text in texts]
        return [Answer(text) if text else Answer("", "empty answer") for text in said]
