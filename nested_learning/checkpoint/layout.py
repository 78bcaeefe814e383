"""The files of a checkpoint, and finding, verifying and reading them."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

try:
    # ten times as fast as the loader in Python, but not in every wheel
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
# prefix of a checkpoint directory until it is complete
DRAFT = ".draft_"
# the names of checkpoint directories; everything else in the folder is the user's
STEP = re.compile(r"step_[0-9]{8}")
# a world of one process, for readers outside of training
ALONE = World(0, 1, 0, torch.device("cpu"), "gloo")


@dataclass(kw_only=True)
class Progress:
    """The progress of a run. It has no generator state: data order and all random numbers follow from seed and step.

    `seconds`: of training steps, without validation and saving; `cpu_seconds`: CPU time of this process, all threads;
    `source`, `tokenizer`: fingerprints of the data; `metrics`: the last value of each metric; `best`: the metrics of
    the validation with the lowest loss; `phases`: seconds by phase; `lost`: seconds of steps that were discarded;
    `skipped`: the steps, counted from 1, that were skipped after a loss that was not finite; `loss_scale`,
    `scaled_steps`, `overflows`: of float16, the loss scale, the steps since it last changed, and the steps skipped
    because it was too large.
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
    """Return the checkpoint directory of `path`: itself, or the latest of a run directory.

    Raises CheckpointError when there is none.
    """
    if (path / PROGRESS).is_file() or (path / HASHES).is_file():
        return path
    folder = path / FOLDER
    target = read_latest(folder)
    if target is None and not steps(folder):
        raise CheckpointError(
            f"{path}: no checkpoint here; give a run directory or one of its {FOLDER}/step_* directories"
        )
    if target is None:
        there = ", ".join(each.name for each in steps(folder))
        raise CheckpointError(
            f"{folder / LATEST}: names no checkpoint of this run; there are {there}; {way_out(folder / LATEST)}"
        )
    if not target.is_dir() and target.name.startswith(DRAFT):
        # the process was killed between renaming the draft that `latest` names and updating `latest`
        target = target.with_name(target.name.removeprefix(DRAFT))
    if not target.is_dir():
        raise CheckpointError(f"{folder / LATEST}: names {target.name}, which is missing; {way_out(target)}")
    return target


def read_latest(folder: Path) -> Path | None:
    """Return the checkpoint in `folder` that `latest` names, or its complete draft; None where it names neither."""
    try:
        name = (folder / LATEST).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    # a path could lead out of the run, where a save would rename and remove directories
    return folder / name if STEP.fullmatch(name.removeprefix(DRAFT)) else None


def has_checkpoint(run: Path) -> bool:
    """Return whether `run` has saved a checkpoint, even if `latest` is lost: the run must not start again then."""
    return read_latest(run / FOLDER) is not None or bool(steps(run / FOLDER))


def run_of(path: Path) -> Path:
    """Return the run directory of `path`, a run directory, one of its checkpoints, or a checkpoint moved out of it."""
    if path.parent.name == FOLDER:
        return path.parents[1]
    # a relative path such as "." has no parent by name
    whole = path.resolve()
    return whole.parents[1] if whole.parent.name == FOLDER else path


def parts_of(file: Path) -> Path:
    """Return the folder that replaces the tensor file `file` in a sharded checkpoint: one file of each process."""
    return file.with_suffix("")


def verify(directory: Path, world: World = ALONE) -> None:
    """Check every file of a checkpoint against its sha256. Raises CheckpointError naming the file.

    Several processes divide the files among them, and all raise when one finds damage.
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
    """Read progress.json. Raises CheckpointError when the file is damaged."""
    values = read_json(directory / PROGRESS)
    if set(values) != set(Progress.__dataclass_fields__):
        strange = sorted(set(values) ^ set(Progress.__dataclass_fields__))
        raise CheckpointError(
            f"{directory / PROGRESS}: made by another version of nested_learning, one of the two has no "
            f"{', '.join(strange)}; use the version whose commit the environment.json of its run names"
        )
    return Progress(**values)


def read_config(directory: Path) -> dict[str, Any]:
    """Read the configuration that a checkpoint or run directory was made with, as plain values."""
    path = directory / CONFIG
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path}: unreadable ({type(error).__name__}); {way_out(directory)}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: not a configuration; {way_out(directory)}")
    return values


def write_config(directory: Path, config: dict[str, Any]) -> None:
    """Write `config` as YAML, without sorting its keys."""
    write_atomic(directory / CONFIG, yaml.dump(config, None, Dumper, sort_keys=False, allow_unicode=True))


def way_out(damaged: Path) -> str:
    """Return what to do about a checkpoint that cannot be used."""
    others = [path for path in steps(damaged.parent) if path.name != damaged.name]
    if others:
        return f"use another one: resume={others[-1]} to train, checkpoint={others[-1]} to evaluate"
    return "there is no other checkpoint of this run: start a new run with another name"


def steps(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`, the oldest first."""
    return sorted(path for path in folder.glob("step_*") if STEP.fullmatch(path.name) and path.is_dir())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises CheckpointError when the file holds none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: unreadable ({type(error).__name__}); {way_out(path.parent)}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: not a JSON object; {way_out(path.parent)}")
    return values
