"""AdamW: Adam with decoupled weight decay; without decay, Adam."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from nested_learning.ops.rules.rule import Rate
from nested_learning.shapes import Float, Tensor

# far below eps²; keeps the derivative of the root finite where every gradient was zero
TINY = 1e-30


class AdamWState(NamedTuple):
    """Running means of the gradient and of its square, and the number of updates made."""

    mean: Float[Tensor, "..."]
    square: Float[Tensor, "..."]
    num_updates: int


def init_adamw(w: Float[Tensor, "..."]) -> AdamWState:
    """Return the state of `adamw` before the first update."""
    return AdamWState(torch.zeros_like(w), torch.zeros_like(w), 0)


def adamw(
    w: Float[Tensor, "..."],
    g: Float[Tensor, "..."],
    state: AdamWState,
    *,
    lr: Rate,
    weight_decay: float,
    betas: Sequence[float],
    eps: float,
) -> tuple[Float[Tensor, "..."], AdamWState]:
    """Divide the mean of the gradient by the root of its mean square; the weight decay is decoupled.

    Source: Loshchilov and Hutter, arXiv 1711.05101, algorithm 2, with the schedule inside `lr`.
    """
    num_updates = state.num_updates + 1
    mean = betas[0] * state.mean + (1 - betas[0]) * g
    square = betas[1] * state.square + (1 - betas[1]) * g * g
    size = (square / (1 - betas[1] ** num_updates)).clamp(min=TINY).sqrt()
    step = mean / (1 - betas[0] ** num_updates) / (size + eps)
    return w * (1 - lr * weight_decay) - lr * step, AdamWState(mean, square, num_updates)
