"""Muon: momentum that is orthogonalised, so that its singular values are about equal."""

from typing import NamedTuple

import torch

from nested_learning.ops.orthogonal import newton_schulz
from nested_learning.ops.rules.rule import Rate
from nested_learning.shapes import Float, Tensor


class MuonState(NamedTuple):
    """The running mean of the gradient."""

    momentum: Float[Tensor, "..."]


def init_muon(w: Float[Tensor, "*batch r c"]) -> MuonState:
    """Return the state of `muon` before the first update."""
    return MuonState(torch.zeros_like(w))


def muon(
    w: Float[Tensor, "*batch r c"],
    g: Float[Tensor, "*batch r c"],
    state: MuonState,
    *,
    lr: Rate,
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

    With it Muon can use the learning rate and weight decay of AdamW, at any width. Source: Liu et al., arXiv
    2502.16982, section 2.2.
    """
    return 0.2 * max(w.shape[-2:]) ** 0.5
