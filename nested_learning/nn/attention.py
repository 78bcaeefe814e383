"""Causal softmax attention with rotary positions, normalised queries and keys, and an optional sliding window."""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from nested_learning.nn.norm import RMSNorm
from nested_learning.shapes import Bool, Float, Tensor

ROPE_BASE = 10000.0


class KVCache(NamedTuple):
    """What attention keeps of the tokens read: keys and values `[b h s k]`, and how many tokens were read in all."""

    key: Float[Tensor, "b h s k"]
    value: Float[Tensor, "b h s k"]
    position: int


def rotate(x: Float[Tensor, "b h t k"], position: int) -> Float[Tensor, "b h t k"]:
    """Rotate pairs of features by angles that grow with the token's place (RoPE, arXiv 2104.09864, equation 34).

    `position` is the place of the first token of `x`.
    """
    half = x.shape[-1] // 2
    frequency = ROPE_BASE ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    place = torch.arange(position, position + x.shape[2], device=x.device, dtype=torch.float32)
    angle = place[:, None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def visible(num_queries: int, num_keys: int, window: int | None, device: torch.device) -> Bool[Tensor, "t s"]:
    """Say which keys each query sees: none of the future, and only the last `window` tokens, itself included.

    The queries are the last `num_queries` of the `num_keys` tokens.
    """
    query = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None]
    key = torch.arange(num_keys, device=device)
    distance = query - key
    return (distance >= 0) if window is None else (distance >= 0) & (distance < window)


class Attention(nn.Module):
    """Multi-head causal attention. Arguments: width, heads, and `window` tokens (None: all the past)."""

    def __init__(self, dim: int, num_heads: int, window: int | None = None) -> None:
        super().__init__()
        self.num_heads, self.window = num_heads, window
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.query_norm = RMSNorm(dim // num_heads)
        self.key_norm = RMSNorm(dim // num_heads)
        self.output = nn.Linear(dim, dim, bias=False)

    def init_state(self, batch: int) -> KVCache:
        """Return an empty cache for `batch` rows."""
        head_dim = self.query.out_features // self.num_heads
        empty = self.query.weight.new_zeros(batch, self.num_heads, 0, head_dim)
        return KVCache(empty, empty, 0)

    def forward(
        self, x: Float[Tensor, "b t d"], state: KVCache, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], KVCache]:
        """Attend to what the cache holds and to `x`. The cache is no memory: it grows whatever `write` says."""
        heads = "b t (h k) -> b h t k"
        q = rotate(self.query_norm(rearrange(self.query(x), heads, h=self.num_heads)), state.position)
        k = rotate(self.key_norm(rearrange(self.key(x), heads, h=self.num_heads)), state.position)
        v = rearrange(self.value(x), heads, h=self.num_heads)
        k, v = torch.cat([state.key.to(k), k], dim=2), torch.cat([state.value.to(v), v], dim=2)
        t, s = x.shape[1], k.shape[2]
        if self.window is None and t in (1, s):
            y = F.scaled_dot_product_attention(q, k, v, is_causal=t > 1)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible(t, s, self.window, x.device))
        kept = s if self.window is None else min(s, self.window - 1)
        cache = KVCache(k[:, :, s - kept :], v[:, :, s - kept :], state.position + t)
        return self.output(rearrange(y, "b h t k -> b t (h k)")), cache
