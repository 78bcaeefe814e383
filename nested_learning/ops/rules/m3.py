"""M3, multi-scale momentum Muon: a fast and a slow momentum, both orthogonalised, scaled as in Adam."""

from typing import NamedTuple

import torch

from nested_learning.ops.orthogonal import newton_schulz
from nested_learning.ops.rules.adamw import TINY
from nested_learning.ops.rules.rule import Rate
from nested_learning.shapes import Float, Tensor


class M3State(NamedTuple):
    """The state of `m3`.

    `fast`, `slow`: the two momenta; `slow_step`: the orthogonalised slow one; `waiting`: the sum of the gradients that
    are not yet in the slow one; `square`: the sum of squared gradients.
    """

    fast: Float[Tensor, "*batch r c"]
    slow: Float[Tensor, "*batch r c"]
    slow_step: Float[Tensor, "*batch r c"]
    waiting: Float[Tensor, "*batch r c"]
    square: Float[Tensor, "*batch r c"]
    num_updates: int


def init_m3(w: Float[Tensor, "*batch r c"]) -> M3State:
    """Return the state of `m3` before the first update."""
    fast, slow, slow_step, waiting, square = (torch.zeros_like(w) for _ in range(5))
    return M3State(fast, slow, slow_step, waiting, square, 0)


def m3(
    w: Float[Tensor, "*batch r c"],
    g: Float[Tensor, "*batch r c"],
    state: M3State,
    *,
    lr: Rate,
    weight_decay: float,
    slow_weight: float,
    slow_every: int,
    eps: float,
) -> tuple[Float[Tensor, "*batch r c"], M3State]:
    """Step along `(NS(fast) + slow_weight NS(slow)) / (√square + eps)`; the weight decay is decoupled.

    Sums, not means, as in the paper: `fast += g` and `square += g²` at every update. Once in `slow_every` updates,
    before the new gradient is used, `slow +=` the gradients since the last time. The last two dimensions are the
    matrix. The paper's factors need no keys: NS does not depend on the scale β1 and β3 of its argument, and β2 equals
    lr and eps times `β2 ** -0.5`. Orthogonalisation also moves elements that had no gradient, and only `eps` limits
    these steps: it should be near the usual size of √square. Far above it, and with `slow_weight` 0, this is Muon at
    the rate `lr / eps` with a momentum that does not decay.
    Source: Nested Learning, arXiv 2512.24695, equation 75 and algorithm 1.
    """
    slow, slow_step, waiting = state.slow, state.slow_step, state.waiting
    if state.num_updates > 0 and state.num_updates % slow_every == 0:
        slow = slow + waiting
        slow_step, waiting = newton_schulz(slow), torch.zeros_like(waiting)
    fast, square = state.fast + g, state.square + g * g
    step = (newton_schulz(fast) + slow_weight * slow_step) / (square.clamp(min=TINY).sqrt() + eps)
    new = M3State(fast, slow, slow_step, waiting + g, square, state.num_updates + 1)
    return w * (1 - lr * weight_decay) - lr * step, new
