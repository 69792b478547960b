"""How every tool ends: one line for an error, exit 2 for usage and 1 for a failed run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

# Which extra brings a module, for the error that names the fix.
_EXTRA_OF_MODULE = {
    "wfdb": "data",
    "webdataset": "data",
    "tqdm": "data",
    "numba": "data",
    "transformers": "model",
    "tokenizers": "model",
    "safetensors": "model",
    "huggingface_hub": "model",
    "deepspeed": "train",
    "tyro": "train",
    "pydantic": "train",
    "tensorboard": "train",
    "peft": "train",
    "matplotlib": "plot",
    "sklearn": "eval",
    "jinja2": "eval",
    "scipy": "eval",
    "sacrebleu": "eval",
    "rouge_score": "eval",
    "edfio": "io",
    "pydicom": "io",
    "pyarrow": "io",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "onnx",
    "gradio": "view",
    "hnswlib": "cqa",
    "httpx": "cqa",
    "pypdf": "cqa",
}


class UsageError(ValueError):
    """The command line asks for something that cannot be: exit status 2."""


def run(main: Callable[[list[str]], int]) -> NoReturn:
    """Call ``main(arguments)`` and exit with its status; a known failure is one line on stderr."""
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except UsageError as error:
        status = _report(str(error), 2)
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF_MODULE.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        status = _report(f"{error.name} is not installed: pip install 'esi-fast[{extra}]'", 1)
    except BrokenPipeError:
        # The reader went away (| head). Point stdout elsewhere so that its flush at exit is quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except MemoryError as error:
        status = _report(f"out of memory: {error}", 1)
    except (ValueError, OSError) as error:
        status = _report(str(error), 1)
    except KeyboardInterrupt:
        status = _report("interrupted", 130)
    sys.exit(status)


def _report(message: str, status: int) -> int:
    one_line = " ".join(message.split())
    sys.stderr.write(f"tools/{Path(sys.argv[0]).name}: error: {one_line}\n")
    return status
