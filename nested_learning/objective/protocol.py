"""The interface of objectives: model, batch and state give a loss, its metrics, and the next state."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import nn

from nested_learning.data.batch import Batch
from nested_learning.shapes import Float, Int, Tensor

State = Any


class Step(NamedTuple):
    """What reading one batch gave. Everything is a sum, so that micro-batches of a batch simply add up.

    `loss`: what is differentiated, the nats of the valid targets and what training adds to them; `num_targets`: how
    many they are;
    `metrics`: sums `correct` (targets guessed right), `rows` (with a valid target) and `rows_correct` (all right);
    `nats`: the cross-entropy of each position (detached, 0 where there is no target); `state`: after the last token.
    """

    loss: Float[Tensor, ""]
    num_targets: Int[Tensor, ""]
    metrics: dict[str, Tensor]
    nats: Float[Tensor, "b t"]
    state: State


@runtime_checkable
class Objective(Protocol):
    """Returns the loss of a batch read from `state`; `model` is anything called as `model(tokens, state)`."""

    def __call__(self, model: nn.Module, batch: Batch, state: State) -> Step:
        """Return the step; the caller divides its loss by the valid targets of the whole global batch."""
        ...
