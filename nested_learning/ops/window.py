"""Softmax attention through a sliding window, in blocks: time and memory per token depend on the window alone."""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from nested_learning.shapes import Bool, Float, Tensor

# fused attention kernels need head widths that are multiples of 8
ALIGNMENT = 8


class Prefix(NamedTuple):
    """Tokens that every query sees, outside the window too: `match`, the scores `q k`, unscaled, and their values."""

    match: Float[Tensor, "b h t p"]
    value: Float[Tensor, "b h p k"]


def window_attention(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b h s k"],
    v: Float[Tensor, "b h s k"],
    window: int,
    num_missing: int,
    prefix: Prefix | None,
) -> Float[Tensor, "b h t k"]:
    """Attend from each of the last `t` tokens to the `window` tokens up to itself, and to the prefix.

    `s` is `window - 1 + t`. The first `num_missing` keys stand for positions before the first token and are masked.
    Queries are split into blocks of half a window, each with the keys of one and a half windows, so that no tensor of
    size `t x s` is made. Source: the sliding window of arXiv 2004.05150, section 3.1; the blocks are ours.
    """
    rows, heads, t, width = q.shape
    prefix_kv = None
    if prefix is not None:
        q, k, v, prefix_kv = add_prefix_features(q, k, v, prefix)
    # smaller blocks mask fewer scores but copy keys more often; at half a window a third of the scores are masked
    size = min(t, max(1, window // 2))
    num_blocks = -(-t // size)
    q, k, v = (F.pad(x, (0, 0, 0, num_blocks * size - t)) for x in (q, k, v))
    blocks = [q.unflatten(2, (num_blocks, size)), *(x.unfold(2, size + window - 1, size).mT for x in (k, v))]
    mask = window_mask(num_blocks, size, window, num_missing, q.device)
    if prefix_kv is not None:
        mask = F.pad(mask, (prefix_kv[0].shape[2], 0), value=True)
        for i, x in enumerate(prefix_kv, start=1):
            blocks[i] = torch.cat([x[:, :, None].expand(-1, -1, num_blocks, -1, -1), blocks[i]], dim=3)
    # rows and heads share one dimension, so that one mask `[n c s]` broadcasts over them
    q, k, v = (x.flatten(0, 1) for x in blocks)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=width**-0.5)
    return y.unflatten(0, (rows, heads)).flatten(2, 3)[:, :, :t, :width]


def add_prefix_features(
    q: Float[Tensor, "b h t k"], k: Float[Tensor, "b h s k"], v: Float[Tensor, "b h s k"], prefix: Prefix
) -> tuple[Float[Tensor, "b h t z"], Float[Tensor, "b h s z"], Float[Tensor, "b h s z"], tuple[Tensor, Tensor]]:
    """Extend queries by one feature for each token of the prefix: their score for it, which is known.

    Return queries, keys and values of the new width, then keys and values of the prefix. A key of the prefix is 1 at
    its own feature and 0 elsewhere, so that `q k` is the given score, and one softmax covers both kinds of keys.
    """
    width, num_prefix = q.shape[-1], prefix.match.shape[-1]
    extra = -(-(width + num_prefix) // ALIGNMENT) * ALIGNMENT - width
    one_hot = torch.eye(num_prefix, width + extra, device=q.device, dtype=k.dtype).roll(width, dims=-1)
    prefix_kv = one_hot.expand(*prefix.value.shape[:2], -1, -1), F.pad(prefix.value, (0, extra))
    q = torch.cat([q, F.pad(prefix.match, (0, extra - num_prefix))], dim=-1)
    # ordinary keys are 0 at the new features: their scores do not change
    return q, F.pad(k, (0, extra)), F.pad(v, (0, extra)), prefix_kv


def window_mask(
    num_blocks: int, size: int, window: int, num_missing: int, device: torch.device
) -> Bool[Tensor, "n c s"]:
    """Return True where a query of a block sees a key: one of the last `window` up to its own, and not missing."""
    # positions relative to the first key of the block, which is `window - 1` tokens before its first query
    query = torch.arange(size, device=device)[:, None] + window - 1
    key = torch.arange(size + window - 1, device=device)
    near = (key <= query) & (key > query - window)
    start = torch.arange(0, num_blocks * size, size, device=device)[:, None, None]
    return near & (start + key >= num_missing)
