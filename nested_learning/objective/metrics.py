"""Metrics as sums over micro-batches and processes, among them those of the continuum memory's updates."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch

from nested_learning import tree
from nested_learning.nn.level_state import LevelState, norm
from nested_learning.objective.protocol import State
from nested_learning.world.world import World


class Mean(NamedTuple):
    """A mean as sums not yet added up: a numerator and a denominator for each micro-batch."""

    numerators: tuple[float, ...]
    denominators: tuple[float, ...]


@torch.no_grad()
def memory_metrics(state: State) -> dict[str, Mean]:
    """Return `memory/<level>/{writes,surprise,norm}` of every level with a context clock, over rows and layers.

    `writes`: the number of updates of a row's weights since its state was created; `surprise`: the norm of the gradient
    of an update; `norm`: the norm of the current change of the weights.
    """
    return add_means(metric for level in tree.nodes(LevelState, state) for metric in _metrics(level))


def clipped(metrics: Mapping[str, float], step: int, *, is_clipped: bool) -> dict[str, float]:
    """Return `optim/clipped`, the fraction of steps until `step` (0, 1, ...) whose gradient was clipped."""
    last = metrics.get("optim/clipped", 0.0)
    return {"optim/clipped": last + (is_clipped - last) / (step + 1)}


def add_means(metrics: Iterable[tuple[str, Mean]]) -> dict[str, Mean]:
    """Concatenate the terms of metrics of the same name."""
    sums: dict[str, Mean] = {}
    for name, metric in metrics:
        before = sums[name] if name in sums else Mean((), ())
        sums[name] = Mean(before.numerators + metric.numerators, before.denominators + metric.denominators)
    return sums


def means(metrics: dict[str, Mean], world: World) -> dict[str, float]:
    """Return the means over all processes; those whose denominator is 0 are left out, as the surprise of no write."""
    flat = world.sum([terms for metric in metrics.values() for terms in metric]) if metrics else []
    sums = zip(metrics, flat[::2], flat[1::2], strict=True)
    return {name: numerator / denominator for name, numerator, denominator in sums if denominator}


def _metrics(level: LevelState) -> list[tuple[str, Mean]]:
    rows, name = len(level.surprise), f"memory/{level.level.name}"
    writes = float(level.writes * rows)
    return [
        (f"{name}/writes", Mean((writes,), (float(rows),))),
        (f"{name}/surprise", Mean((float(level.surprise.sum()),), (writes,))),
        (f"{name}/norm", Mean((float(norm(level.delta()).sum()),), (float(rows),))),
    ]
