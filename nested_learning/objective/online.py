"""`objective=online`: read the row piece by piece; the task's error of each piece writes levels before the next."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nested_learning import tree
from nested_learning.data.batch import IGNORE, Batch
from nested_learning.errors import ConfigError
from nested_learning.nn.level_state import LevelState, MLPWeights, write_gradient
from nested_learning.objective.loss import TokenLoss, count
from nested_learning.objective.protocol import State, Step
from nested_learning.shapes import Float, Tensor

# what a backward pass leaves in the graph in the place of its own derivative when it has none
SINGLE = ("torch::autograd::NotImplemented", "torch::autograd::Error")


class Online:
    """Cross-entropy of every valid target, summed; levels whose signal is `teach` learn from it while it is read.

    The row is cut where a level's period ends (and every `segment` tokens, which changes no result). The gradient of a
    piece's summed loss with respect to the change of the weights that each row has is the sum over its tokens of the
    gradient at that level's own output: it is added up in the state, and at the end of a period the level's rule
    applies it. What is read later finds the new weights; the loss is the sum over the pieces. Without such levels
    this is `next_token`. Levels learn from the cross-entropy alone, whatever `loss` adds to it for the weights. Source:
    Nested Learning, arXiv 2512.24695, equation 71.
    """

    def __init__(self, segment: int | None = None, loss: TokenLoss | None = None) -> None:
        self.segment, self.loss = segment, loss or TokenLoss()
        self._is_checked = False

    def __call__(self, model: nn.Module, batch: Batch, state: State) -> Step:
        """Return the step over `batch`. Writes need gradients: they are computed even where the caller records none.

        Raises ConfigError when a level's gradient goes through its writes, and a part of the model has no second
        derivative.
        """
        is_recorded = torch.is_grad_enabled()
        scores = []
        with torch.enable_grad():
            for tokens, targets in self._pieces(batch, state):
                state = watch(state)
                with _twice_differentiable(state):
                    piece, state = self.loss.read(model, tokens, targets, state)
                scores.append(piece)
                state = self.write(piece.nats.sum(), state)
            losses, nats, right = (torch.cat(parts, 1) for parts in zip(*scores, strict=True))
            loss = losses.sum()
        if not is_recorded:
            loss, state = loss.detach(), tree.map(torch.detach, state)
        valid = batch.targets != IGNORE
        return Step(loss, valid.sum(), count(right, valid), nats.detach(), state)

    def _pieces(self, batch: Batch, state: State) -> Iterator[tuple[Tensor, Tensor]]:
        levels = [level for level in tree.nodes(LevelState, state) if is_taught(level)]
        done, num_tokens = 0, batch.tokens.shape[1]
        while done < num_tokens:
            ends = [done + _to_next(clock.period, level.position + done) for level in levels for clock in level.clocks]
            if self.segment is not None:
                ends.append(done + _to_next(self.segment, done))
            until = min([*ends, num_tokens])
            yield batch.tokens[:, done:until], batch.targets[:, done:until]
            done = until

    def write(self, loss: Float[Tensor, ""], state: State) -> State:
        """Give every taught level of `state`, which was watched before the reading, its gradient of `loss`."""
        levels = [level for level in tree.nodes(LevelState, state) if is_taught(level)]
        if not levels:
            return state
        is_through = any(level.clocks[0].is_through for level in levels)
        changes = [matrix for level in levels for matrix in level.fast[0].delta]
        gradients = torch.autograd.grad(loss, changes, retain_graph=True, create_graph=is_through)
        if is_through and not self._is_checked:
            refuse_single_derivatives(gradients)
            self._is_checked = True
        pairs = iter(zip(gradients[::2], gradients[1::2], strict=True))
        return tree.map_nodes(
            LevelState,
            lambda level: write_gradient(level, MLPWeights(*next(pairs))) if is_taught(level) else level,
            state,
        )


def is_taught(level: LevelState) -> bool:
    """Say whether the task's error writes a level."""
    return level.clocks[0].signal == "teach"


def refuse_single_derivatives(gradients: tuple[Tensor, ...]) -> None:
    """Raise ConfigError when what made the `gradients` cannot be differentiated once more. Source: ours."""
    seen, waiting = set(), [gradient.grad_fn for gradient in gradients]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() in SINGLE:
            raise ConfigError(
                "model.levels: gradient=through differentiates twice, and a part of this model is made for one "
                "derivative; use gradient: first_order"
            )
        waiting += [following for following, _ in node.next_functions]


def watch(state: State) -> State:
    """Make what rows have written on taught levels something that a gradient can be asked for. Source: ours."""
    return tree.map_nodes(LevelState, _watch, state)


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


def _to_next(period: int, position: int) -> int:
    return period - position % period


def _twice_differentiable(state: State) -> AbstractContextManager[None]:
    """Return the context of a forward pass whose gradient may be differentiated: fused attention's cannot."""
    if any(is_taught(level) and level.clocks[0].is_through for level in tree.nodes(LevelState, state)):
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()
