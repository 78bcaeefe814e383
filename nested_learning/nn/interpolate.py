"""Of what was written between two states, keep a share: the one way in which a write is scaled, chosen or undone."""

from collections.abc import Callable, Iterator

import torch

from nested_learning import tree
from nested_learning.nn.language_model import BlockState
from nested_learning.nn.level_state import FastWeights, LevelState
from nested_learning.nn.lstm import Cells
from nested_learning.nn.memory import State
from nested_learning.ops.memory import Memory
from nested_learning.shapes import Float, Tensor

# the classes of what mixers memorise
MIXERS = (Memory, Cells)


def blend(before: State, after: State, share_of: Callable[[int, str], Float[Tensor, " b"]], mixer: str) -> State:
    """Return the state `after`, but of each write since `before` only the share of its row.

    `share_of` gives the shares of a level by its layer and name; memories of mixers have the name `mixer`. A share of 0
    or 1 gives what was before or after, to the bit; above 1 writes are extended. Windows, caches and positions are
    those of `after`. Source: ours.
    """
    blocks = []
    for layer, (old, new) in enumerate(zip(before, after, strict=True)):
        mixed = new.mixer
        for kind in MIXERS:
            mixed = blend_nodes(kind, old.mixer, mixed, share_of(layer, mixer))
        levels = tuple(
            then if now is None else between_levels(then, now, share_of(layer, now.level.name))
            for then, now in zip(old.cms, new.cms, strict=True)
        )
        blocks.append(BlockState(mixed, levels))
    return tuple(blocks)


def blend_nodes(kind: type, before: State, after: State, share: Float[Tensor, " b"]) -> State:
    """Return `after`, but of each of its nodes of a `kind` what is `between`."""
    olds: Iterator[State] = iter(tree.nodes(kind, before))
    return tree.map_nodes(kind, lambda node: between(next(olds), node, share), after)


def between(before: State, after: State, share: Float[Tensor, " b"]) -> State:
    """Return `before + share (after - before)` of every tensor; integers are those of `after`."""
    olds = iter(tree.leaves(before))
    return tree.map(lambda new: lerp(next(olds), new, share), after)


def between_levels(before: LevelState, after: LevelState, share: Float[Tensor, " b"]) -> LevelState:
    """Return `between` of what was written; of an unfinished period the rows keep all, or with a share of 0 nothing."""
    whole = (share > 0).to(share)
    fast = tuple(
        FastWeights(
            between(old.delta, new.delta, share),
            between(old.gradient, new.gradient, whole),
            new.pending,
            between(old.rule, new.rule, share),
            between(old.inputs, new.inputs, whole),
        )
        for old, new in zip(before.fast, after.fast, strict=True)
    )
    # who has written nothing reads with the weights that all rows share
    writes = after.writes if bool((share > 0).any()) else before.writes
    return after._replace(fast=fast, writes=writes)


def lerp(old: Tensor, new: Tensor, share: Float[Tensor, " b"]) -> Tensor:
    """Return `old + share (new - old)`, with a share for each row."""
    return torch.lerp(old, new, share.to(old).view(-1, *[1] * (old.dim() - 1)))
