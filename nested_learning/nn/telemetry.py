"""Statistics of a model's memories, computed by hooks; without hooks a forward pass costs nothing more."""

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
from nested_learning.ops.telemetry import TokenStats, mean_rank, norm
from nested_learning.shapes import Float, Tensor


class Observation(NamedTuple):
    """Statistics of one memory of a layer over `t` tokens of one forward call.

    `norm` (of all heads together) and effective `rank` (mean over heads) of its state after the last token; `surprise`,
    the norm of the inner error, and `retention`, the mean gate over heads, at each token.
    """

    norm: Float[Tensor, " b"]
    rank: Float[Tensor, " b"]
    surprise: Float[Tensor, "b t"]
    retention: Float[Tensor, "b t"]


@runtime_checkable
class Observable(Protocol):
    """A module that can compute statistics of its memories for a forward call, without changing anything."""

    def observe(self, x: Float[Tensor, "b t d"], before: Any, after: Any) -> dict[str, Observation]:
        """Return, by memory name, the statistics of reading `x`, which led from state `before` to state `after`."""
        ...


class MemoryStats(NamedTuple):
    """Statistics of one memory of one layer over the tokens observed: one number per row, by metric.

    `norm` and `rank` after the last token, `surprise` and `retention` as means over tokens. Levels of the continuum
    memory have no retention; their surprise is the mean over their writes, and absent where they did not write.
    """

    layer: int
    level: str
    metrics: dict[str, Float[Tensor, " b"]]


# the observations of every call, by (layer, memory)
Observations = dict[tuple[int, str], list[Observation]]


def observation(stats: TokenStats, after: Memory) -> Observation:
    """Combine the statistics of the tokens with those of the memory after them."""
    surprise, retention = stats
    return Observation(norm(after.weight), mean_rank(after.weight), surprise.norm(dim=1), retention.mean(1))


@contextmanager
def observing(blocks: nn.ModuleList) -> Iterator[Observations]:
    """Observe every memory in `blocks` while the context lasts; every forward call adds one observation per memory.

    The hooks are removed at the end.
    """
    seen: Observations = {}
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
def _observe(
    seen: Observations, layer: int, module: Observable, inputs: tuple[Any, ...], outputs: tuple[Any, ...]
) -> None:
    x, before = inputs
    for name, each in module.observe(x, before, outputs[1]).items():
        seen.setdefault((layer, name), []).append(each)


def memory_stats(seen: Observations) -> list[MemoryStats]:
    """Summarise the observations of every memory over all calls."""
    stats = []
    for (layer, name), observations in seen.items():
        norms, ranks, surprises, retentions = zip(*observations, strict=True)
        means = {"surprise": torch.cat(surprises, 1).mean(1), "retention": torch.cat(retentions, 1).mean(1)}
        stats.append(MemoryStats(layer, name, {"norm": norms[-1], "rank": ranks[-1]} | means))
    return stats


@torch.no_grad()
def level_stats(before: State, after: State) -> list[MemoryStats]:
    """Summarise the levels that learn inside the context, from the state `before` to the state `after` of a model."""
    stats = []
    for layer, (old, new) in enumerate(zip(before, after, strict=True)):
        for then, now in zip(tree.nodes(LevelState, old), tree.nodes(LevelState, new), strict=True):
            written = now.delta()
            metrics = {"norm": norm(written), "rank": mean_rank(written)}
            if now.writes > then.writes:
                metrics["surprise"] = (now.surprise - then.surprise) / (now.writes - then.writes)
            stats.append(MemoryStats(layer, now.level.name, metrics))
    return stats
