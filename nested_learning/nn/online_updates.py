"""Taught levels, which learn from the model's loss: gradients at their changes, and the updates made with them.

Per segment: `require_grad` on the state, forward pass and loss, `level_gradients`, `write_gradients`.
"""

from collections.abc import Sequence

import torch

from nested_learning import tree
from nested_learning.nn.level_state import LevelState, MLPWeights, write_gradient
from nested_learning.nn.memory import State
from nested_learning.shapes import Float, Tensor


def taught_levels(state: State) -> list[LevelState]:
    """List the levels of `state` that learn from the gradient of the model's loss."""
    return [level for level in tree.nodes(LevelState, state) if is_taught(level)]


def is_taught(level: LevelState) -> bool:
    """Say whether a level learns from the gradient of the model's loss."""
    return level.clocks[0].signal == "teach"


def require_grad(state: State) -> State:
    """Return `state` with the changes of taught levels as leaves, so that `level_gradients` can differentiate there."""
    return tree.map_nodes(LevelState, _require_grad, state)


def level_gradients(
    loss: Float[Tensor, ""], levels: Sequence[LevelState], *, create_graph: bool = False
) -> list[MLPWeights]:
    """Return the gradient of `loss` at the changes of rows on `levels`; call `require_grad` before the forward pass."""
    changes = [matrix for level in levels for matrix in level.fast[0].delta]
    # the graph is kept: the training step differentiates the same loss for the parameters
    gradients = torch.autograd.grad(loss, changes, retain_graph=True, create_graph=create_graph)
    return [MLPWeights(*pair) for pair in zip(gradients[::2], gradients[1::2], strict=True)]


def write_gradients(state: State, gradients: Sequence[MLPWeights]) -> State:
    """Add the gradients of the tokens just read to taught levels; update those at the end of a period."""
    given = iter(gradients)
    return tree.map_nodes(
        LevelState, lambda level: write_gradient(level, next(given)) if is_taught(level) else level, state
    )


def tokens_to_boundary(period: int, position: int) -> int:
    """Count the tokens from `position` to the next multiple of `period`, at least 1."""
    return period - position % period


def _require_grad(level: LevelState) -> LevelState:
    if not is_taught(level) or level.fast[0].delta.up.requires_grad:
        return level
    # only the change of the level's own clock: changes of slower clocks are added to it, so their gradient is the same
    own = level.fast[0]
    return level._replace(fast=(own._replace(delta=MLPWeights(*map(_as_leaf, own.delta))), *level.fast[1:]))


def _as_leaf(matrix: Tensor) -> Tensor:
    leaf = matrix.detach().requires_grad_()
    # the backward pass of the training step reaches this leaf too and would store a gradient that is never read
    leaf.register_post_accumulate_grad_hook(_drop_gradient)
    # a view: torch's FlopCounterMode can only hook tensors that are not leaves
    return leaf.view_as(leaf)


def _drop_gradient(matrix: Tensor) -> None:
    matrix.grad = None
