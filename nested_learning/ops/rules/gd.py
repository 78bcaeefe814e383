"""Gradient descent."""

from typing import NamedTuple

from nested_learning.ops.rules.rule import Rate
from nested_learning.shapes import Float, Tensor


class GDState(NamedTuple):
    """Empty: gradient descent keeps no state."""


def init_gd(w: Float[Tensor, "..."]) -> GDState:  # noqa: ARG001  (all rules have this signature)
    """Return the state of `gd`, which is empty."""
    return GDState()


def gd(
    w: Float[Tensor, "..."], g: Float[Tensor, "..."], state: GDState, *, lr: Rate, weight_decay: float
) -> tuple[Float[Tensor, "..."], GDState]:
    """Step against the gradient: `w - lr g`; the weight decay is decoupled.

    Source: Nested Learning, arXiv 2512.24695, equation 32.
    """
    return w * (1 - lr * weight_decay) - lr * g, state
