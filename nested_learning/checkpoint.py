"""Checkpoints: directories of safetensors, JSON and YAML, whole or absent, verified before a byte of them is used.

`<run>/checkpoints/step_00000100/` holds model.safetensors, optimizer.safetensors, config.yaml, progress.json, the
tokenizer, a model card, and hashes.json with the sha256 of all of them; `<run>/checkpoints/latest` names the newest.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nested_learning.data.tokenizer import Tokenizer
from nested_learning.errors import CheckpointError
from nested_learning.files import hash_file, sync, write_atomic
from nested_learning.optim.optimizer import Optimizer

FOLDER = "checkpoints"
LATEST = "latest"
# the last one, and the one before in case the disk damages the last; more would fill disks unasked
KEPT = 2

MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"
CONFIG, PROGRESS, CARD, HASHES = "config.yaml", "progress.json", "README.md", "hashes.json"
DRAFT = ".draft_"


@dataclass(kw_only=True)
class Progress:
    """How far a run is. Nothing random is in it: data order and every generator are functions of the seed and the step.

    `seconds`: of training, without validation and saving; `cpu_seconds`: those that this process kept processors busy,
    all threads added up; `source`, `tokenizer`: fingerprints of the data; `metrics`: the last value of each figure;
    `best`: the figures of the best validation, by loss.
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


def save(
    run: Path,
    model: nn.Module,
    optimizer: Optimizer,
    tokenizer: Tokenizer | None,
    config: dict[str, Any],
    progress: Progress,
) -> Path:
    """Write a checkpoint of `run` and make it the latest; return its directory. Source: ours.

    A kill at any moment leaves the checkpoint before it in place and named by `latest`. Only one process may save.
    """
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    _remove_drafts(folder)
    target = folder / f"step_{progress.step:08d}"
    draft = folder / f"{DRAFT}{target.name}"
    draft.mkdir()
    _write(draft, model, optimizer, tokenizer, config, progress)
    if target.exists():
        # a run that goes on from an older checkpoint passes this step again
        target.rename(folder / f"{DRAFT}replaced")
    draft.rename(target)
    sync(folder)
    write_atomic(folder / LATEST, target.name + "\n")
    _remove_drafts(folder)
    _keep_newest(folder, target)
    return target


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
    if not target.is_dir():
        raise CheckpointError(f"{pointer}: names {target.name}, which is missing; {_way_out(target)}")
    return target


def has_checkpoint(run: Path) -> bool:
    """Say whether `run` has saved a checkpoint."""
    return (run / FOLDER / LATEST).is_file()


def verify(directory: Path) -> None:
    """Check every file of a checkpoint against its sha256. Raises CheckpointError naming the file."""
    for name, expected in _read_json(directory / HASHES).items():
        if not (directory / name).is_file():
            raise CheckpointError(f"{directory / name}: missing from the checkpoint; {_way_out(directory)}")
        if hash_file(directory / name) != expected:
            raise CheckpointError(
                f"{directory / name}: damaged, its sha256 is not that of hashes.json; {_way_out(directory)}"
            )


def read_progress(directory: Path) -> Progress:
    """Read how far the run was. Raises CheckpointError when the file is damaged."""
    values = _read_json(directory / PROGRESS)
    if set(values) != set(Progress.__dataclass_fields__):
        raise CheckpointError(
            f"{directory / PROGRESS}: keys {sorted(values)} are not those of this version; {_way_out(directory)}"
        )
    return Progress(**values)


def read_config(directory: Path) -> dict[str, Any]:
    """Read the configuration that a checkpoint or run directory was made with, as plain values; it cannot name code."""
    path = directory / CONFIG
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path}: unreadable ({type(error).__name__}); {_way_out(directory)}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: not a configuration; {_way_out(directory)}")
    return values


