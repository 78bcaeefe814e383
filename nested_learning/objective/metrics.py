"""Metrics as sums over micro-batches and processes, and those of what rows wrote to the continuum memory."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch

from nested_learning import tree
from nested_learning.nn.level_state import LevelState, norm
from nested_learning.objective.protocol import State
from nested_learning.world.world import World


class Mean(NamedTuple):
    """A mean as terms of its numerator and of its denominator, one of each for a micro-batch."""

    total: tuple[float, ...]
    number: tuple[float, ...]


@torch.no_grad()
def memory_metrics(state: State) -> dict[str, Mean]:
    """Return `memory/<level>/{writes,surprise,norm}` of every level with a context clock, over rows and layers.

    `writes`: updates of a row's weights since its state began; `surprise`: the norm of the gradient that an update
    follows; `norm`: that of the change of the weights as it is now.
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
        sums[name] = Mean(before.total + metric.total, before.number + metric.number)
    return sums


def means(metrics: dict[str, Mean], world: World) -> dict[str, float]:
    """Return the means over all processes, without those whose denominator is 0, such as the surprise of no write."""
    flat = world.sum([terms for metric in metrics.values() for terms in metric]) if metrics else []
    sums = zip(metrics, flat[::2], flat[1::2], strict=True)
    return {name: total / number for name, total, number in sums if number}


def _metrics(level: LevelState) -> list[tuple[str, Mean]]:
    rows, name = len(level.surprise), f"memory/{level.level.name}"
    writes = float(level.writes * rows)
    return [
        (f"{name}/writes", Mean((writes,), (float(rows),))),
        (f"{name}/surprise", Mean((float(level.surprise.sum()),), (writes,))),
        (f"{name}/norm", Mean((float(norm(level.delta()).sum()),), (float(rows),))),
    ]
