"""The text side: any Hugging Face BERT, or a small one with a WordPiece tokenizer of its own."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# States of texts that a frozen encoder keeps: 0.8 GB of width 768 in float32.
MOST_REMEMBERED = 1 << 18
# How many texts are read at once, and of what their length is padded to a multiple: a CPU is busy
# with one, a GPU would wait for the next. The shape follows from a text's own length, so that its
# state does not depend on what it is read with: a resumed run, which remembers nothing yet, takes
# the same steps.
_ALONE, _TOGETHER = (1, 1), (16, 32)
PAD, UNKNOWN, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"


class TextEncoder(nn.Module):
    """A bidirectional BERT whose [CLS] state stands for the text.

    Args:
        bert_config: a ``transformers.BertConfig``.
        bert: a ``transformers.BertModel`` of it without pooler; None draws fresh weights.
    """

    def __init__(self, bert_config: Any, bert: Any = None) -> None:
        super().__init__()
        from transformers import BertModel

        self.bert = BertModel(bert_config, add_pooling_layer=False) if bert is None else bert
        self.num_features = int(bert_config.hidden_size)
        self.is_frozen = False
        self._states: dict[bytes, Tensor] = {}

    def forward(self, input_ids_BN: Tensor, attention_mask_BN: Tensor) -> Tensor:
        """Token ids and mask ``(B, N)``, padded behind -> the [CLS] state, ``(B, C)``."""
        if self.is_frozen:
            return self._remembered(input_ids_BN, attention_mask_BN)
        states = self.bert(input_ids=input_ids_BN, attention_mask=attention_mask_BN)
        return states.last_hidden_state[:, 0]

    def _remembered(self, input_ids_BN: Tensor, attention_mask_BN: Tensor) -> Tensor:
        """The state of each text: remembered, or read by the frozen BERT now."""
        device = input_ids_BN.device
        rows, multiple = _ALONE if device.type == "cpu" else _TOGETHER
        lengths = attention_mask_BN.sum(dim=1).tolist()
        texts = [ids_N[:length] for ids_N, length in zip(input_ids_BN.cpu(), lengths, strict=True)]
        keys = [text_N.numpy().tobytes() for text_N in texts]
        states = {key: self._states[key] for key in keys if key in self._states}
        unread: dict[int, dict[bytes, Tensor]] = {}
        for key, text_N in zip(keys, texts, strict=True):
            if key not in states:
                # On a GPU one more: without a mask, which full rows lose, another kernel may run.
                padded = -(-(len(text_N) + (multiple > 1)) // multiple) * multiple
                unread.setdefault(padded, {})[key] = text_N
        for length, some in unread.items():
            read = self._read([*some.values()], length, rows, device)
            states |= zip(some, read, strict=True)
        self._states |= states
        for key in [*islice(self._states, max(0, len(self._states) - MOST_REMEMBERED))]:
            del self._states[key]
        return torch.stack([states[key] for key in keys])

    def _read(
        self, texts: list[Tensor], length: int, rows: int, device: torch.device
    ) -> list[Tensor]:
        """The state of each text, ``rows`` of them at once, padded to ``length``."""
        length = min(length, self.bert.config.max_position_embeddings)
        ids_MN = torch.zeros(-(-len(texts) // rows) * rows, length, dtype=torch.int64)
        mask_MN = torch.zeros_like(ids_MN)
        mask_MN[:, 0] = 1  # rows left over read one token
        for ids_N, mask_N, text_N in zip(ids_MN, mask_MN, texts, strict=False):
            ids_N[: len(text_N)] = text_N
            mask_N[: len(text_N)] = 1
        states: list[Tensor] = []
        ids_MN, mask_MN = ids_MN.to(device), mask_MN.to(device)
        for first in range(0, len(texts), rows):
            some = slice(first, first + rows)
            with torch.no_grad():
                read = self.bert(input_ids=ids_MN[some], attention_mask=mask_MN[some])
            # A copy each: a view would keep the states of all tokens of all of them.
            states += [state_C.clone() for state_C in read.last_hidden_state[:, 0]]
        return states[: len(texts)]

    def freeze(self) -> None:
        """Keep the weights as they are, and without dropout.

        The states of the last `MOST_REMEMBERED` new texts are kept: those are not read again.
        """
        self.is_frozen = True
        self.requires_grad_(False)
        self.bert.eval()

    def add_adapters(self, rank: int) -> None:
        """Freeze BERT and train low-rank adapters of its queries and values (Hu et al. 2021).

        Args:
            rank: of each adapter; they are scaled by 2, as is common.
        """
        from peft import LoraConfig, inject_adapter_in_model

        # It freezes all parameters but the adapters'.
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["query", "value"])
        inject_adapter_in_model(config, self.bert)

    def merge_adapters(self) -> None:
        """Put what the adapters have learned into BERT's own weights, and take them out."""
        from peft.tuners.lora import LoraLayer

        for name, module in [*self.bert.named_modules()]:
            if isinstance(module, LoraLayer):
                module.merge()
                self.bert.set_submodule(name, module.get_base_layer())
        self.requires_grad_(True)

    def train(self, mode: bool = True) -> TextEncoder:
        """As `nn.Module.train`; a frozen BERT stays in evaluation mode."""
        super().train(mode)
        if self.is_frozen:
            self.bert.eval()
        return self

    def token_embeddings(self, input_ids_BN: Tensor) -> Tensor:
        """The bare word embeddings, ``(B, N, C)``: what the caption decoder reads."""
        return self.bert.embeddings.word_embeddings(input_ids_BN)


