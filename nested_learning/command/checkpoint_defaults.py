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


def use_run_defaults(composed: dict[str, Any], chosen: Collection[str], origin: str, path: str) -> dict[str, Any]:
    """Return the configuration `composed` with the RUN_KEYS of the run `path`, which the key `origin` gives.

    Groups that the command line chose (`data=text`) are kept. Raises CheckpointError when there is no run.
    """
    saved = _read_run_config(origin, path)
    return composed | {key: saved[key] for key in RUN_KEYS if key in saved and key not in chosen}


def use_run_shape(composed: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the configuration `composed` with the model's shape from the run `path`, which `stack_from` gives.

    A shape that does not fit is refused later, when the weights are loaded. Raises CheckpointError when there is no
    run.
    """
    saved, model = _read_run_config("stack_from", path), composed["model"]
    if not isinstance(saved.get("model"), dict):
        raise CheckpointError(f"stack_from={path}: its config.yaml has no model; give another run")
    shared = [key for key in model if key in saved["model"] and key not in SHAPELESS_KEYS]
    return composed | {"model": model | {key: saved["model"][key] for key in shared}}


def _read_run_config(key: str, path: str) -> dict[str, Any]:
    """Read the config.yaml of the run directory or checkpoint `path`, given as `key`; both have one."""
    file = Path(convert(path, PathText, key)) / "config.yaml"
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        fix = "give a run directory or one of its checkpoints/step_*"
        raise CheckpointError(f"{key}={path}: no run here; {fix}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{file}: unreadable ({type(error).__name__}); give another run or checkpoint") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: not a configuration; give another run or checkpoint")
    return values
