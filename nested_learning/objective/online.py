"""`objective=online`: read a row in segments; the gradient of the loss of each updates levels before the next."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nested_learning import tree
from nested_learning.data.batch import IGNORE, Batch
from nested_learning.errors import ConfigError
from nested_learning.nn.online_updates import (
    level_gradients,
    require_grad,
    taught_levels,
    tokens_to_boundary,
    write_gradients,
)
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
                state = require_grad(state)
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
        levels = taught_levels(state)
        done, num_tokens = 0, batch.tokens.shape[1]
        while done < num_tokens:
            ends = [
                done + tokens_to_boundary(clock.period, level.position + done)
                for level in levels
                for clock in level.clocks
            ]
            if self.segment is not None:
                ends.append(done + tokens_to_boundary(self.segment, done))
            until = min([*ends, num_tokens])
            yield batch.tokens[:, done:until], batch.targets[:, done:until]
            done = until

    def write(self, loss: Float[Tensor, ""], state: State) -> State:
        """Give every taught level of `state`, which was watched before the reading, its gradient of `loss`."""
        levels = taught_levels(state)
        if not levels:
            return state
        is_through = any(level.clocks[0].is_through for level in levels)
        gradients = level_gradients(loss, levels, create_graph=is_through)
        if is_through and not self._is_checked:
            refuse_single_derivatives([matrix for gradient in gradients for matrix in gradient])
            self._is_checked = True
        return write_gradients(state, gradients)


def refuse_single_derivatives(gradients: Sequence[Tensor]) -> None:
    """Raise ConfigError when what made the `gradients` cannot be differentiated once more."""
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


def _twice_differentiable(state: State) -> AbstractContextManager[None]:
    """Return the context of a forward pass whose gradient may be differentiated: fused attention's cannot."""
    if any(level.clocks[0].is_through for level in taught_levels(state)):
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()