def small_bert_config(
    vocab_size: int, *, hidden: int, layers: int, heads: int, max_tokens: int, dropout: float
) -> Any:
    """The configuration of a BERT small enough for tests and the demo."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        max_position_embeddings=max_tokens,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        # BERT's 0.02 is meant for widths around 768; a narrow one would start with flat attention.
        initializer_range=max(0.02, hidden**-0.5),
    )


def train_wordpiece(captions: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer: every character, and the commonest words of the captions.

    Equal captions give equal tokenizers, which the trainers of the ``tokenizers`` package do not
    promise; and no later text is unknown, because any word can be spelled.

    Raises:
        ValueError: ``vocab_size`` leaves no room for the characters.
    """
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for caption in captions:
        words = pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(caption))
        counts.update(word for word, _ in words)
    inside = string.ascii_lowercase + string.digits
    characters = sorted(set(inside + string.punctuation).union(*counts))
    tokens = [PAD, UNKNOWN, CLS, SEP, MASK, *characters]
    tokens += [f"##{character}" for character in sorted(set(inside).union(*counts))]
    if len(tokens) > vocab_size:
        raise ValueError(f"text_vocab is {vocab_size}; the characters alone need {len(tokens)}")
    by_frequency = sorted(counts, key=lambda word: (-counts[word], word))
    tokens += [word for word in by_frequency if len(word) > 1][: vocab_size - len(tokens)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    core = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token=UNKNOWN))
    core.normalizer = normalizer
    core.pre_tokenizer = pre_tokenizer
    core.decoder = tokenizers.decoders.WordPiece()  # no blank before a full stop
    core.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        special_tokens=[(token, core.token_to_id(token)) for token in (CLS, SEP)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        unk_token=UNKNOWN,
        cls_token=CLS,
        sep_token=SEP,
        mask_token=MASK,
    )


def load_text_model(name_or_path: str) -> tuple[Any, PreTrainedTokenizerFast]:
    """A pretrained BERT (without pooler) by hub name or local path, and its tokenizer.

    Raises:
        ValueError: it cannot be had; the message says how to get it.
    """
    from transformers import AutoConfig, AutoTokenizer, BertModel

    try:
        config = AutoConfig.from_pretrained(name_or_path)
        tokenizer = AutoTokenizer.from_pretrained(name_or_path)
        bert = BertModel.from_pretrained(name_or_path, add_pooling_layer=False)
    except OSError as error:
        where = "" if Path(name_or_path).exists() else " (no such folder either)"
        raise ValueError(
            f"text model {name_or_path!r} cannot be loaded{where}: download it once with "
            f"`hf download {name_or_path}` and pass its folder as --model.text-model"
        ) from error
    if config.model_type != "bert":
        raise ValueError(f"text model {name_or_path!r} is a {config.model_type}, not a BERT")
    return bert, tokenizer
