"""What the memories of a model do while it reads, seen from outside: nothing is computed unless somebody looks."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import nn

from nested_learning import tree
from nested_learning.nn.level_state import LevelState
from nested_learning.nn.memory import State
from nested_learning.ops.memory import Memory
from nested_learning.ops.telemetry import Watched, mean_rank, norm
from nested_learning.shapes import Float, Tensor


class Observation(NamedTuple):
    """What one memory of a layer did while `t` tokens were read, all heads together.

    `norm` and effective `rank` (mean over heads) of its state after the last of them; `surprise`, the norm of the inner
    error, and `retention`, the mean gate, at each of them.
    """

    norm: Float[Tensor, " b"]
    rank: Float[Tensor, " b"]
    surprise: Float[Tensor, "b t"]
    retention: Float[Tensor, "b t"]


@runtime_checkable
class Observable(Protocol):
    """A module whose memories can be observed, beside its forward pass and without changing anything."""

    def observe(self, x: Float[Tensor, "b t d"], before: Any, after: Any) -> dict[str, Observation]:
        """Return, by the memory's name, what reading `x` did, which led from state `before` to state `after`."""
        ...


class MemoryStats(NamedTuple):
    """What was seen of one memory of one layer over a stretch of tokens: a number for each row, by figure.

    `norm` and `rank` at its end, `surprise` and `retention` as means over its tokens. Levels of the continuum memory
    have no retention, and a surprise, the mean over their writes, where they wrote.
    """

    layer: int
    level: str
    figures: dict[str, Float[Tensor, " b"]]


Seen = dict[tuple[int, str], list[Observation]]


def observed(watched: Watched, after: Memory) -> Observation:
    """Put together what was watched and what became of the memory. Source: ours."""
    surprise, retention = watched
    return Observation(norm(after.weight), mean_rank(after.weight), surprise.norm(dim=1), retention.mean(1))


@contextmanager
def observing(blocks: nn.ModuleList) -> Iterator[Seen]:
    """Observe every memory in `blocks` as long as the context lasts; what was seen is kept by (layer, memory).

    A memory that reads in several calls is seen as often. Nothing is left behind. Source: ours.
    """
    seen: Seen = {}
    hooks = [
        module.register_forward_hook(partial(_observe, seen, layer))
        for layer, block in enumerate(blocks)
        for module in block.modules()
        if isinstance(module, Observable)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _observe(seen: Seen, layer: int, module: Observable, read: tuple[Any, ...], found: tuple[Any, ...]) -> None:
    x, before = read
    for name, observation in module.observe(x, before, found[1]).items():
        seen.setdefault((layer, name), []).append(observation)


def memory_stats(seen: Seen) -> list[MemoryStats]:
    """Sum up the stretch over which memories were observed. Source: ours."""
    stats = []
    for (layer, name), observations in seen.items():
        norms, ranks, surprises, retentions = zip(*observations, strict=True)
        means = {"surprise": torch.cat(surprises, 1).mean(1), "retention": torch.cat(retentions, 1).mean(1)}
        stats.append(MemoryStats(layer, name, {"norm": norms[-1], "rank": ranks[-1]} | means))
    return stats


@torch.no_grad()
def level_stats(before: State, after: State) -> list[MemoryStats]:
    """Sum up what the levels that learn inside the context did while a model went from `before` to `after`.

    Both are states of the whole model. Source: ours.
    """
    stats = []
    for layer, (old, new) in enumerate(zip(before, after, strict=True)):
        for then, now in zip(tree.nodes(LevelState, old), tree.nodes(LevelState, new), strict=True):
            written = now.delta()
            figures = {"norm": norm(written), "rank": mean_rank(written)}
            if now.writes > then.writes:
                figures["surprise"] = (now.surprise - then.surprise) / (now.writes - then.writes)
            stats.append(MemoryStats(layer, now.level.name, figures))
    return stats
