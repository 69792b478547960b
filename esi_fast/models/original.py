"""The published ESI, quirk by quirk: weights in its layout give equal embeddings and logits.

After "ECG Semantic Integrator" (Yu, Guo & Sano, TMLR 2024) as its code computes it, which is not
always what the paper means: the caption decoder reads BERT's *bidirectional* states and so sees the
token that it predicts; its view of the ECG is one pooled vector; the encoder's first norms take the
voltage out. :class:`esi_fast.ESI` is the arithmetic to train with; this one serves weights that
exist, and comparisons with them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esi_fast.leads import NUM_LEADS, STANDARD_LEADS, lead_indices
from esi_fast.models.convnext1d import TOKEN_STRIDE
from esi_fast.models.original_parts import DecoderLayer, GammaNorm, OriginalEncoder
from esi_fast.models.original_weights import (
    OriginalConfig,
    check_fit,
    in_layout,
    measure,
    read_weights,
    text_sizes,
)

if TYPE_CHECKING:
    import numpy.typing as npt
    from transformers import PreTrainedTokenizerFast

    from esi_fast.signal.records import ECGRecord

# The order in the files of MIMIC-IV-ECG, in which the published model was trained.
ORIGINAL_LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
_PAD = 0  # the published loss takes it for granted


class OriginalLosses(NamedTuple):
    """The published training loss, scalars: ``total`` is the sum of the other two."""

    total: Tensor
    caption: Tensor
    contrastive: Tensor


class OriginalESI(nn.Module):
    """ECGs and texts in one space, and logits of captions, as the published code has them.

    Every method takes ECGs ``(B, 12, T)`` float32 as :meth:`preprocess` makes them: 500 Hz,
    z-scored per record, leads in the order of :data:`ORIGINAL_LEADS` (aVF *before* aVL). Raw
    millivolts in the standard order belong into :meth:`preprocess` and nowhere else.

    Args:
        config: sizes.
        bert: a ``transformers.BertModel`` without pooler.
        tokenizer: its fast tokenizer, for texts; None takes token ids only.

    Attributes:
        unused: names in the loaded file that no output depends on.

    Raises:
        ValueError: the tokenizer has more tokens than the text encoder.
    """

    def __init__(
        self,
        config: OriginalConfig,
        bert: Any,
        tokenizer: PreTrainedTokenizerFast | None = None,
    ) -> None:
        super().__init__()
        vocab_size, dim = bert.config.vocab_size, config.embed_dim
        if tokenizer is not None and len(tokenizer) > vocab_size:
            raise ValueError(
                f"the tokenizer has {len(tokenizer)} tokens, the text encoder {vocab_size}"
            )
        self.config = config
        self.tokenizer = tokenizer
        self.unused: tuple[str, ...] = ()
        self.temperature = nn.Parameter(torch.ones(1))
        self.img_encoder = OriginalEncoder(config.depths, config.channels)
        self.img_token_head = nn.Linear(config.channels[-1], dim)
        self.img_attn_pool_norm = GammaNorm(dim)
        self.img_to_latents = nn.ModuleDict({"to_latents": nn.Linear(dim, dim, bias=False)})
        self.text_to_latents = nn.ModuleDict({"to_latents": nn.Linear(dim, dim, bias=False)})
        self.pretrained_text_encoder = bert
        widths = (dim, config.decoder_heads, config.head_dim, config.ff_dim)
        self.multimodal_layers = nn.ModuleList(
            DecoderLayer(*widths) for _ in range(config.decoder_layers)
        )
        self.to_logits = nn.Sequential(GammaNorm(dim), nn.Linear(dim, vocab_size, bias=False))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.temperature.device

    def untrained_copy(self, seed: int) -> OriginalESI:
        """The same architecture and tokenizer with fresh random weights: the baseline."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            bert = type(self.pretrained_text_encoder)(
                copy.deepcopy(self.pretrained_text_encoder.config), add_pooling_layer=False
            )
            return OriginalESI(self.config, bert, self.tokenizer).eval()

    def preprocess(
        self, ecg: ECGRecord | npt.ArrayLike | Tensor, fs: float | None = None
    ) -> Tensor:
        """Millivolts -> what the other methods take: the only place that moves leads.

        Resampled to 500 Hz; the first 10 s; missing samples (NaN, and what a shorter record lacks)
        become the mean of their lead, as in the published loader, and a lead without any sample,
        where that one stops, becomes 0; then minus the mean over the whole record, all leads
        together, over the unbiased deviation + 1e-6.

        Args:
            ecg: a record, whose leads are found by name, or ``(12, T)`` or ``(B, 12, T)`` mV with
                leads in the standard order.
            fs: Hz of an array; a record knows its own.

        Returns:
            ``(12, 5000)`` or ``(B, 12, 5000)`` float32, leads as in :data:`ORIGINAL_LEADS`.

        Raises:
            ValueError: a lead is absent, or an array has another shape or no rate.
        """
        import numpy as np

        from esi_fast.signal.records import ECGRecord
        from esi_fast.signal.resample import resample

        if isinstance(ecg, ECGRecord):
            signal, rate, leads = ecg.signal, ecg.fs, ecg.leads
        else:
            signal = ecg.cpu().numpy() if isinstance(ecg, Tensor) else np.asarray(ecg)
            leads = STANDARD_LEADS
            if signal.ndim not in (2, 3) or signal.shape[-2] != NUM_LEADS:
                raise ValueError(f"ECGs must be (12, T) or (B, 12, T), not {signal.shape}")
            if fs is None:
                raise ValueError("an array does not tell its rate: give fs, in Hz")
            rate = fs
        order = lead_indices(leads, ORIGINAL_LEADS)
        resampled = resample(signal[..., order, :], rate, self.config.fs)
        x = torch.from_numpy(resampled[..., : self.config.num_samples]).double()
        x = F.pad(x, (0, self.config.num_samples - x.shape[-1]), value=torch.nan)
        lead_mean = x.nanmean(dim=-1, keepdim=True).nan_to_num(nan=0.0)
        x = torch.where(x.isnan(), lead_mean, x)
        std, mean = torch.std_mean(x, dim=(-2, -1), keepdim=True)
        return ((x - mean) / (std + 1e-6)).float()

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask``, ``(B, N)`` int64, cut to ``max_tokens``.

        Raises:
            ValueError: the model has no tokenizer, or texts is a bare string or empty.
        """
        if self.tokenizer is None:
            raise ValueError("no tokenizer: give load_original one, or token ids in place of texts")
        if isinstance(texts, str) or not texts:
            raise ValueError(f"texts must be a list of at least one string, not {texts!r}")
        positions = int(self.pretrained_text_encoder.config.max_position_embeddings)
        encoded = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=min(self.config.max_tokens, positions),
            return_tensors="pt",
        )
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def embed_ecg(self, ecg_BLT: Tensor) -> Tensor:
        """Preprocessed ECGs -> ``(B, D)``, before the projection: the decoder's whole view of them.

        Raises:
            ValueError: not ``(B, 12, T)``, or T below 32.
        """
        fits = isinstance(ecg_BLT, Tensor) and ecg_BLT.ndim == 3 and ecg_BLT.shape[1] == NUM_LEADS
        if not fits or ecg_BLT.shape[0] == 0 or ecg_BLT.shape[2] < TOKEN_STRIDE:
            shape = tuple(getattr(ecg_BLT, "shape", ()))
            raise ValueError(f"ECGs must be a tensor (B, 12, T), T >= {TOKEN_STRIDE}, not {shape}")
        pooled_BC = self.img_encoder(ecg_BLT.to(self.device, self.temperature.dtype))
        return self.img_attn_pool_norm(self.img_token_head(pooled_BC))

    def embed_text(
        self, texts: Sequence[str] | Tensor, attention_mask_BN: Tensor | None = None
    ) -> Tensor:
        """Texts -> ``(B, D)``, before the projection: BERT's state at [CLS], without a norm.

        Args:
            texts: strings, or token ids ``(B, N)`` int64 with [CLS] first.
            attention_mask_BN: of the ids, 0 at padding; None masks id 0.

        Raises:
            ValueError: see :meth:`tokenize`; ids or mask of a wrong shape or dtype, or a mask for
                strings.
        """
        if not isinstance(texts, Tensor):
            if attention_mask_BN is not None:
                raise ValueError("attention_mask belongs to token ids; texts make their own")
            batch = self.tokenize(texts)
            texts, attention_mask_BN = batch["input_ids"], batch["attention_mask"]
        return self._states(texts, attention_mask_BN)[:, 0]

    @torch.inference_mode()
    def encode_ecg(self, ecg_BLT: Tensor, normalize: bool = True) -> Tensor:
        """Embeddings ``(B, D)`` of ECGs ``(B, 12, T)`` from :meth:`preprocess` (aVF before aVL).

        Raises:
            ValueError: not ``(B, 12, T)``, T below 32, or samples are missing.
        """
        if isinstance(ecg_BLT, Tensor) and ecg_BLT.isnan().any():
            raise ValueError("NaN in the ECGs: give them through preprocess")
        ecg_BD = self.img_to_latents["to_latents"](self.embed_ecg(ecg_BLT))
        return F.normalize(ecg_BD, dim=-1) if normalize else ecg_BD

    @torch.inference_mode()
    def encode_text(
        self,
        texts: Sequence[str] | Tensor,
        attention_mask_BN: Tensor | None = None,
        *,
        normalize: bool = True,
    ) -> Tensor:
        """Embeddings ``(B, D)`` of texts; arguments as in :meth:`embed_text`."""
        text_BD = self.text_to_latents["to_latents"](self.embed_text(texts, attention_mask_BN))
        return F.normalize(text_BD, dim=-1) if normalize else text_BD

    def caption_logits(
        self, ecg_BLT: Tensor, input_ids_BN: Tensor, attention_mask_BN: Tensor | None = None
    ) -> Tensor:
        """Logits ``(B, N - 1, V)``; position n predicts token n + 2, *which it has seen*.

        BERT reads all N ids in both directions, so every logit depends on every token that is not
        masked. Only the last position predicts something new, the token behind the last.

        Args:
            ecg_BLT: as in :meth:`encode_ecg`.
            input_ids_BN: ``(B, N)`` int64, [CLS] first, N of at least 2.
            attention_mask_BN: 0 at padding; None masks id 0.

        Raises:
            ValueError: shapes or dtypes do not fit.
        """
        states_BND = self._states(input_ids_BN, attention_mask_BN)
        return self._decode(states_BND, self.embed_ecg(ecg_BLT))

    def losses(
        self, ecg_BLT: Tensor, input_ids_BN: Tensor, attention_mask_BN: Tensor | None = None
    ) -> OriginalLosses:
        """The published training loss: arguments as in :meth:`caption_logits`, N of at least 3.

        The last column of ids and mask is dropped first, from the contrastive text, too. Caption:
        cross-entropy with ids 2 to N - 1, averaged where the id is not 0. Contrastive: the mean of
        both directions over this batch alone, logits times exp(temperature).

        Raises:
            ValueError: shapes or dtypes do not fit.
        """
        mask_BN = None if attention_mask_BN is None else attention_mask_BN[:, :-1]
        states_BND = self._states(input_ids_BN[:, :-1], mask_BN)
        ecg_BD = self.embed_ecg(ecg_BLT)
        logits_BNV = self._decode(states_BND, ecg_BD)
        labels_BN = input_ids_BN[:, 2:].to(self.device)
        caption = F.cross_entropy(logits_BNV.transpose(1, 2), labels_BN, ignore_index=_PAD)
        text_BD = F.normalize(self.text_to_latents["to_latents"](states_BND[:, 0]), dim=-1)
        ecg_BD = F.normalize(self.img_to_latents["to_latents"](ecg_BD), dim=-1)
        similarity_BB = self.temperature.exp() * (text_BD @ ecg_BD.T)
        own_B = torch.arange(len(ecg_BD), device=self.device)
        both = F.cross_entropy(similarity_BB, own_B) + F.cross_entropy(similarity_BB.T, own_B)
        return OriginalLosses(caption + both / 2, caption, both / 2)

    def caption(self, ecg_BLT: Tensor) -> list[str]:
        """Refused: what this decoder learned is to copy a text that it is shown.

        Its input are BERT's states of the whole caption, so there is none before the caption is
        known, and none at all for the first word. Feeding it a growing text would run it as it was
        never trained, and print words that mean nothing.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "the published decoder reads the caption that it should write, so it cannot write one: "
            "caption with esi_fast.ESI, or score given captions with caption_logits"
        )

    def _states(self, input_ids_BN: Tensor, attention_mask_BN: Tensor | None) -> Tensor:
        positions = self.pretrained_text_encoder.config.max_position_embeddings
        if input_ids_BN.ndim != 2 or input_ids_BN.is_floating_point() or input_ids_BN.numel() == 0:
            shape = tuple(input_ids_BN.shape)
            raise ValueError(f"token ids must be (B, N) integers, not {shape} {input_ids_BN.dtype}")
        if input_ids_BN.shape[1] > positions:
            raise ValueError(f"{input_ids_BN.shape[1]} tokens; there are {positions} positions")
        mask_BN = input_ids_BN != _PAD if attention_mask_BN is None else attention_mask_BN
        if mask_BN.shape != input_ids_BN.shape:
            raise ValueError(
                f"attention_mask is {tuple(mask_BN.shape)}, input_ids {tuple(input_ids_BN.shape)}"
            )
        ids_BN, mask_BN = input_ids_BN.to(self.device), mask_BN.to(self.device)
        output = self.pretrained_text_encoder(input_ids=ids_BN, attention_mask=mask_BN)
        return output.last_hidden_state

    def _decode(self, states_BND: Tensor, ecg_BD: Tensor) -> Tensor:
        if len(states_BND) != len(ecg_BD) or states_BND.shape[1] < 2:
            raise ValueError(
                f"{len(ecg_BD)} ECGs, {len(states_BND)} captions of {states_BND.shape[1]} tokens: "
                "as many of each, and at least one token behind [CLS]"
            )
        x_BND = states_BND[:, 1:]
        for layer in self.multimodal_layers:
            x_BND = layer(x_BND, ecg_BD)
        return self.to_logits(x_BND)


