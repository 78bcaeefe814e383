"""Delta momentum: a gradient replaces what the momentum contains along its direction."""

import torch

from nested_learning.ops.rules.momentum import MomentumState
from nested_learning.ops.rules.rule import Rate
from nested_learning.shapes import Float, Tensor


def init_delta_momentum(w: Float[Tensor, "*batch o i"]) -> MomentumState:
    """Return the state of `delta_momentum` before the first update."""
    return MomentumState(torch.zeros_like(w))


def delta_momentum(
    w: Float[Tensor, "*batch o i"],
    g: Float[Tensor, "*batch o i"],
    state: MomentumState,
    *,
    lr: Rate,
    weight_decay: float,
    momentum: float,
    erase: float,
) -> tuple[Float[Tensor, "*batch o i"], MomentumState]:
    """Write each gradient into the momentum by the delta rule: `m = m (momentum - rate gᵀ g) - lr g`, `w + m`.

    `rate = erase / (1 + erase ‖g‖²)`, as in the exact step of `dgd`: a large gradient replaces what the momentum
    contains along its direction; for small ones the rule is `momentum`. The factor on m stays in
    (momentum - 1, momentum] at any size of the gradient; the paper's, `momentum - gᵀ g`, leaves (-1, 1) where ‖g‖²
    exceeds 1 + momentum. `erase` 0 is `momentum`, 1 the paper's for small gradients; the preconditioner P is the
    identity. A vector is a matrix of one row.
    Source: Nested Learning, arXiv 2512.24695, equations 48-49.
    """
    rate = erase / (1 + erase * g.square().sum(dim=(-2, -1), keepdim=True))
    step = momentum * state.momentum - rate * (state.momentum @ g.mT) @ g - lr * g
    return w * (1 - lr * weight_decay) + step, MomentumState(step)
