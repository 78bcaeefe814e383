"""Gradient descent with momentum (heavy ball)."""

from typing import NamedTuple

import torch

from nested_learning.ops.rules.rule import Rate
from nested_learning.shapes import Float, Tensor


class MomentumState(NamedTuple):
    """The momentum: the last step."""

    momentum: Float[Tensor, "..."]


def init_momentum(w: Float[Tensor, "..."]) -> MomentumState:
    """Return the state of `momentum` before the first update."""
    return MomentumState(torch.zeros_like(w))


def momentum(
    w: Float[Tensor, "..."],
    g: Float[Tensor, "..."],
    state: MomentumState,
    *,
    lr: Rate,
    weight_decay: float,
    momentum: float,
) -> tuple[Float[Tensor, "..."], MomentumState]:
    """Step along a decaying sum of gradients: `m = momentum m - lr g`, `w + m`.

    The rate is inside the sum: each gradient is scaled by the rate of its own step. Source: Nested Learning, arXiv
    2512.24695, equation 33; at a constant rate this is the momentum of `torch.optim.SGD`.
    """
    step = momentum * state.momentum - lr * g
    return w * (1 - lr * weight_decay) + step, MomentumState(step)
