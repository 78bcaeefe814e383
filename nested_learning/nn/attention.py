"""Causal softmax attention with rotary positions, normalised queries and keys, and an optional sliding window."""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from nested_learning.nn.norm import RMSNorm
from nested_learning.ops.window import Prefix, window_attention
from nested_learning.shapes import Bool, Float, Tensor

ROPE_BASE = 10000.0


class KVCache(NamedTuple):
    """What attention keeps of the tokens read: keys and values `[b h s k]`, and how many tokens were read in all.

    A window keeps the last `window - 1` from the start on, zeros where there is no token yet.
    """

    key: Float[Tensor, "b h s k"]
    value: Float[Tensor, "b h s k"]
    position: int


class Shown(NamedTuple):
    """What tokens show to queries: their keys, which have no place yet, and their values."""

    key: Float[Tensor, "b h t k"]
    value: Float[Tensor, "b h t k"]


def rotate(x: Float[Tensor, "b h t k"], position: int) -> Float[Tensor, "b h t k"]:
    """Rotate pairs of features by angles that grow with the token's place (RoPE, arXiv 2104.09864, equation 34).

    `position` is the place of the first token of `x`. Angles are in single precision or that of `x`, if it is double.
    """
    half = x.shape[-1] // 2
    dtype = torch.promote_types(x.dtype, torch.float32)
    frequency = ROPE_BASE ** (-torch.arange(half, device=x.device, dtype=dtype) / half)
    place = torch.arange(position, position + x.shape[2], device=x.device, dtype=dtype)
    angle = place[:, None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def visible(num_queries: int, num_keys: int, device: torch.device) -> Bool[Tensor, "t s"]:
    """Say which keys each query sees: none of the future. The queries are the last `num_queries` of the tokens."""
    query = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None]
    return query >= torch.arange(num_keys, device=device)


class AttentionHeads(nn.Module):
    """The heads of causal attention, side by side: all of a layer but its output projection.

    Arguments: width, heads, and `window` tokens (None: all the past).
    """

    def __init__(self, dim: int, num_heads: int, window: int | None = None) -> None:
        super().__init__()
        self.num_heads, self.window = num_heads, window
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.query_norm = RMSNorm(dim // num_heads)
        self.key_norm = RMSNorm(dim // num_heads)

    def init_state(self, batch: int) -> KVCache:
        """Return the cache before the first token, for `batch` rows."""
        head_dim = self.query.out_features // self.num_heads
        length = 0 if self.window is None else self.window - 1
        empty = self.query.weight.new_zeros(batch, self.num_heads, length, head_dim)
        return KVCache(empty, empty, 0)

    def reset_context(self, state: KVCache) -> KVCache:
        """Return the cache before another text: a cache is context."""
        return self.init_state(len(state.key))

    def ask(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b h t k"]:
        """Return the queries of `x`, which have no place yet."""
        return self.query_norm(self._cut(self.query(x)))

    def show(self, x: Float[Tensor, "b t d"]) -> Shown:
        """Return the keys and values of `x`."""
        return Shown(self.key_norm(self._cut(self.key(x))), self._cut(self.value(x)))

    def _cut(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b h t k"]:
        return rearrange(z, "b t (h k) -> b h t k", h=self.num_heads)

    def attend(
        self, x: Float[Tensor, "b t d"], state: KVCache, always: Shown | None
    ) -> tuple[Float[Tensor, "b t d"], KVCache]:
        """Attend to what the cache holds, to `x`, and, beside a window, to the tokens that are seen `always`."""
        assert self.window is not None or always is None, "without a window every token is seen from everywhere"
        placeless, (k, v) = self.ask(x), self.show(x)
        q, k = rotate(placeless, state.position), rotate(k, state.position)
        k, v = torch.cat([state.key.to(k), k], dim=2), torch.cat([state.value.to(v), v], dim=2)
        t, s = x.shape[1], k.shape[2]
        if self.window is not None:
            prefix = None if always is None else Prefix(placeless @ always.key.to(k).mT, always.value.to(v))
            y = window_attention(q, k, v, self.window, max(0, self.window - 1 - state.position), prefix)
        elif t in (1, s):
            y = F.scaled_dot_product_attention(q, k, v, is_causal=t > 1)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible(t, s, x.device))
        dropped = 0 if self.window is None else t
        cache = KVCache(k[:, :, dropped:], v[:, :, dropped:], state.position + t)
        return rearrange(y, "b h t k -> b t (h k)"), cache


class Attention(AttentionHeads):
    """Multi-head causal attention. Arguments: width, heads, and `window` tokens (None: all the past)."""

    def __init__(self, dim: int, num_heads: int, window: int | None = None) -> None:
        super().__init__(dim, num_heads, window)
        self.output = nn.Linear(dim, dim, bias=False)

    def forward(
        self, x: Float[Tensor, "b t d"], state: KVCache, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], KVCache]:
        """Attend to what the cache holds and to `x`. The cache is no memory: it moves on whatever `write` says."""
        y, cache = self.attend(x, state, None)
        return self.output(y), cache
