"""Recipes: dataclasses, read strictly from TOML, overridden on the command line.

A recipe is one table for each group below, and a ``[deepspeed]`` table that goes to DeepSpeed as it
is. An unknown key or a value of the wrong type is an error that names it. Every field is also a
flag: ``--optim.lr 1e-4``.
"""

from __future__ import annotations

import argparse
import difflib
import json
import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import tyro

from esi_fast.cli import UsageError
from esi_fast.recipe_rules import check_ranges

# In the package, so that an installed one has them; tools/recipes is a link to it.
RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class ModelConfig:
    """Sizes."""

    encoder: str = "convnextv2_base"
    """ECG encoder: a name of list_models."""
    drop_path: float = 0.1
    """Stochastic depth of the ECG encoder."""
    embed_dim: int = 512
    """Width of the shared embedding space."""
    pooling: Literal["mean", "attention"] = "mean"
    """How the ECG's tokens become one vector."""
    max_tokens: int = 256
    """Captions are cut to this many tokens."""
    text_model: str = "michiyasunaga/BioLinkBERT-base"
    """A BERT by hub name or local path; bert:64x2x1500 is a fresh one of width 64 and 2 layers with
    a vocabulary of 1500 learned from the captions."""
    text_mode: str = "train"
    """Train the BERT; keep it frozen; or train adapters of a rank beside it: lora:8."""
    decoder_dim: int = 768
    """Caption decoder: width."""
    decoder_layers: int = 6
    """Caption decoder: layers."""


@dataclass(frozen=True)
class DataConfig:
    """Where the batches come from."""

    shards: tuple[str, ...] = ()
    """Folders that tools/shard wrote; or URLs of tars (https://, s3://, pipe:), to be streamed."""
    captions: Path | None = None
    """JSON lines of key and caption that replace the captions in the shards."""
    batch_size: int = 64
    """Records a step on each process."""
    sentence_sampling: float = 0.5
    """Share of the contrastive texts that are one to three sentences of the caption."""
    shuffle: Literal["full", "block", "none"] = "full"
    """Of all records; or of shards, and within a few of them, for disks that seek slowly."""
    pool_batches: int = 0
    """Sort this many global batches by length of caption before cutting them: less padding."""
    crop: float = 0.0
    """Seconds taken of each record, at a place drawn anew each epoch; 0 takes all."""
    on_error: Literal["raise", "skip"] = "raise"
    """Stop at a damaged sample, or put another in its place and count it."""
    samples_per_epoch: int = 0
    """Records an epoch, of streamed shards: a stream does not tell how many it has."""


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of the ECGs (esi_fast.data.augment_signal); all are off by default."""

    jitter_uv: float = 0.0
    """Standard deviation of white noise, uV."""
    scaling: float = 0.0
    """Standard deviation of the logarithm of each lead's gain."""
    lead_dropout: float = 0.0
    """Probability of each lead to be dropped; never all of them."""
    wander_uv: float = 0.0
    """Baseline wander up to this level, uV RMS."""
    mains_uv: float = 0.0
    """50 or 60 Hz up to this level, uV RMS."""
    time_mask: float = 0.0
    """Largest share of the record masked in one stretch."""


@dataclass(frozen=True)
class OptimConfig:
    """AdamW, and a learning rate that warms up and then steps down."""

    lr: float = 5e-5
    """Peak learning rate."""
    weight_decay: float = 0.01
    """On matrices only."""
    warmup_epochs: float = 5.0
    """Linear warm-up."""
    decay_epochs: float = 10.0
    """The learning rate steps down every so many epochs; 0 is never."""
    decay_factor: float = 0.1
    """... by this factor."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    beta1: float = 0.9
    """Decay a step of the mean of gradients."""
    beta2: float = 0.98
    """Decay a step of the mean of their squares."""
    eps: float = 1e-6
    """Added to the root of that mean."""


@dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    epochs: float = 30.0
    """How long."""
    seed: int = 0
    """Of weights, order and dropout."""
    contrast: Literal["soft", "clip", "sigmoid"] = "soft"
    """Contrastive loss: CLIP's where records with equal findings are not each other's negatives;
    CLIP's; or SigLIP's, pair by pair, where they are each other's matches."""
    captioning_weight: float = 1.0
    """Weight of the captioning loss; the contrastive loss has 1."""
    micro_batches: int = 1
    """Run the batch in so many parts, with the negatives and gradients of the whole."""
    checkpoint_activations: Annotated[bool, tyro.conf.FlagConversionOff] = False
    """Compute activations again in the backward pass: less memory, more time."""
    log_every: int = 10
    """Steps between console lines."""
    save_every: int = 1000
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """How many of the last checkpoints stay; the best one stays too."""
    validate_every: int = 1000
    """Steps between validations on the shards' val split, and one at the end; 0 is never."""


@dataclass(frozen=True)
class Recipe:
    """Everything that defines a pretraining run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    deepspeed: Annotated[dict[str, Any], tyro.conf.Suppress] = field(default_factory=dict)
    """Handed to DeepSpeed as it is; ZeRO-1 and bf16 if it does not say otherwise."""


@dataclass(frozen=True)
class Invocation(Recipe):
    """Pretrain ESI on shards; start it with deepspeed, torchrun or plain python."""

    out: Path = Path()
    """The run folder to make; an existing one is continued with --resume, never overwritten."""
    recipe: str | None = None
    """A TOML file, or the name of one in tools/recipes; the flags below override it."""
    resume: str | None = None
    """Continue from 'latest', 'best' or a checkpoint by name."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print what the run would be, take and cost, and stop."""
    profile: str | None = None
    """FIRST:LAST, steps to profile; a trace for Perfetto goes to the run folder."""
    deepspeed_config: Path | None = None
    """A DeepSpeed JSON file in place of the recipe's [deepspeed] table."""


