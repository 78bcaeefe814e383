"""The weights of a run at its checkpoints: opened one at a time, and how far each level of the model moved."""

import re
from collections.abc import Iterable, Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path

import torch

from nested_learning import checkpoint
from nested_learning.inference.memorize import levels_in
from nested_learning.level import Level
from nested_learning.nn.language_model import LanguageModel

# parameters that belong to no level
REST = "rest"


class Weights:
    """Models like `model` with the weights of other checkpoints of its run; `kind`: model or ema."""

    def __init__(self, model: LanguageModel, kind: str = "model") -> None:
        self.model, self.kind = model, kind
        # examples are in the order of checkpoints, so one open checkpoint is enough
        self.at = lru_cache(maxsize=1)(self._open)

    def _open(self, directory: Path) -> LanguageModel:
        """Open the checkpoint `directory`. Raises CheckpointError for one that is damaged or of another model."""
        model = deepcopy(self.model)
        checkpoint.verify(directory)
        checkpoint.load_model(directory, model)
        if self.kind == "ema":
            checkpoint.load_averaged(directory, model)
        return model


def drift(model: LanguageModel, steps: Sequence[Path]) -> dict[str, list[float]]:
    """Return how far each level, and the other parameters, moved, as a fraction of their norm at the start.

    There is one number for each of the checkpoints `steps`; the first is the start.
    """
    opened, flat = Weights(model), list[dict[str, torch.Tensor]]()
    for directory in steps:
        named = dict(opened.at(directory).named_parameters())
        inside = parts_of(all_levels(model), named)
        flat.append({part: torch.cat([named[name].detach().flatten() for name in inside[part]]) for part in inside})
    first = flat[0]
    return {part: [float((now[part] - start).norm() / start.norm()) for now in flat] for part, start in first.items()}


def all_levels(model: LanguageModel) -> list[Level]:
    """List the levels of `model`, including those that learn at every step."""
    return list({module.level.name: module.level for block in model.blocks for module in levels_in(block)}.values())


def parts_of(levels: Sequence[Level], names: Iterable[str]) -> dict[str, list[str]]:
    """Divide parameter names into those of each level and `rest`."""
    found: dict[str, list[str]] = {part: [] for part in [*(level.name for level in levels), REST]}
    for name in names:
        home = next((level.name for level in levels if re.search(level.match, name)), REST)
        found[home].append(name)
    return found


def count_updates(levels: Sequence[Level], directory: Path) -> dict[str, int]:
    """Return the number of updates of each level until a checkpoint: at most one per step."""
    progress = checkpoint.read_progress(directory)
    return {level.name: min(progress.step, progress.tokens // max(level.period, 1)) for level in levels}
