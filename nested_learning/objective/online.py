"""`objective=online`: read a row in segments; the gradient of each segment's loss updates levels before the next."""

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
from nested_learning.objective.loss import TokenLoss, count_correct
from nested_learning.objective.protocol import State, Step
from nested_learning.shapes import Float, Tensor

# graph nodes that autograd puts where a backward pass has no derivative of its own
NOT_DIFFERENTIABLE = ("torch::autograd::NotImplemented", "torch::autograd::Error")


class Online:
    """Cross-entropy of every valid target, summed; levels with signal=teach learn from it while a row is read.

    A row is split into segments where a level's period ends (and every `segment` tokens, which changes no result). The
    gradient of a segment's summed loss with respect to each row's change of a level's weights is accumulated in the
    state, and applied by the level's rule at the end of its period. Later segments use the new weights; the loss is the
    sum over segments. Without such levels this is `next_token`. Levels learn from the cross-entropy alone, without the
    z-loss and label smoothing of `loss`. Source: Nested Learning, arXiv 2512.24695, equation 71.
    """

    def __init__(self, segment: int | None = None, loss: TokenLoss | None = None) -> None:
        self.segment, self.loss = segment, loss or TokenLoss()
        self._is_checked = False

    def __call__(self, model: nn.Module, batch: Batch, state: State) -> Step:
        """Return the step over `batch`. Levels need gradients, which are computed even under `torch.no_grad`.

        Raises ConfigError when a level has gradient=through and a part of the model has no second derivative.
        """
        is_recorded = torch.is_grad_enabled()
        scores = []
        with torch.enable_grad():
            for tokens, targets in self._segments(batch, state):
                state = require_grad(state)
                with _twice_differentiable(state):
                    of_segment, state = self.loss.read(model, tokens, targets, state)
                scores.append(of_segment)
                state = self.write(of_segment.nats.sum(), state)
            losses, nats, correct = (torch.cat(each, 1) for each in zip(*scores, strict=True))
            loss = losses.sum()
        if not is_recorded:
            loss, state = loss.detach(), tree.map(torch.detach, state)
        valid = batch.targets != IGNORE
        return Step(loss, valid.sum(), count_correct(correct, valid), nats.detach(), state)

    def _segments(self, batch: Batch, state: State) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the tokens and targets of each segment: up to the next end of a period, at most `segment` tokens."""
        levels = taught_levels(state)
        done, num_tokens = 0, batch.tokens.shape[1]
        while done < num_tokens:
            # a period may have started in an earlier batch: `position` is the tokens that the rows have read before
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
        """Update every taught level of `state`, which `require_grad` has prepared, with its gradient of `loss`."""
        levels = taught_levels(state)
        if not levels:
            return state
        is_through = any(level.clocks[0].is_through for level in levels)
        gradients = level_gradients(loss, levels, create_graph=is_through)
        # later steps have the same kinds of operations, so only the first is checked
        if is_through and not self._is_checked:
            refuse_single_derivatives([matrix for gradient in gradients for matrix in gradient])
            self._is_checked = True
        return write_gradients(state, gradients)


def refuse_single_derivatives(gradients: Sequence[Tensor]) -> None:
    """Raise ConfigError when the `gradients` cannot be differentiated again."""
    seen, waiting = set(), [gradient.grad_fn for gradient in gradients]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() in NOT_DIFFERENTIABLE:
            raise ConfigError(
                "model.levels: gradient=through differentiates twice, and a part of this model has no second "
                "derivative; use gradient: first_order"
            )
        waiting += [following for following, _ in node.next_functions]


def _twice_differentiable(state: State) -> AbstractContextManager[None]:
    """Return a context in which the gradient of a forward pass is differentiable: without fused attention."""
    if any(level.clocks[0].is_through for level in taught_levels(state)):
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()
