"""What a command takes over from the run that it reads or begins with, unless the command line says otherwise."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from nested_learning.errors import CheckpointError

# what the model is, and what it was trained on and for; everything else is about this command, not about that run
INHERITED = ("model", "optim", "data", "objective", "seed", "stages")
# what a model that begins with the weights of another does not share with it; all else that both have is its shape
OWN = ("name", "levels", "cms", "dropout")


def inherit(given: dict[str, Any], typed: Collection[str], origin: str = "checkpoint") -> dict[str, Any]:
    """Return `given`, a composed configuration with the key `origin`, with the INHERITED keys of the run it names.

    `typed` are the keys of the command line. A group chosen there (`data=text`) counts as a whole; single keys of it
    (`data.val_rows`) are laid over those of the run. Raises CheckpointError when there is no run.
    """
    saved = _read(origin, given)
    result = dict(given)
    for key in INHERITED:
        if key in typed or key not in saved:
            continue
        result[key] = saved[key]
        for name in typed:
            if name.startswith(f"{key}."):
                # of a list such as model.levels[0], the whole list
                result = _lay_over(result, given, name.partition("[")[0].split("."))
    return result


def inherit_shape(given: dict[str, Any], typed: Collection[str]) -> dict[str, Any]:
    """Return `given`, a composed configuration with `stack_from`, with the shape of the model of the run it names.

    Keys of the command line stay as they are: what does not fit is refused with the weights. Raises CheckpointError
    when there is no run.
    """
    saved, model = _read("stack_from", given), given["model"]
    if not isinstance(saved.get("model"), dict):
        raise CheckpointError(f"stack_from={given['stack_from']}: its config.yaml has no model; give another run")
    taken = [key for key in model if key in saved["model"] and key not in OWN and f"model.{key}" not in typed]
    return given | {"model": model | {key: saved["model"][key] for key in taken}}


def _read(key: str, given: dict[str, Any]) -> dict[str, Any]:
    """Read the config.yaml of the run directory or checkpoint that `key` names; both have one."""
    path = Path(given[key])
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


def _lay_over(values: Any, given: Any, names: list[str]) -> Any:
    """Return `values` with what `given` has at the place `names`, or on the way there where `values` has no mapping."""
    if not names or not isinstance(values, dict):
        return given
    name, *rest = names
    return values | {name: _lay_over(values[name], given[name], rest) if name in values else given[name]}
