"""Learning rules: how weights follow a gradient. Pure functions, shared by every memory, level and optimizer.

A rule is a pair of functions, `init(w) -> state` and `(w, g, state, *, lr, ...) -> (w, state)`, that change none of
their arguments. A state is a NamedTuple of tensors shaped like the weights, beside plain integers. These are the
readable forms; an optimizer's faster, in-place twins stand in `optim/updates.py`. A new rule joins by one entry in
`RULES`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from nested_learning.ops.orthogonal import newton_schulz
from nested_learning.shapes import Float, Tensor


class Rule(NamedTuple):
    """A rule by its two functions, and the least rank of weights it is defined for."""

    init: Callable[..., Any]
    update: Callable[..., Any]
    min_rank: int


class AdamWState(NamedTuple):
    """Running means of the gradient and of its square, and the number of updates made."""

    mean: Float[Tensor, "..."]
    square: Float[Tensor, "..."]
    num_updates: int


class MuonState(NamedTuple):
    """The running mean of the gradient."""

    momentum: Float[Tensor, "..."]


def init_adamw(w: Float[Tensor, "..."]) -> AdamWState:
    """Return the state of `adamw` before the first update."""
    return AdamWState(torch.zeros_like(w), torch.zeros_like(w), 0)


def adamw(
    w: Float[Tensor, "..."],
    g: Float[Tensor, "..."],
    state: AdamWState,
    *,
    lr: float,
    weight_decay: float,
    betas: Sequence[float],
    eps: float,
) -> tuple[Float[Tensor, "..."], AdamWState]:
    """Divide the mean of the gradient by the root of its mean square; decay the weights apart from it.

    Source: Loshchilov and Hutter, arXiv 1711.05101, algorithm 2, with the schedule inside `lr`.
    """
    num_updates = state.num_updates + 1
    mean = betas[0] * state.mean + (1 - betas[0]) * g
    square = betas[1] * state.square + (1 - betas[1]) * g * g
    step = mean / (1 - betas[0] ** num_updates) / ((square / (1 - betas[1] ** num_updates)).sqrt() + eps)
    return w * (1 - lr * weight_decay) - lr * step, AdamWState(mean, square, num_updates)


def init_muon(w: Float[Tensor, "..."]) -> MuonState:
    """Return the state of `muon` before the first update."""
    return MuonState(torch.zeros_like(w))


def muon(
    w: Float[Tensor, "*batch r c"],
    g: Float[Tensor, "*batch r c"],
    state: MuonState,
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
) -> tuple[Float[Tensor, "*batch r c"], MuonState]:
    """Step along the orthogonalised Nesterov momentum. The last two dimensions are the matrix, the others a batch.

    Source: Nested Learning, arXiv 2512.24695, equation 52, in the form of `torch.optim.Muon`.
    """
    mean = momentum * state.momentum + (1 - momentum) * g
    ahead = momentum * mean + (1 - momentum) * g
    step = muon_scale(w) * newton_schulz(ahead)
    return w * (1 - lr * weight_decay) - lr * step, MuonState(mean)


def muon_scale(w: Float[Tensor, "*batch r c"]) -> float:
    """Return the factor that gives an orthogonal matrix the root mean square of an AdamW step, about 0.2.

    With it a learning rate and a weight decay found for AdamW serve Muon too, at any width. Source: Liu et al., arXiv
    2502.16982, section 2.2.
    """
    return 0.2 * max(w.shape[-2:]) ** 0.5


RULES = {
    "adamw": Rule(init_adamw, adamw, min_rank=0),
    "muon": Rule(init_muon, muon, min_rank=2),
}
