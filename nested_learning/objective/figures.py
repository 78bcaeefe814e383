"""What the rows of a batch wrote on the levels of the continuum memory, as figures."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch

from nested_learning import tree
from nested_learning.nn.level_state import LevelState, norm
from nested_learning.objective.protocol import State
from nested_learning.world.world import World


class Mean(NamedTuple):
    """A figure as terms of a sum, and of what to divide it by; each piece of a batch brings its own."""

    total: tuple[float, ...]
    number: tuple[float, ...]


@torch.no_grad()
def memory_figures(state: State) -> dict[str, Mean]:
    """Return `memory/<level>/{writes,surprise,norm}` of every level with a context clock, over rows and layers.

    `writes`: updates of a row's weights since its state began; `surprise`: the norm of the gradient that an update
    follows; `norm`: that of the change of the weights as it is now. Source: ours.
    """
    return add_means(figure for level in tree.nodes(LevelState, state) for figure in _figures(level))


def clipped(metrics: Mapping[str, float], step: int, *, is_clipped: bool) -> dict[str, float]:
    """Return `optim/clipped`, the share of steps until `step` (0, 1, ...) whose gradient was too long. Source: ours."""
    last = metrics.get("optim/clipped", 0.0)
    return {"optim/clipped": last + (is_clipped - last) / (step + 1)}


def add_means(figures: Iterable[tuple[str, Mean]]) -> dict[str, Mean]:
    """Join the terms of figures of the same name. Source: ours."""
    sums: dict[str, Mean] = {}
    for name, figure in figures:
        before = sums[name] if name in sums else Mean((), ())
        sums[name] = Mean(before.total + figure.total, before.number + figure.number)
    return sums


def means(figures: dict[str, Mean], world: World) -> dict[str, float]:
    """Divide the sums of all processes; what none of them has seen, such as the surprise of no write, is left out."""
    flat = world.sum([terms for figure in figures.values() for terms in figure]) if figures else []
    sums = zip(figures, flat[::2], flat[1::2], strict=True)
    return {name: total / number for name, total, number in sums if number}


def _figures(level: LevelState) -> list[tuple[str, Mean]]:
    rows, name = len(level.surprise), f"memory/{level.level.name}"
    writes = float(level.writes * rows)
    return [
        (f"{name}/writes", Mean((writes,), (float(rows),))),
        (f"{name}/surprise", Mean((float(level.surprise.sum()),), (writes,))),
        (f"{name}/norm", Mean((float(norm(level.delta()).sum()),), (float(rows),))),
    ]