def parse_pretrain(argv: list[str]) -> Invocation:
    """Read the command line of ``tools/pretrain.py``.

    Raises:
        UsageError: an unknown recipe key, a wrong value, a missing file.
        SystemExit: an unknown flag or ``--help``, by tyro.
    """
    # DeepSpeed's launcher puts it before everything else; the rank comes from the environment.
    argv = [item for item in argv if not item.startswith(("--local_rank=", "--local-rank="))]
    files = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    files.add_argument("--recipe")
    files.add_argument("--deepspeed-config", "--deepspeed_config", type=Path)
    files.add_argument("--out", type=Path)
    files.add_argument("--resume")
    named, _ = files.parse_known_args(argv)
    saved = _saved_tables(named.out) if named.resume and named.out else None
    tables = _read_recipe(named.recipe) if named.recipe else dict(saved or {})
    if named.deepspeed_config:
        tables["deepspeed"] = _read_json(named.deepspeed_config)
    recipe = _validate(tables)
    groups = {item.name: getattr(recipe, item.name) for item in fields(Recipe)}
    invocation = tyro.cli(
        Invocation,
        prog="tools/pretrain.py",
        default=Invocation(**groups),
        args=argv,
    )
    if invocation.out == Path() and not invocation.dry_run:
        raise UsageError("--out is missing: name the run folder to make")
    check_ranges(invocation)
    if saved is not None:
        _refuse_changes(invocation, _validate(saved))
    return invocation


def saved_recipe(run: Path) -> Recipe:
    """The recipe that a run folder was made with.

    Raises:
        UsageError: it is no run folder.
    """
    return _validate(_saved_tables(run))


def _saved_tables(run: Path) -> dict[str, Any]:
    path = run / "recipe.toml"
    if not path.is_file():
        raise UsageError(f"--resume: {run} is not a run folder (no recipe.toml)")
    return tomllib.loads(path.read_text())


# What a resumed run may do differently without becoming another run.
_FREE_ON_RESUME = {
    "data.shards",
    "data.on_error",
    "train.epochs",
    "train.log_every",
    "train.save_every",
    "train.keep_checkpoints",
    "train.validate_every",
    # Of a step over all processes, and how it is run: the tool compares these with the run's.
    "data.batch_size",
    "train.micro_batches",
}


def _refuse_changes(recipe: Recipe, saved: Recipe) -> None:
    for group in fields(Recipe):
        now, then = getattr(recipe, group.name), getattr(saved, group.name)
        if isinstance(now, dict):
            if now != then:
                raise UsageError(f"--resume: [{group.name}] differs from the run's own recipe")
            continue
        for item in fields(now):
            name = f"{group.name}.{item.name}"
            before, after = getattr(then, item.name), getattr(now, item.name)
            if before != after and name not in _FREE_ON_RESUME:
                raise UsageError(f"--resume: {name} was {before} in this run and is now {after}")


def _read_recipe(name: str) -> dict[str, Any]:
    path = Path(name)
    if not path.suffix:
        path = RECIPES / f"{name}.toml"
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise UsageError(f"recipe {name} does not exist; tools/recipes has {known}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"recipe {path} is not a TOML file: {error}") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise UsageError(f"--deepspeed-config {path} does not exist") from None
    except json.JSONDecodeError as error:
        raise UsageError(f"--deepspeed-config {path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"--deepspeed-config {path} must hold one JSON object")
    return content


def _validate(tables: dict[str, Any]) -> Recipe:
    from pydantic import TypeAdapter, ValidationError

    _refuse_unknown(tables)
    adapter = TypeAdapter(Recipe)
    try:
        # As JSON: strict about numbers and booleans, yet a list may become a tuple of paths.
        recipe = adapter.validate_json(json.dumps(tables), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where} = {first['input']!r}: {first['msg']}") from None
    check_ranges(recipe)
    return recipe


def _refuse_unknown(tables: dict[str, Any]) -> None:
    owners = get_type_hints(Recipe)
    for name, table in tables.items():
        _check_key(name, list(owners), name)
        if not isinstance(table, dict):
            raise UsageError(f"{name} = {table!r}: must be a table, [{name}]")
        if name != "deepspeed":
            known = [item.name for item in fields(owners[name])]
            for key in table:
                _check_key(key, known, f"{name}.{key}")


def _check_key(key: str, known: list[str], where: str) -> None:
    if key not in known:
        nearest = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(known)}"
        raise UsageError(f"unknown recipe key {where}; {hint}")


def to_toml(recipe: Recipe) -> str:
    """The resolved recipe as TOML that reads back equal."""
    lines: list[str] = []

    def write(table: dict[str, Any], name: str) -> None:
        lines.append(f"[{name}]")
        nested = {key: value for key, value in table.items() if isinstance(value, dict)}
        for key, value in table.items():
            if key not in nested and value is not None:
                lines.append(f"{key} = {_toml_value(value)}")
        lines.append("")
        for key, value in nested.items():
            write(value, f"{name}.{key}")

    for group in fields(Recipe):
        value = getattr(recipe, group.name)
        write(value if isinstance(value, dict) else asdict(value), group.name)
    return "\n".join(lines)


def _toml_value(value: Any) -> str:
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    # TOML's strings, numbers and booleans are written as JSON's.
    return json.dumps(value, ensure_ascii=False)
