"""Deep momentum: the memory of past gradients is a small network that is trained along with the weights."""

from typing import NamedTuple

import torch

from nested_learning.ops.rules.rule import Rate
from nested_learning.shapes import Float, Tensor

# hidden units of the memory: about how many directions of gradients it can keep apart
WIDTH = 16
TINY = 1e-12


class DeepMomentumState(NamedTuple):
    """The two layers of the memory. It has `2 i WIDTH` numbers for weights `[o, i]`."""

    keys: Float[Tensor, "*batch i h"]
    values: Float[Tensor, "*batch h i"]


def init_deep_momentum(w: Float[Tensor, "*batch o i"]) -> DeepMomentumState:
    """Return the state of `deep_momentum`: fixed random keys of about unit length, and values of zero."""
    *batch, _, width = w.shape
    drawn = torch.randn(width, WIDTH, generator=torch.Generator().manual_seed(0)).to(w) / WIDTH**0.5
    return DeepMomentumState(drawn.expand(*batch, -1, -1).clone(), w.new_zeros(*batch, WIDTH, width))


def deep_momentum(
    w: Float[Tensor, "*batch o i"],
    g: Float[Tensor, "*batch o i"],
    state: DeepMomentumState,
    *,
    lr: Rate,
    weight_decay: float,
    memory_lr: float,
    retention: float,
) -> tuple[Float[Tensor, "*batch o i"], DeepMomentumState]:
    """Train a network m on the gradient, then step along its output for the gradient: `w + lr m(g)`.

    For a row u of g with the direction û of length 1, m(u) = ‖u‖ m(û) and m(û) = tanh(û keys) values. The inner
    objective, which the paper leaves open, is `½ ‖m(û) + û‖²` with each row weighted by its squared length. So m learns
    the directions that recur, and returns little for new ones, such as noise. Each call makes one gradient step of rate
    `memory_lr`, with a decay by the factor `retention`, before m is read.
    Source: Nested Learning, arXiv 2512.24695, equation 50; network and objective are ours.
    """
    length = g.norm(dim=-1, keepdim=True)
    key = g / length.clamp(min=TINY)
    # squared, these are the weights of the rows: they sum to 1, so that memory_lr suits gradients of any size
    fraction = length / length.norm(dim=-2, keepdim=True).clamp(min=TINY)
    hidden = torch.tanh(key @ state.keys)
    error = fraction.square() * (hidden @ state.values + key)
    hidden_error = (error @ state.values.mT) * (1 - hidden.square())
    memory = DeepMomentumState(
        retention * state.keys - memory_lr * key.mT @ hidden_error,
        retention * state.values - memory_lr * hidden.mT @ error,
    )
    step = length * (torch.tanh(key @ memory.keys) @ memory.values)
    return w * (1 - lr * weight_decay) + lr * step, memory
