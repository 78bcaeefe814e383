"""Statistics of a memory: its error on each token, how much it retains, and how many directions it uses.

They are computed apart from the forward pass, and repeat it once; training and inference do not call this.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import torch

from nested_learning.ops.associative import associative
from nested_learning.ops.memory import Design, Memory, Tokens, Weights, apply_memory, full_weights
from nested_learning.ops.self_modifying import (
    QKV,
    Memories,
    SelfDesign,
    State,
    chunk_start_weights,
    generate,
    segment_sizes,
    self_modifying,
    write_tokens,
)
from nested_learning.shapes import Float, Tensor


class TokenStats(NamedTuple):
    """For each token: the norm of the memory's error on it just before its write, and its retention gate."""

    surprise: Float[Tensor, "b h t"]
    retention: Float[Tensor, "b h t"]


def token_stats(tokens: Tokens, memory: Memory, base: Weights | None, design: Design) -> TokenStats:
    """Return the surprise `|M_{t-1}(k_t) - v_t|` of each token and the retention of its write.

    The surprise is the norm of the inner gradient at the memory's output (Titans, arXiv 2501.00663, equation 8; for a
    matrix and a unit key it is the norm of the whole gradient), at the weights just before the write, for every design.
    """
    k, v = tokens.k, tokens.v
    first = apply_memory(k[:, :, :1], full_weights(base, memory.weight), design)
    by_token = replace(design, read="token")
    # a read with the key of the next token, just after token t: the memory's output for token t+1 before its write
    following, _ = associative(tokens._replace(q=k.roll(-1, 2)), memory, base, by_token)
    outputs = torch.cat([first, following[:, :, :-1]], dim=2)
    return TokenStats((outputs - v).norm(dim=-1), tokens.gates.log_retention.exp())


def self_modifying_stats(qkv: QKV, base: Memories, state: State, design: SelfDesign) -> dict[str, TokenStats]:
    """Return `token_stats` of every memory, towards the target that it generates itself."""
    segments: dict[str, list[TokenStats]] = {name: [] for name in state}
    sizes = segment_sizes(qkv.query.shape[2], state, design)
    for part in zip(*(x.split(sizes, dim=2) for x in qkv), strict=True):
        here, start = QKV(*part), chunk_start_weights(base, state)
        generated = generate(here, start, design)
        for name, memory in state.items():
            tokens = write_tokens(name, generated, start, design)
            segments[name].append(token_stats(tokens, memory, base[name], design.of(name)))
        _, state = self_modifying(here, base, state, design)
    return {
        name: TokenStats(*(torch.cat(z, dim=2) for z in zip(*each, strict=True))) for name, each in segments.items()
    }


def norm(weights: Iterable[Float[Tensor, "b ..."]]) -> Float[Tensor, " b"]:
    """Return the norm of all `weights` together, for each row."""
    return torch.stack([weight.flatten(1).square().sum(1) for weight in weights]).sum(0).sqrt()


def mean_rank(weights: Iterable[Float[Tensor, "b ..."]]) -> Float[Tensor, " b"]:
    """Return the mean of the effective ranks of all matrices in `weights`, for each row."""
    return torch.cat([effective_rank(weight).reshape(len(weight), -1) for weight in weights], dim=1).mean(1)


def effective_rank(matrix: Float[Tensor, "*n i o"]) -> Float[Tensor, "*n"]:
    """Return the exponential of the entropy of the singular values, each divided by their sum.

    From 1 (all in one direction) to the number of rows or columns (all directions alike); 0 for a matrix of zeros, NaN
    where the matrix is not finite. Source: Roy and Vetterli, The effective rank, EUSIPCO 2007, section 3.
    """
    is_finite = matrix.isfinite().all(-1).all(-1)
    # svdvals raises an error for values that are not finite, and a measurement must not stop a run
    values = torch.linalg.svdvals(torch.where(is_finite[..., None, None], matrix, 0.0))
    total = values.sum(-1, keepdim=True)
    fraction = values / torch.where(total > 0, total, 1.0)
    rank = torch.special.entr(fraction).sum(-1).exp() * (total[..., 0] > 0)
    return torch.where(is_finite, rank, torch.nan)
