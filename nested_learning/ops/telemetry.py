"""What a memory does while it reads: how wrong it was about each token, how much it kept, how much of it is in use.

Nothing here is on the path of reading or training: whoever wants to know asks, and pays one more read for it.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import torch

from nested_learning.ops.associative import associative
from nested_learning.ops.gates import Gates
from nested_learning.ops.memory import Design, Memory, Weights, add, answer
from nested_learning.ops.self_modifying import (
    QKV,
    READ,
    Memories,
    SelfDesign,
    State,
    cut,
    found_by_chunk,
    generate,
    self_modifying,
)
from nested_learning.shapes import Float, Tensor


class Watched(NamedTuple):
    """What each token found: the memory's error about it, before it was written, and the share that it kept."""

    surprise: Float[Tensor, "b h t"]
    retention: Float[Tensor, "b h t"]


def watch(
    k: Float[Tensor, "b h t i"],
    v: Float[Tensor, "b h t o"],
    gates: Gates,
    memory: Memory,
    base: Weights | None,
    design: Design,
) -> Watched:
    """Return the surprise `|M_{t-1}(k_t) - v_t|` of each token and the retention it was written with.

    That is the norm of the inner gradient at the memory's output (Titans, arXiv 2501.00663, equation 8; of a matrix
    and a unit key, of the whole gradient), at the weights just before the token's write, for every design. A read that
    is asked for the key of the next token gives it in chunks, exactly.
    """
    first = answer(k[:, :, :1], add(base, memory.weight), design)
    by_token = replace(design, read="token")
    following, _ = associative(k.roll(-1, 2), k, v, gates, memory, base, by_token)
    found = torch.cat([first, following[:, :, :-1]], dim=2)
    return Watched((found - v).norm(dim=-1), gates.log_retention.exp())


def watch_self_modifying(views: QKV, base: Memories, state: State, design: SelfDesign) -> dict[str, Watched]:
    """`watch` of every memory, each towards the target that it generates. Source: ours."""
    pieces: dict[str, list[Watched]] = {name: [] for name in state}
    for part in zip(*(x.split(cut(views.query.shape[2], state, design), dim=2) for x in views), strict=True):
        here, found = QKV(*part), found_by_chunk(base, state)
        made = generate(here, found, design)
        for name, memory in state.items():
            target = answer(made.value, found[name], design.of(name))
            gates = made.read if name == READ else made.generating
            pieces[name].append(watch(made.key, target, gates, memory, base[name], design.of(name)))
        _, state = self_modifying(here, base, state, design)
    return {name: Watched(*(torch.cat(z, dim=2) for z in zip(*each, strict=True))) for name, each in pieces.items()}


def norm(weights: Iterable[Float[Tensor, "b ..."]]) -> Float[Tensor, " b"]:
    """Return the norm of all `weights` of a row together. Source: ours."""
    return torch.stack([weight.flatten(1).square().sum(1) for weight in weights]).sum(0).sqrt()


def mean_rank(weights: Iterable[Float[Tensor, "b ..."]]) -> Float[Tensor, " b"]:
    """Return the mean over the matrices in `weights` of their effective ranks, of each row. Source: ours."""
    return torch.cat([effective_rank(weight).reshape(len(weight), -1) for weight in weights], dim=1).mean(1)


def effective_rank(matrix: Float[Tensor, "*n i o"]) -> Float[Tensor, "*n"]:
    """Return the exponential of the entropy of the singular values, as shares of their sum.

    Between 1, all in one direction, and the number of rows or columns, alike in all; 0 of a matrix of zeros, not a
    number where the matrix is not finite. Source: Roy and Vetterli, The effective rank, EUSIPCO 2007, section 3.
    """
    is_finite = matrix.isfinite().all(-1).all(-1)
    # singular values of what is not finite raise an error, and it is not for a measurement to stop a run
    values = torch.linalg.svdvals(torch.where(is_finite[..., None, None], matrix, 0.0))
    total = values.sum(-1, keepdim=True)
    share = values / torch.where(total > 0, total, 1.0)
    rank = torch.special.entr(share).sum(-1).exp() * (total[..., 0] > 0)
    return torch.where(is_finite, rank, torch.nan)
