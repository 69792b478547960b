"""Model folders: where one is, and what of it can be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import BertConfig, PreTrainedTokenizerFast


def model_folder(name: str | Path, **hub: Any) -> Path:
    """The folder of a model: a local one, or that of a download from the hub.

    Args:
        name: a folder, or a hub id such as ``lab/model``.
        hub: what ``huggingface_hub.snapshot_download`` takes beside the name.

    Raises:
        FileNotFoundError: there is no such folder, and the hub has no such model or is not reached.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    if folder.is_absolute() or str(name).startswith((".", "~")) or len(folder.parts) > 2:
        raise FileNotFoundError(f"{name}: no such folder")
    try:
        return Path(snapshot_download(str(name), **hub))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FileNotFoundError(
            f"{name}: no such folder, and no model of that name from the hub: {reason}"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The content of a file of a model folder.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON object, it is damaged: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no JSON object: it is not an exported model's")
    return content


def read_text_config(path: Path) -> BertConfig:
    """The settings of a text encoder.

    Raises:
        ValueError: the file is damaged, or a setting is not what BERT can have.
    """
    from transformers import BertConfig

    settings = read_json(path)
    try:
        return BertConfig.from_dict(settings)
    except Exception as error:  # the library's own, whatever in the file it stumbles on
        raise ValueError(f"{path} does not describe a BERT: {_one_line(error)}") from error


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a model folder.

    Raises:
        FileNotFoundError: one of its files is missing.
        ValueError: one of them is damaged.
    """
    from transformers import PreTrainedTokenizerFast

    for name in ("tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} lacks {name}: it is not an exported model")
        read_json(folder / name)
    try:
        # Not AutoTokenizer, which reads config.json, too, and warns of a model type unknown to it.
        return PreTrainedTokenizerFast.from_pretrained(folder)
    except Exception as error:  # the library's own, whatever in the file it stumbles on
        raise ValueError(
            f"{folder / 'tokenizer.json'} is no tokenizer: {_one_line(error)}"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
