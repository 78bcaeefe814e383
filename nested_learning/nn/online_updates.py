"""Levels that the task's error writes: what rows have written is watched, the gradient of a loss asked for, written."""

from collections.abc import Sequence

import torch

from nested_learning import tree
from nested_learning.nn.level_state import LevelState, MLPWeights, write_gradient
from nested_learning.nn.memory import State
from nested_learning.shapes import Float, Tensor


def taught(state: State) -> list[LevelState]:
    """List the levels of `state` that the task's error writes."""
    return [level for level in tree.nodes(LevelState, state) if is_taught(level)]


def is_taught(level: LevelState) -> bool:
    """Say whether the task's error writes a level."""
    return level.clocks[0].signal == "teach"


def watch(state: State) -> State:
    """Make what rows have written on taught levels something that a gradient can be asked for. Source: ours."""
    return tree.map_nodes(LevelState, _watch, state)


def ask_gradients(
    loss: Float[Tensor, ""], levels: Sequence[LevelState], *, create_graph: bool = False
) -> list[MLPWeights]:
    """Return the gradient of `loss` at what each row wrote on `levels`, which were watched before the reading."""
    changes = [matrix for level in levels for matrix in level.fast[0].delta]
    gradients = torch.autograd.grad(loss, changes, retain_graph=True, create_graph=create_graph)
    return [MLPWeights(*pair) for pair in zip(gradients[::2], gradients[1::2], strict=True)]


def write_gradients(state: State, gradients: Sequence[MLPWeights]) -> State:
    """Give every taught level of `state` its gradient of the tokens just read; those that are due are written."""
    given = iter(gradients)
    return tree.map_nodes(
        LevelState, lambda level: write_gradient(level, next(given)) if is_taught(level) else level, state
    )


def to_next(period: int, position: int) -> int:
    """Count the tokens from `position` to the next end of a period."""
    return period - position % period


def _watch(level: LevelState) -> LevelState:
    if not is_taught(level) or level.fast[0].delta.up.requires_grad:
        return level
    own = level.fast[0]
    return level._replace(fast=(own._replace(delta=MLPWeights(*map(_watched, own.delta))), *level.fast[1:]))


def _watched(matrix: Tensor) -> Tensor:
    leaf = matrix.detach().requires_grad_()
    # the outer gradient comes by as well, and would stay
    leaf.register_post_accumulate_grad_hook(_drop_gradient)
    # who counts operations asks of no leaf when its gradient comes
    return leaf.view_as(leaf)


def _drop_gradient(matrix: Tensor) -> None:
    matrix.grad = None
