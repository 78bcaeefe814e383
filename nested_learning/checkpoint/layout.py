"""What is where in a checkpoint, and reading it: found, verified, or refused with the way out."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

try:
    # ten times as fast, and in most wheels
    from yaml import CSafeDumper as Dumper
    from yaml import CSafeLoader as Loader
except ImportError:
    from yaml import SafeDumper as Dumper
    from yaml import SafeLoader as Loader

from nested_learning.errors import CheckpointError
from nested_learning.files import hash_file, write_atomic
from nested_learning.world.world import World

FOLDER = "checkpoints"
LATEST = "latest"

MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"
CONFIG, PROGRESS, CARD, HASHES = "config.yaml", "progress.json", "README.md", "hashes.json"
# what a directory is called until it is whole
DRAFT = ".draft_"
# the world of a process that is asked by itself
ALONE = World(0, 1, 0, torch.device("cpu"), "gloo")


@dataclass(kw_only=True)
class Progress:
    """How far a run is. Nothing random is in it: data order and every generator are functions of the seed and the step.

    `seconds`: of training, without validation and saving; `cpu_seconds`: those that this process kept processors busy,
    all threads added up; `source`, `tokenizer`: fingerprints of the data; `metrics`: the last value of each figure;
    `best`: the figures of the best validation, by loss; `phases`: seconds by phase; `lost`: seconds that were spent on
    what was thrown away; `skipped`: the steps, counted from 1, whose batches were left out;
    `loss_scale`, `scaled_steps`, `overflows`: of float16, the scale of the loss, how many steps went well since it last
    changed, and how many were left out because it was too large.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    seed: int
    source: str
    tokenizer: str | None
    metrics: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    lost: float = 0.0
    skipped: list[int] = field(default_factory=list)
    loss_scale: float = 1.0
    scaled_steps: int = 0
    overflows: int = 0


def find(path: Path) -> Path:
    """Return the checkpoint directory that `path` means: itself, or the latest of a run directory.

    Raises CheckpointError when there is none.
    """
    if (path / PROGRESS).is_file() or (path / HASHES).is_file():
        return path
    pointer = path / FOLDER / LATEST
    if not pointer.is_file():
        raise CheckpointError(
            f"{path}: no checkpoint here; give a run directory or one of its {FOLDER}/step_* directories"
        )
    target = pointer.parent / pointer.read_text(encoding="utf-8").strip()
    if not target.is_dir() and target.name.startswith(DRAFT):
        # killed after a draft that `latest` names got its name, and before `latest` was told
        target = target.with_name(target.name.removeprefix(DRAFT))
    if not target.is_dir():
        raise CheckpointError(f"{pointer}: names {target.name}, which is missing; {way_out(target)}")
    return target


def has_checkpoint(run: Path) -> bool:
    """Say whether `run` has saved a checkpoint."""
    return (run / FOLDER / LATEST).is_file()


def parts_of(file: Path) -> Path:
    """Return the folder that stands in the place of `file`, of tensors, where each process wrote its parts."""
    return file.with_suffix("")


def verify(directory: Path, world: World = ALONE) -> None:
    """Check every file of a checkpoint against its sha256. Raises CheckpointError naming the file.

    Several processes share the files out, and all of them learn what one finds.
    """
    hashes = read_json(directory / HASHES)
    listed = {name.partition("/")[0] for name in hashes}
    for name in (MODEL, OPTIMIZER, CONFIG, PROGRESS):
        if not {name, parts_of(Path(name)).name} & listed:
            raise CheckpointError(f"{directory / HASHES}: does not list {name}; {way_out(directory)}")
    for path in directory.glob("*/*"):
        if path.relative_to(directory).as_posix() not in hashes:
            raise CheckpointError(f"{path}: does not belong to this checkpoint; remove it, or {way_out(directory)}")
    names = sorted(hashes)
    for name in names:
        if not (directory / name).is_file():
            raise CheckpointError(f"{directory / name}: missing from the checkpoint; {way_out(directory)}")
    own = range(world.rank, len(names), world.size)
    damaged = [float(index) for index in own if hash_file(directory / names[index]) != hashes[names[index]]]
    first = min(found for (found,) in world.gather([*damaged, float(len(names))][:1]))
    if first < len(names):
        raise CheckpointError(
            f"{directory / names[int(first)]}: damaged, its sha256 is not that of hashes.json; {way_out(directory)}"
        )


def read_progress(directory: Path) -> Progress:
    """Read how far the run was. Raises CheckpointError when the file is damaged."""
    values = read_json(directory / PROGRESS)
    if set(values) != set(Progress.__dataclass_fields__):
        raise CheckpointError(
            f"{directory / PROGRESS}: keys {sorted(values)} are not those of this version; {way_out(directory)}"
        )
    return Progress(**values)


def read_config(directory: Path) -> dict[str, Any]:
    """Read the configuration that a checkpoint or run directory was made with, as plain values; it cannot name code."""
    path = directory / CONFIG
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path}: unreadable ({type(error).__name__}); {way_out(directory)}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: not a configuration; {way_out(directory)}")
    return values


def write_config(directory: Path, config: dict[str, Any]) -> None:
    """Write `config` as YAML, keys in their own order."""
    write_atomic(directory / CONFIG, yaml.dump(config, None, Dumper, sort_keys=False, allow_unicode=True))


def way_out(damaged: Path) -> str:
    """Say what to do about a checkpoint that cannot be used."""
    others = [path for path in steps(damaged.parent) if path.name != damaged.name]
    if others:
        return f"use an older one: resume={others[-1]} to train on, checkpoint={others[-1]} to read"
    return "there is no other checkpoint of this run: start a new run with another name"


def steps(folder: Path) -> list[Path]:
    """List the checkpoints in `folder`, the oldest first."""
    return sorted(folder.glob("step_????????"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises CheckpointError when the file holds none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: unreadable ({type(error).__name__}); {way_out(path.parent)}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: not a JSON object; {way_out(path.parent)}")
    return values
