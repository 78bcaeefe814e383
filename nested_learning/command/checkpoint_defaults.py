"""Defaults from another run: the settings of `checkpoint=`, `branch_from=` or `stack_from=` that a command keeps."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from nested_learning.errors import CheckpointError
from nested_learning.typed import PathText, convert

# keys that describe the model and its training; all other keys belong to the command
RUN_KEYS = ("model", "optim", "data", "objective", "seed", "stages")
# keys of a model that do not change the shapes of its weights
SHAPELESS_KEYS = ("name", "levels", "cms", "dropout")


def use_run_defaults(composed: dict[str, Any], typed: Collection[str], origin: str = "checkpoint") -> dict[str, Any]:
    """Return the configuration `composed` with the RUN_KEYS of the run that its key `origin` names.

    `typed` are the keys of the command line, which win. A group chosen there (`data=text`) is kept as a whole; single
    keys of it (`data.val_rows`) replace those of the run. Raises CheckpointError when there is no run.
    """
    saved = _read_run_config(origin, composed)
    result = dict(composed)
    for key in RUN_KEYS:
        if key in typed or key not in saved:
            continue
        result[key] = saved[key]
        for name in typed:
            if name.startswith(f"{key}."):
                # model.levels[0] replaces the whole list
                result = _replace_at(result, composed, name.partition("[")[0].split("."))
    return result


def use_run_shape(composed: dict[str, Any], typed: Collection[str]) -> dict[str, Any]:
    """Return the configuration `composed` with the model's shape from the run that `stack_from` names.

    Keys of the command line (`typed`) win; a shape that does not fit is refused later, when the weights are loaded.
    Raises CheckpointError when there is no run.
    """
    saved, model = _read_run_config("stack_from", composed), composed["model"]
    if not isinstance(saved.get("model"), dict):
        raise CheckpointError(f"stack_from={composed['stack_from']}: its config.yaml has no model; give another run")
    shared = [key for key in model if key in saved["model"] and key not in SHAPELESS_KEYS]
    shape = {key: saved["model"][key] for key in shared if f"model.{key}" not in typed}
    return composed | {"model": model | shape}


def _read_run_config(key: str, composed: dict[str, Any]) -> dict[str, Any]:
    """Read the config.yaml of the run directory or checkpoint that `key` names; both have one."""
    path = Path(convert(composed[key], PathText, key))
    file = path / "config.yaml"
    if not file.is_file():
        raise CheckpointError(f"{key}={path}: no run here; give a run directory or one of its checkpoints/step_*")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{file}: unreadable ({type(error).__name__}); give another run or checkpoint") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: not a configuration; give another run or checkpoint")
    return values


def _replace_at(values: Any, source: Any, path: list[str]) -> Any:
    """Return `values` with the entry at `path` taken from `source`.

    Where `values` has no mapping on the way, the whole entry of `source` at that depth is taken.
    """
    if not path or not isinstance(values, dict):
        return source
    name, *rest = path
    return values | {name: _replace_at(values[name], source[name], rest) if name in values else source[name]}
