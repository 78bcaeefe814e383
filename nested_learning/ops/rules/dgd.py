"""Delta gradient descent: the weights decay along the inputs of the gradient."""

from typing import NamedTuple

import torch

from nested_learning.ops.rules.rule import Rate
from nested_learning.shapes import Float, Tensor


class DGDState(NamedTuple):
    """Empty: delta gradient descent keeps no state."""


def init_dgd(w: Float[Tensor, "*batch o i"]) -> DGDState:  # noqa: ARG001  (all rules have this signature)
    """Return the state of `dgd`, which is empty."""
    return DGDState()


def dgd(
    w: Float[Tensor, "*batch o i"],
    g: Float[Tensor, "*batch o i"],
    state: DGDState,
    *,
    lr: Rate,
    weight_decay: float,
    input_decay: float,
    x: Float[Tensor, "*batch n i"],
) -> tuple[Float[Tensor, "*batch o i"], DGDState]:
    """Map the inputs `x` to their negative errors, staying close to `w`: `(w - lr g) (I + lr xᵀ x)⁻¹`.

    This minimises `½ Σ ‖w' x - u‖² + ‖w' - w‖² / (2 lr)`, `u = -∂L/∂y`, exactly and for all n inputs at once;
    `g = Σ ∂L/∂y x` must be summed over the same inputs (for a mean loss divide `x` by √n). For one input it is
    `w (I - lr' x xᵀ) - lr' g` with `lr' = lr / (1 + lr ‖x‖²)`. The decay acts on the weight, never on the gradient.
    `input_decay` scales the decay: 1 is the paper's, 0 is `gd`.
    Source: Nested Learning, arXiv 2512.24695, equations 56-57.
    """
    moved = w * (1 - lr * weight_decay) - lr * g
    rate = lr * input_decay
    # (I + rate xᵀ x)⁻¹ = I - rate xᵀ (I + rate x xᵀ)⁻¹ x: a system of n equations, not of the input's width
    system = torch.eye(x.shape[-2], dtype=x.dtype, device=x.device) + rate * (x @ x.mT)
    return moved - rate * (moved @ x.mT) @ torch.linalg.solve(system, x), state
