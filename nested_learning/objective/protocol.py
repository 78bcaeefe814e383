"""The interface of objectives: model, batch and state give a loss, its metrics, and the next state."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import nn

from nested_learning.data.batch import Batch
from nested_learning.shapes import Float, Int, Tensor

State = Any


class Step(NamedTuple):
    """The result of reading one batch. Everything is a sum, so that the steps of micro-batches can be added.

    `loss`: the sum to differentiate, in nats over the valid targets, with regularizers; `num_targets`: the number of
    valid targets; `metrics`: sums `correct` (targets predicted correctly), `rows` (with a valid target) and
    `rows_correct` (no target wrong); `nats`: the cross-entropy of each position (detached, 0 where there is no target);
    `state`: the state after the last token.
    """

    loss: Float[Tensor, ""]
    num_targets: Int[Tensor, ""]
    metrics: dict[str, Tensor]
    nats: Float[Tensor, "b t"]
    state: State


@runtime_checkable
class Objective(Protocol):
    """Reads a batch from `state` and returns its loss; `model` is anything called as `model(tokens, state)`."""

    def __call__(self, model: nn.Module, batch: Batch, state: State) -> Step:
        """Return the step; the caller divides its loss by the valid targets of the whole global batch."""
        ...
