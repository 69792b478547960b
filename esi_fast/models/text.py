"""The text side: any Hugging Face BERT, or a small one with a WordPiece tokenizer of its own."""

from __future__ import annotations

import string
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"


class TextEncoder(nn.Module):
    """A bidirectional BERT whose [CLS] state stands for the text.

    Args:
        bert_config: a ``transformers.BertConfig``.
    """

    def __init__(self, bert_config: Any) -> None:
        super().__init__()
        from transformers import BertModel

        self.bert = BertModel(bert_config, add_pooling_layer=False)
        self.num_features = int(bert_config.hidden_size)

    def forward(self, input_ids_BN: Tensor, attention_mask_BN: Tensor) -> Tensor:
        """Token ids and mask ``(B, N)`` -> the [CLS] state, ``(B, C)``."""
        states = self.bert(input_ids=input_ids_BN, attention_mask=attention_mask_BN)
        return states.last_hidden_state[:, 0]

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
    """A lower-casing WordPiece tokenizer learned from captions."""
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    core = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token=UNKNOWN))
    core.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, UNKNOWN, CLS, SEP, MASK],
        initial_alphabet=list(string.punctuation),
        show_progress=False,
    )
    # Every letter and digit becomes a token, at the start of a word and inside, whatever the
    # captions hold: no later text is unknown.
    letters = string.ascii_lowercase + string.digits
    core.train_from_iterator(chain(captions, letters, [letters, letters[::-1]]), trainer)
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


def load_text_model(name_or_path: str) -> tuple[TextEncoder, Any, PreTrainedTokenizerFast]:
    """A pretrained BERT by hub name or local path, its configuration and its tokenizer.

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
    encoder = TextEncoder(config)
    encoder.bert = bert
    return encoder, config, tokenizer
