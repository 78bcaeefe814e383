"""Momentum of preconditioned gradients."""

from typing import NamedTuple

import torch

from nested_learning.ops.rules.adamw import TINY
from nested_learning.ops.rules.rule import Rate
from nested_learning.shapes import Float, Tensor


class PreconditionedMomentumState(NamedTuple):
    """The momentum (the last step), the running mean of the squared gradient, and the number of updates."""

    momentum: Float[Tensor, "..."]
    square: Float[Tensor, "..."]
    num_updates: int


def init_preconditioned_momentum(w: Float[Tensor, "..."]) -> PreconditionedMomentumState:
    """Return the state of `preconditioned_momentum` before the first update."""
    return PreconditionedMomentumState(torch.zeros_like(w), torch.zeros_like(w), 0)


def preconditioned_momentum(
    w: Float[Tensor, "..."],
    g: Float[Tensor, "..."],
    state: PreconditionedMomentumState,
    *,
    lr: Rate,
    weight_decay: float,
    momentum: float,
    beta: float,
    eps: float,
) -> tuple[Float[Tensor, "..."], PreconditionedMomentumState]:
    """Keep a momentum of rescaled gradients: `m = momentum m - lr P g`, `w + m`.

    The paper leaves P open; here it is diagonal, one over the root of the running mean (by `beta`) of the gradient's
    square. AdamW rescales the mean of the gradients; this rule takes the mean of gradients that were rescaled when
    they arrived. Source: Nested Learning, arXiv 2512.24695, equation 47.
    """
    num_updates = state.num_updates + 1
    square = beta * state.square + (1 - beta) * g * g
    size = (square / (1 - beta**num_updates)).clamp(min=TINY).sqrt()
    step = momentum * state.momentum - lr * g / (size + eps)
    return w * (1 - lr * weight_decay) + step, PreconditionedMomentumState(step, square, num_updates)
