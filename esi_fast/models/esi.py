"""ESI: an ECG encoder and a text encoder in one embedding space, and a caption decoder.

After "ECG Semantic Integrator" (Yu, Guo & Sano, TMLR 2024), sections 3.2 and 3.3, in the ``fixed``
arithmetic of this project: BERT is bidirectional for the contrastive embedding only; the decoder
reads token embeddings causally and cross-attends to the sequence of ECG tokens.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional as F

from esi_fast.leads import NUM_LEADS
from esi_fast.models.convnext1d import TOKEN_STRIDE
from esi_fast.models.decoder import CaptionDecoder
from esi_fast.models.esi_config import CONFIG_FILE
from esi_fast.models.esi_config import ESIConfig as ESIConfig
from esi_fast.models.factory import create_model
from esi_fast.models.loading import model_folder, read_text_config, read_tokenizer
from esi_fast.models.pooling import AttentionPool1d
from esi_fast.models.prepare import prepare_ecg, tokenize
from esi_fast.models.text import TextEncoder, load_text_model, small_bert_config, train_wordpiece

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from esi_fast.signal.inputs import ECGSource

WEIGHTS_FILE, TEXT_CONFIG_FILE, CARD_FILE = "model.safetensors", "text_config.json", "README.md"
MAX_LOGIT_SCALE = math.log(100.0)


class ESIOutput(NamedTuple):
    """What one training step needs.

    Attributes:
        ecg_BD, text_BD: unit-length embeddings, float32.
        logit_scale, logit_bias: ``(1,)``: logits are scale * similarity + bias.
        caption_loss: cross-entropy summed over the real tokens of the captions; 0 without any.
    """

    ecg_BD: Tensor
    text_BD: Tensor
    logit_scale: Tensor
    logit_bias: Tensor
    caption_loss: Tensor


class ESI(nn.Module, PyTorchModelHubMixin):
    """ECGs and texts in one space, and captions of ECGs.

    Args:
        config: sizes and arithmetic.
        text_config: a ``transformers.BertConfig``.
        tokenizer: a fast tokenizer with [CLS], [SEP] and [PAD].
        bert: a pretrained ``transformers.BertModel`` of that configuration; None draws one.

    Raises:
        ValueError: the vocabularies of tokenizer and text encoder differ, or T is below one token.
    """

    def __init__(
        self,
        config: ESIConfig,
        text_config: Any,
        tokenizer: PreTrainedTokenizerFast,
        *,
        bert: Any = None,
    ) -> None:
        super().__init__()
        if len(tokenizer) > text_config.vocab_size:
            raise ValueError(
                f"the tokenizer has {len(tokenizer)} tokens, the text encoder "
                f"{text_config.vocab_size}"
            )
        if config.num_samples < TOKEN_STRIDE:
            raise ValueError(f"num_samples is {config.num_samples}; at least {TOKEN_STRIDE}")
        if config.max_tokens > text_config.max_position_embeddings:
            raise ValueError(
                f"max_tokens is {config.max_tokens}; the text encoder has "
                f"{text_config.max_position_embeddings} positions"
            )
        self.config = config
        self.text_config = text_config
        self.tokenizer = tokenizer
        self.card: str | None = None  # the text of the folder's README.md
        self.ecg = create_model(config.encoder, in_chans=NUM_LEADS, drop_path_rate=config.drop_path)
        self.text = TextEncoder(text_config, bert)
        self.ecg_projection = nn.Linear(self.ecg.num_features, config.embed_dim, bias=False)
        self.text_projection = nn.Linear(self.text.num_features, config.embed_dim, bias=False)
        # Shape (1,), not (): DeepSpeed cannot broadcast a parameter without dimensions.
        # Where both start: Radford et al. 2021, section 2.5; Zhai et al. 2023, section 3.1.
        is_sigmoid = config.contrast == "sigmoid"
        scale = 10.0 if is_sigmoid else 1 / 0.07
        self.logit_scale = nn.Parameter(torch.full((1,), math.log(scale)))
        if is_sigmoid:
            self.logit_bias = nn.Parameter(torch.full((1,), -10.0))
        else:
            self.register_buffer("logit_bias", torch.zeros(1), persistent=False)
        self.pool = (
            AttentionPool1d(self.ecg.num_features) if config.pooling == "attention" else None
        )
        self.decoder = CaptionDecoder(
            text_config.vocab_size,
            embedding_dim=self.text.num_features,
            ecg_dim=self.ecg.num_features,
            dim=config.decoder_dim,
            num_layers=config.decoder_layers,
            num_heads=config.decoder_heads,
        )

    @classmethod
    def from_text_model(cls, config: ESIConfig, name_or_path: str) -> ESI:
        """Fresh weights around a pretrained BERT, by hub name or local path."""
        bert, tokenizer = load_text_model(name_or_path)
        return cls(config, bert.config, tokenizer, bert=bert)

    @classmethod
    def from_captions(
        cls,
        config: ESIConfig,
        captions: Sequence[str],
        *,
        vocab_size: int,
        hidden: int,
        layers: int,
        heads: int,
        dropout: float = 0.0,
    ) -> ESI:
        """Fresh weights throughout, with a small BERT and a tokenizer learned from the captions."""
        tokenizer = train_wordpiece(captions, vocab_size)
        text_config = small_bert_config(
            len(tokenizer),
            hidden=hidden,
            layers=layers,
            heads=heads,
            max_tokens=config.max_tokens,
            dropout=dropout,
        )
        return cls(config, text_config, tokenizer)

    def checkpoint_activations(self) -> None:
        """Keep the inputs of blocks and layers only, and compute the rest again in the backward."""
        self.ecg.recompute = self.decoder.recompute = True
        self.text.bert.gradient_checkpointing_enable({"use_reentrant": False})

    def untrained_copy(self, seed: int) -> ESI:
        """The same architecture and tokenizer with fresh random weights: the baseline."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return ESI(self.config, copy.deepcopy(self.text_config), self.tokenizer).eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.logit_scale.device

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask``, ``(B, N)`` int64, cut to ``max_tokens``."""
        return tokenize(self.tokenizer, texts, self.config.max_tokens)

    def preprocess(
        self,
        ecg: ECGSource,
        fs: float | None = None,
        leads: Sequence[str] | None = None,
        unit: str | None = None,
    ) -> Tensor:
        """An ECG as people have it -> ``(12, num_samples)`` float32 mV at the model's rate.

        What :func:`esi_fast.signal.inputs.read_ecg` takes: a record, a path (WFDB, csv, npy, npz,
        EDF, DICOM), an array or a tensor; fewer leads, or others in their order, by its rules.
        Shorter recordings end in missing samples (NaN), longer ones are cut.

        Args:
            ecg: the recording.
            fs: rate in Hz, where the recording does not say it.
            leads: names of its signals in their order, by default its own or the standard twelve.
            unit: ``"mV"`` or ``"uV"``, where the recording does not say it; mV by default.

        Raises:
            FileNotFoundError: no such file.
            ModuleNotFoundError: the package that reads the format is not installed.
            ValueError: what is wrong with the recording, or has to be said of it.
        """
        return prepare_ecg(self.config, ecg, fs=fs, leads=leads, unit=unit)

    def ecg_tokens(self, ecg_BLT: Tensor) -> Tensor:
        """mV, NaN where missing, ``(B, 12, T)`` -> ``(B, T // 32, C)``."""
        scaled = torch.nan_to_num(ecg_BLT, nan=0.0) * self.config.ecg_scale
        return self.ecg.forward_features(scaled.to(self.ecg_projection.weight.dtype))

    def forward(
        self,
        ecg_BLT: Tensor,
        text_ids_BN: Tensor,
        text_mask_BN: Tensor,
        input_ids_BN: Tensor | None = None,
        attention_mask_BN: Tensor | None = None,
    ) -> ESIOutput:
        """A batch of ECGs, contrastive texts and captions -> what the two losses need.

        Args:
            ecg_BLT: mV, NaN where missing.
            text_ids_BN, text_mask_BN: the texts to align with: the captions or a part of them.
            input_ids_BN, attention_mask_BN: the captions; None leaves the decoder out.
        """
        tokens_BTC = self.ecg_tokens(ecg_BLT)
        ecg_BD = self.project_ecg(tokens_BTC)
        text_BD = self.text_embeddings(text_ids_BN, text_mask_BN)
        caption_loss = ecg_BD.new_zeros(())
        if input_ids_BN is not None and attention_mask_BN is not None:
            words_BNC = self.text.token_embeddings(input_ids_BN[:, :-1])
            labels_BN = input_ids_BN[:, 1:].masked_fill(attention_mask_BN[:, 1:] == 0, -1)
            caption_loss = self.decoder(words_BNC, tokens_BTC, labels_BN)
        return ESIOutput(
            ecg_BD=F.normalize(ecg_BD, dim=-1),
            text_BD=F.normalize(text_BD, dim=-1),
            logit_scale=_wide(self.logit_scale).clamp(max=MAX_LOGIT_SCALE).exp(),
            logit_bias=_wide(self.logit_bias),
            caption_loss=caption_loss,
        )

    def text_embeddings(self, input_ids_BN: Tensor, attention_mask_BN: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` of token ids, not of unit length; `encode_text` takes texts."""
        return _wide(self.text_projection(self.text(input_ids_BN, attention_mask_BN)))

    def project_ecg(self, tokens_BTC: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` of :meth:`ecg_tokens`, not of unit length."""
        if self.pool is None:
            pooled_BC = self.ecg.forward_head(tokens_BTC, pre_logits=True)
        else:
            pooled_BC = self.ecg.norm(self.pool(tokens_BTC))
        projected: Tensor = self.ecg_projection(pooled_BC)
        return _wide(projected)

    def caption_logits(self, ecg_BLT: Tensor, input_ids_BN: Tensor) -> Tensor:
        """Logits ``(B, N - 1, V)`` of captions: position n predicts token n + 1."""
        words_BNC = self.text.token_embeddings(input_ids_BN[:, :-1])
        logits: Tensor = self.decoder(words_BNC, self.ecg_tokens(ecg_BLT))
        return logits

    @torch.inference_mode()
    def encode_ecg(self, ecg_BLT: Tensor, normalize: bool = True) -> Tensor:
        """Embeddings ``(B, D)`` float32 of ECGs ``(B, 12, T)`` in mV (NaN where missing)."""
        ecg_BD = self.project_ecg(self.ecg_tokens(_checked(ecg_BLT).to(self.device)))
        return F.normalize(ecg_BD, dim=-1) if normalize else ecg_BD

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str], normalize: bool = True) -> Tensor:
        """Embeddings ``(B, D)`` float32 of texts.

        Raises:
            ValueError: a bare string, which would be taken letter by letter, or no text at all.
        """
        if isinstance(texts, str) or not texts:
            raise ValueError(f"texts must be a list of at least one string, not {texts!r}")
        batch = self.tokenize(texts)
        text_BD = self.text_embeddings(
            batch["input_ids"].to(self.device), batch["attention_mask"].to(self.device)
        )
        return F.normalize(text_BD, dim=-1) if normalize else text_BD

    @torch.inference_mode()
    def caption(self, ecg_BLT: Tensor) -> list[str]:
        """A caption of each ECG ``(B, 12, T)`` in mV: the likeliest next token, again and again."""
        tokens_BTC = self.ecg_tokens(_checked(ecg_BLT).to(self.device))
        batch = len(ecg_BLT)
        first, last = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        ids_BN = torch.full((batch, 1), first, device=self.device)
        done_B = torch.zeros(batch, dtype=torch.bool, device=self.device)
        while ids_BN.shape[1] < self.config.max_tokens and not done_B.all():
            words_BNC = self.text.token_embeddings(ids_BN)
            last_BD = self.decoder.states(words_BNC, tokens_BTC)[:, -1]
            next_B = self.decoder.to_logits(last_BD).argmax(-1)
            next_B = torch.where(done_B, self.tokenizer.pad_token_id, next_B)
            ids_BN = torch.cat([ids_BN, next_B[:, None]], dim=1)
            done_B |= next_B == last
        return [str(self.tokenizer.decode(ids, skip_special_tokens=True)) for ids in ids_BN]

    def save_architecture(self, folder: Path) -> None:
        """Everything but the weights: configurations and tokenizer."""
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save(folder / CONFIG_FILE)
        text_config = self.text_config.to_diff_dict()
        (folder / TEXT_CONFIG_FILE).write_text(json.dumps(text_config, indent=2) + "\n")
        self.tokenizer.save_pretrained(folder)

    @classmethod
    def from_architecture(cls, folder: Path) -> ESI:
        """A model with fresh weights, as :meth:`save_architecture` described it.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is damaged, or holds settings that cannot be or do not go together.
        """
        for name in (CONFIG_FILE, TEXT_CONFIG_FILE):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"{folder} lacks {name}: it is not an exported model (see tools/export)"
                )
        config = ESIConfig.load(folder / CONFIG_FILE)
        text_config = read_text_config(folder / TEXT_CONFIG_FILE)
        tokenizer = read_tokenizer(folder)
        try:
            return cls(config, text_config, tokenizer)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error

    def _save_pretrained(self, save_directory: Path) -> None:
        from safetensors.torch import save_file

        self.save_architecture(save_directory)
        weights = {name: value.contiguous() for name, value in self.state_dict().items()}
        save_file(weights, save_directory / WEIGHTS_FILE)
        # safetensors writes for the owner alone; an exported model is there to be shared.
        shutil.copymode(save_directory / CONFIG_FILE, save_directory / WEIGHTS_FILE)

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        """The card that the model came with, or one that says what it is, for the hub."""
        from esi_fast.models.card import model_card

        return ModelCard(self.card or model_card(self))

    @classmethod
    def from_pretrained(  # type: ignore[override]  # an unknown name is an error
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        map_location: str = "cpu",
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
    ) -> ESI:
        """An exported model, in evaluation mode.

        Args:
            pretrained_model_name_or_path: its folder, or its hub id.
            map_location: torch device.
            force_download, token, cache_dir, local_files_only, revision: as
                ``huggingface_hub.snapshot_download`` has them.

        Raises:
            FileNotFoundError: no such folder or model, or a file of it is missing.
            ValueError: a file is damaged, or the weights do not fit the configuration.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = model_folder(
            pretrained_model_name_or_path,
            force_download=force_download,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            revision=revision,
        )
        with torch.random.fork_rng(devices=[]):  # draws that are thrown away move no one's seed
            model = cls.from_architecture(folder)
        if not (folder / WEIGHTS_FILE).is_file():
            raise FileNotFoundError(f"{folder} lacks {WEIGHTS_FILE}: see tools/export")
        try:
            model.load_state_dict(load_file(folder / WEIGHTS_FILE, device=map_location))
        except (SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"{folder / WEIGHTS_FILE} does not fit config.json: {reason}"
            ) from error
        if (folder / CARD_FILE).is_file():
            model.card = (folder / CARD_FILE).read_text()
        return model.to(map_location).eval()


def _wide(x: Tensor) -> Tensor:
    """At least float32: what norms, similarities and exponentials need."""
    return x if x.dtype == torch.float64 else x.float()


def _checked(ecg_BLT: Tensor) -> Tensor:
    fits = isinstance(ecg_BLT, Tensor) and ecg_BLT.ndim == 3 and ecg_BLT.shape[1] == NUM_LEADS
    if not fits or ecg_BLT.shape[0] == 0 or ecg_BLT.shape[2] < TOKEN_STRIDE:
        shape = tuple(getattr(ecg_BLT, "shape", ()))
        raise ValueError(
            f"ECGs must be a tensor (B, {NUM_LEADS}, T), T >= {TOKEN_STRIDE}, not {shape}"
        )
    return ecg_BLT
