"""What `phase=eval` and `phase=sample` take over from the run they read, unless the command line says otherwise."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from nested_learning.errors import CheckpointError

# what the model is, and what it was trained on and for; everything else is about this command, not about that run
INHERITED = ("model", "optim", "data", "objective", "seed")


def inherit(given: dict[str, Any], typed: Collection[str]) -> dict[str, Any]:
    """Return `given`, a composed configuration with `checkpoint`, with the INHERITED keys of the run it names.

    `typed` are the keys of the command line. A group chosen there (`data=text`) counts as a whole; single keys of it
    (`data.val_rows`) are laid over those of the run. Raises CheckpointError when there is no run. Source: ours.
    """
    saved = _read(Path(given["checkpoint"]))
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


def _read(path: Path) -> dict[str, Any]:
    """Read the config.yaml of a run directory or checkpoint; both have one."""
    file = path / "config.yaml"
    if not file.is_file():
        raise CheckpointError(f"checkpoint={path}: no run here; give a run directory or one of its checkpoints/step_*")
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
