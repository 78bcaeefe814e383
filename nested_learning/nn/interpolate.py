"""Interpolation between two states: keep a fraction of what was written from one to the other."""

from collections.abc import Callable, Iterator

import torch

from nested_learning import tree
from nested_learning.nn.language_model import BlockState
from nested_learning.nn.level_state import FastWeights, LevelState
from nested_learning.nn.lstm import Cells
from nested_learning.nn.memory import State
from nested_learning.ops.memory import Memory
from nested_learning.shapes import Float, Tensor

# the states of mixers that are memories
MIXERS = (Memory, Cells)


def interpolate(
    before: State, after: State, fraction_of: Callable[[int, str], Float[Tensor, " b"]], mixer: str
) -> State:
    """Return `before + fraction (after - before)` for every memory, with a fraction for each row.

    `fraction_of(layer, name)` gives the fractions of a level; memories of mixers have the name `mixer`. Fractions 0 and
    1 give `before` and `after` to the bit; above 1 extrapolates. Windows, caches and positions are those of `after`.
    """
    blocks = []
    for layer, (old, new) in enumerate(zip(before, after, strict=True)):
        mixed = new.mixer
        for kind in MIXERS:
            mixed = interpolate_nodes(kind, old.mixer, mixed, fraction_of(layer, mixer))
        levels = tuple(
            then if now is None else interpolate_level(then, now, fraction_of(layer, now.level.name))
            for then, now in zip(old.cms, new.cms, strict=True)
        )
        blocks.append(BlockState(mixed, levels))
    return tuple(blocks)


def interpolate_nodes(kind: type, before: State, after: State, fraction: Float[Tensor, " b"]) -> State:
    """Return `after` with every node of the class `kind` interpolated."""
    olds: Iterator[State] = iter(tree.nodes(kind, before))
    return tree.map_nodes(kind, lambda node: interpolate_tensors(next(olds), node, fraction), after)


def interpolate_tensors(before: State, after: State, fraction: Float[Tensor, " b"]) -> State:
    """Return `before + fraction (after - before)` of every tensor; integers are those of `after`."""
    olds = iter(tree.leaves(before))
    return tree.map(lambda new: lerp(next(olds), new, fraction), after)


def interpolate_level(before: LevelState, after: LevelState, fraction: Float[Tensor, " b"]) -> LevelState:
    """Interpolate the changes of a level; a row keeps the sums of its unfinished period, unless its fraction is 0."""
    # with no write at all only the clock advances: rows read with the shared weights, which is faster
    if not bool((fraction > 0).any()):
        return before._replace(position=after.position)
    whole = (fraction > 0).to(fraction)
    fast = tuple(
        FastWeights(
            interpolate_tensors(old.delta, new.delta, fraction),
            interpolate_tensors(old.gradient, new.gradient, whole),
            # a row that did not write still has the sums of before, to which the next gradient is added
            max(old.pending, new.pending),
            interpolate_tensors(old.rule, new.rule, fraction),
            interpolate_tensors(old.inputs, new.inputs, whole),
        )
        for old, new in zip(before.fast, after.fast, strict=True)
    )
    return after._replace(fast=fast)


def lerp(old: Tensor, new: Tensor, fraction: Float[Tensor, " b"]) -> Tensor:
    """Return `old + fraction (new - old)`, with a fraction for each row."""
    return torch.lerp(old, new, fraction.to(old).view(-1, *[1] * (old.dim() - 1)))