def write_config(directory: Path, config: dict[str, Any]) -> None:
    """Write `config` as YAML, keys in their own order."""
    write_atomic(directory / CONFIG, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def load_model(directory: Path, model: nn.Module) -> None:
    """Fill `model`, in place. Raises CheckpointError naming what is missing, too much, or of another shape."""
    saved, wanted = _load_tensors(directory / MODEL), _model_tensors(model)
    problems = [f"{name} is missing" for name in wanted.keys() - saved.keys()]
    problems += [f"{name} is unknown to the model" for name in saved.keys() - wanted.keys()]
    for name in wanted.keys() & saved.keys():
        if saved[name].shape != wanted[name].shape or saved[name].dtype != wanted[name].dtype:
            problems.append(f"{name} is {_kind(saved[name])}, the model's is {_kind(wanted[name])}")
    if problems:
        raise CheckpointError(
            f"{directory / MODEL}: made for another model: {'; '.join(sorted(problems)[:3])} ({len(problems)} in all); "
            f"use the model options of {directory / CONFIG}"
        )
    for name, tensor in wanted.items():
        tensor.data.copy_(saved[name])


def load_optimizer(directory: Path, optimizer: Optimizer) -> None:
    """Give `optimizer` its state back; it checks the names itself. Raises CheckpointError when the file is damaged."""
    optimizer.load_state_dict(_load_tensors(directory / OPTIMIZER))


def _write(
    draft: Path,
    model: nn.Module,
    optimizer: Optimizer,
    tokenizer: Tokenizer | None,
    config: dict[str, Any],
    progress: Progress,
) -> None:
    """Fill the directory `draft` and see it reach the disk."""
    save_file(_plain(_model_tensors(model)), draft / MODEL)
    save_file(_plain(optimizer.state_dict()), draft / OPTIMIZER)
    write_config(draft, config)
    for name in (MODEL, OPTIMIZER):
        # safetensors lets only the owner read; a checkpoint is as readable as the rest of the run
        (draft / name).chmod((draft / CONFIG).stat().st_mode)
    if tokenizer is not None:
        tokenizer.save(draft)
    (draft / PROGRESS).write_text(json.dumps(asdict(progress), indent=2) + "\n", encoding="utf-8")
    (draft / CARD).write_text(_card(model, config, progress), encoding="utf-8")
    hashes = {path.name: hash_file(path) for path in sorted(draft.iterdir())}
    (draft / HASHES).write_text(json.dumps(hashes, indent=2) + "\n", encoding="utf-8")
    for path in [*draft.iterdir(), draft]:
        sync(path)


def _model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Name every parameter (shared ones once) and every buffer that is meant to be kept."""
    kept = model.state_dict(keep_vars=True)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: tensor for name, tensor in tensors.items() if name in kept}


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: unreadable ({error}); {_way_out(path.parent)}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: unreadable ({type(error).__name__}); {_way_out(path.parent)}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: not a JSON object; {_way_out(path.parent)}")
    return values


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _way_out(damaged: Path) -> str:
    """Say what to do about a checkpoint that cannot be used."""
    others = [path for path in _steps(damaged.parent) if path.name != damaged.name]
    if others:
        return f"use an older one: resume={others[-1]} to train on, checkpoint={others[-1]} to read"
    return "there is no other checkpoint of this run: start a new run with another name"


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step_????????"))


def _keep_newest(folder: Path, newest: Path) -> None:
    """Remove all checkpoints but `newest` and those just before it; later ones belong to a future that was given up."""
    older = [path for path in _steps(folder) if path.name < newest.name]
    for path in set(_steps(folder)) - {newest, *older[-(KEPT - 1) :]}:
        # renamed first: what is half removed must not look like a checkpoint
        doomed = path.rename(folder / f"{DRAFT}{path.name}")
        shutil.rmtree(doomed)


def _remove_drafts(folder: Path) -> None:
    for path in folder.glob(f"{DRAFT}*"):
        shutil.rmtree(path)


def _card(model: nn.Module, config: dict[str, Any], progress: Progress) -> str:
    figures = "".join(f"| {name} | {value:.6g} |\n" for name, value in sorted(progress.metrics.items()))
    return (
        f"# {config['model']['name']}, step {progress.step}\n\n"
        f"{sum(p.numel() for p in model.parameters())} parameters, trained on {progress.tokens} tokens of "
        f"data={config['data']['name']} (sha256 {progress.source[:12]}) with seed {progress.seed}. "
        f"The whole configuration is in `{CONFIG}`.\n\n| figure | value |\n| --- | --- |\n{figures}"
    )