def load_original(
    path: str | Path,
    *,
    text_config: Any = None,
    tokenizer: PreTrainedTokenizerFast | str | Path | None = None,
) -> OriginalESI:
    """A published ESI from weights in its layout.

    Sizes are read from the shapes. No code in a file is run.

    Args:
        path: a safetensors file, a torch file of a ``state_dict()``, an ``*.index.json`` of parts,
            or a folder with one of them.
        text_config: a ``transformers.BertConfig``; None takes BERT's defaults and heads of width
            64, which fits BioLinkBERT.
        tokenizer: for texts: a fast tokenizer, or its name or folder. Token ids need none.

    Returns:
        The model, float32, in evaluation mode. ``unused`` lists the names in the file that no
        output of the published code depends on.

    Raises:
        FileNotFoundError: there is no such path, or no weights or not all parts in it.
        ValueError: the file is damaged or pickles code; the encoder is no ConvNeXt; names are
            missing or unknown or shapes wrong, of which the message has a few.
    """
    from transformers import AutoTokenizer, BertConfig, BertModel

    source = Path(path)
    weights = read_weights(source)
    if isinstance(tokenizer, str | Path):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    try:
        state, unused = in_layout(weights)
        config = measure(state)
        text_config = BertConfig(**text_sizes(state)) if text_config is None else text_config
        with torch.random.fork_rng(devices=[]):  # draws that are thrown away move no one's seed
            bert = BertModel(text_config, add_pooling_layer=False)
        with torch.device("meta"):  # every parameter comes from the file
            model = OriginalESI(config, bert, tokenizer)
        check_fit(state, model.state_dict())
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    # A safetensors file stays mapped: without copies, writing to it later would change the model.
    model.load_state_dict({name: value.clone() for name, value in state.items()}, assign=True)
    model.unused = unused
    return model.eval()
