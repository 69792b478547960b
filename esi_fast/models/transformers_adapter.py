"""ESI behind Hugging Face's Auto classes: one call of :func:`register`, and they load its folders.

    from esi_fast.models.transformers_adapter import register

    register()
    model, processor = AutoModel.from_pretrained(DIR), AutoProcessor.from_pretrained(DIR)
    output = model(**processor(ecg="RECORD", text=["atrial fibrillation"]))

The weights, files and outputs are those of :class:`esi_fast.ESI`; the names are those of
``transformers.CLIPModel``, with an ECG in the place of the image.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    AutoProcessor,
    BatchFeature,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import ModelOutput

from esi_fast.models.esi import ESI, MAX_LOGIT_SCALE
from esi_fast.models.esi_config import CONFIG_FILE, MODEL_TYPE, ESIConfig
from esi_fast.models.loading import model_folder, read_tokenizer
from esi_fast.models.prepare import prepare_ecg, tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from esi_fast.signal.inputs import ECGSource

_HUB_ARGUMENTS = ("revision", "cache_dir", "force_download", "token", "local_files_only")


class EsiConfig(PreTrainedConfig):  # type: ignore[misc]  # its base is Any to mypy
    """The settings of ``config.json`` as attributes; see :class:`esi_fast.ESIConfig`."""

    model_type = MODEL_TYPE

    def settings(self) -> ESIConfig:
        """The same as ESI's own configuration."""
        known = {field.name for field in fields(ESIConfig)}
        return ESIConfig(**{name: getattr(self, name) for name in known if hasattr(self, name)})


@dataclass
class EsiOutput(ModelOutput):  # type: ignore[misc]
    """What :class:`EsiModel` gives; None where its input was not given.

    Attributes:
        logits_per_ecg: ``(B_ecg, B_text)``, as the contrastive loss sees them.
        logits_per_text: its transpose.
        ecg_embeds, text_embeds: ``(B, D)`` float32, of unit length.
        last_hidden_state: the ECG's tokens, ``(B, T // 32, C)``.
    """

    logits_per_ecg: Tensor | None = None
    logits_per_text: Tensor | None = None
    ecg_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    last_hidden_state: Tensor | None = None


class EsiModel(PreTrainedModel):  # type: ignore[misc]
    """ESI as a ``transformers`` model; ``.esi`` is the model itself, with ``caption`` and the rest.

    Args:
        config: of the model.
        esi: the model.
    """

    config_class = EsiConfig
    base_model_prefix = "esi"
    main_input_name = "input_values"

    def __init__(self, config: EsiConfig, esi: ESI | None = None) -> None:
        if esi is None:
            raise ValueError(
                "config.json alone makes no ESI, which needs its text encoder's settings and its "
                "tokenizer: use AutoModel.from_pretrained(DIR)"
            )
        super().__init__(config)
        self.esi = esi

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *_: Any,
        config: EsiConfig | None = None,
        dtype: torch.dtype | str | None = None,
        **arguments: Any,
    ) -> EsiModel:
        """Load an exported folder, or a model of the hub.

        Args:
            pretrained_model_name_or_path: as ``ESI.from_pretrained`` takes it.
            config: must be the folder's, which is read from it by default.
            dtype: of the weights, float32 by default (also for ``"auto"``).
            arguments: where and how to download: revision, cache_dir, force_download, token,
                local_files_only. Others have no meaning here and are errors.

        Raises:
            FileNotFoundError, ValueError: as ``ESI.from_pretrained``; or an argument is unknown.
        """
        hub = _hub_arguments("EsiModel", arguments)
        esi = ESI.from_pretrained(os.fspath(pretrained_model_name_or_path), **hub)
        own = asdict(esi.config)
        if config is None:
            config = EsiConfig(**own)
        asked = asdict(config.settings())
        if changed := [name for name, value in own.items() if asked[name] != value]:
            raise ValueError(
                f"{changed[0]} is {asked[changed[0]]!r} in config and {own[changed[0]]!r} in the "
                "model, whose weights were trained so"
            )
        if dtype not in (None, "auto"):
            esi.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
        return cls(config, esi).eval()

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        push_to_hub: bool = False,
    ) -> None:
        """Write the folder that ``ESI.save_pretrained`` writes.

        Args:
            save_directory: the folder.
            is_main_process: False writes nothing, as one of several processes must do it.
            state_dict: refused, as the model's own weights are written.
            push_to_hub: refused, as it is a method of its own.

        Raises:
            ValueError: ``state_dict`` or ``push_to_hub``.
        """
        if push_to_hub:
            raise ValueError("save_pretrained uploads nothing: call push_to_hub(REPO)")
        if state_dict is not None:
            raise ValueError("save_pretrained takes no state_dict: call load_state_dict first")
        if not is_main_process:
            return
        self.esi.save_pretrained(Path(save_directory))

    def push_to_hub(self, repo_id: str, **arguments: Any) -> str:
        """As ``ESI.push_to_hub``: the folder with the model's own card, not transformers'."""
        return self.esi.push_to_hub(repo_id, **arguments)

    def get_ecg_features(self, input_values: Tensor) -> Tensor:
        """Embeddings ``(B, D)``, not of unit length, of ECGs ``(B, 12, T)`` mV, NaN if missing."""
        return self.esi.project_ecg(self.esi.ecg_tokens(input_values))

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeddings ``(B, D)``, not of unit length, of token ids ``(B, N)``."""
        return self.esi.text_embeddings(input_ids, attention_mask)

    def forward(
        self,
        input_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_dict: bool | None = True,
    ) -> EsiOutput | tuple[Any, ...]:
        """ECGs, texts, or both.

        Args:
            input_values: ``(B, 12, T)`` mV, NaN where missing, at the model's rate.
            input_ids, attention_mask: ``(B, N)`` int64; a missing mask is all ones.
            return_dict: False gives a tuple of what is not None.

        Raises:
            ValueError: neither is given.
        """
        if input_values is None and input_ids is None:
            raise ValueError("give input_values (ECGs), input_ids (texts) or both")
        tokens_BTC = ecg_BD = text_BD = logits = None
        if input_values is not None:
            tokens_BTC = self.esi.ecg_tokens(input_values)
            ecg_BD = F.normalize(self.esi.project_ecg(tokens_BTC), dim=-1)
        if input_ids is not None:
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            text_BD = F.normalize(self.get_text_features(input_ids, mask), dim=-1)
        if ecg_BD is not None and text_BD is not None:
            scale = self.esi.logit_scale.float().clamp(max=MAX_LOGIT_SCALE).exp()
            logits = scale * ecg_BD @ text_BD.T + self.esi.logit_bias.float()
        output = EsiOutput(
            logits_per_ecg=logits,
            logits_per_text=None if logits is None else logits.T,
            ecg_embeds=ecg_BD,
            text_embeds=text_BD,
            last_hidden_state=tokens_BTC,
        )
        return output if return_dict in (None, True) else output.to_tuple()


class EsiProcessor:
    """ECGs and texts as :class:`EsiModel` takes them.

    Args:
        config: settings of the model.
        tokenizer: of its text encoder.
    """

    def __init__(self, config: ESIConfig, tokenizer: PreTrainedTokenizerFast) -> None:
        self.config = config
        self.tokenizer = tokenizer

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **arguments: Any
    ) -> EsiProcessor:
        """Read ``config.json`` and the tokenizer of an exported folder or of the hub.

        Args:
            pretrained_model_name_or_path: as ``ESI.from_pretrained`` takes it.
            arguments: as of :meth:`EsiModel.from_pretrained`.

        Raises:
            FileNotFoundError: no such folder or model, or a file of it is missing.
            ValueError: a file is damaged, or an argument is unknown.
        """
        hub = _hub_arguments("EsiProcessor", arguments)
        name = os.fspath(pretrained_model_name_or_path)
        folder = model_folder(name, allow_patterns="*.json", **hub)  # without the weights
        return cls(ESIConfig.load(folder / CONFIG_FILE), read_tokenizer(folder))

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and the tokenizer."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save(folder / CONFIG_FILE)
        self.tokenizer.save_pretrained(folder)

    def __call__(
        self,
        ecg: ECGSource | Sequence[ECGSource] | None = None,
        text: str | Sequence[str] | None = None,
        *,
        fs: float | None = None,
        leads: Sequence[str] | None = None,
        unit: str | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Prepare ECGs, texts, or both.

        Args:
            ecg: a recording as ``ESI.preprocess`` takes it, or a list or tuple of them; an array of
                numbers is one recording.
            text: a text, or several.
            fs, leads, unit: of every recording, where it does not say them.
            return_tensors: only ``"pt"`` is known.

        Returns:
            ``input_values (B, 12, T)`` float32; ``input_ids`` and ``attention_mask (B, N)`` int64.

        Raises:
            ValueError: neither is given, a list is empty, or what ``ESI.preprocess`` raises.
        """
        for name, given in (("ecg", ecg), ("text", text)):
            if isinstance(given, list | tuple) and not given:
                raise ValueError(f"{name} is empty: give one or more")
        if return_tensors not in ("pt", None):
            raise ValueError(f"return_tensors is {return_tensors!r}; only 'pt' is known")
        if ecg is None and text is None:
            raise ValueError("give ecg, text or both")
        features: dict[str, Tensor] = {}
        if ecg is not None:
            many: Sequence[Any] = ecg if isinstance(ecg, list | tuple) else [ecg]
            features["input_values"] = torch.stack(
                [prepare_ecg(self.config, one, fs=fs, leads=leads, unit=unit) for one in many]
            )
        if text is not None:
            texts = [text] if isinstance(text, str) else text
            features |= tokenize(self.tokenizer, texts, self.config.max_tokens)
        return BatchFeature(features)

    def batch_decode(self, *arguments: Any, **options: Any) -> list[str]:
        """Token ids to texts, as the tokenizer does it."""
        texts: list[str] = self.tokenizer.batch_decode(*arguments, **options)
        return texts


def _hub_arguments(owner: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Those that say where and how to download; others, but for the Auto classes' own, raise."""
    given = {name: value for name, value in arguments.items() if value not in (None, False)}
    unknown = sorted(set(given) - set(_HUB_ARGUMENTS) - {"_from_auto", "adapter_kwargs"})
    if unknown:
        raise ValueError(f"{owner}.from_pretrained takes no {', '.join(unknown)}")
    return {name: given[name] for name in _HUB_ARGUMENTS if name in given}


def register() -> None:
    """Make ``AutoConfig``, ``AutoModel`` and ``AutoProcessor`` know models of type ``esi``.

    May be called again.
    """
    AutoConfig.register(MODEL_TYPE, EsiConfig, exist_ok=True)
    AutoModel.register(EsiConfig, EsiModel, exist_ok=True)
    AutoProcessor.register(EsiConfig, EsiProcessor, exist_ok=True)
