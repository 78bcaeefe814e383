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
    """The KV cache: keys and values `[b h s k]` of past tokens, and how many tokens were read in all.

    With a window it always holds `window - 1` tokens, zeros where there is no token yet.
    """

    key: Float[Tensor, "b h s k"]
    value: Float[Tensor, "b h s k"]
    position: int


class KeyValues(NamedTuple):
    """Keys, before the rotation by their position, and values of tokens."""

    key: Float[Tensor, "b h t k"]
    value: Float[Tensor, "b h t k"]


def rotate(x: Float[Tensor, "b h t k"], position: int) -> Float[Tensor, "b h t k"]:
    """Rotate pairs of features by angles proportional to the token's position (RoPE, arXiv 2104.09864, equation 34).

    `position` is that of the first token of `x`. Angles are computed in float32, or in float64 if `x` is.
    """
    half = x.shape[-1] // 2
    dtype = torch.promote_types(x.dtype, torch.float32)
    frequency = ROPE_BASE ** (-torch.arange(half, device=x.device, dtype=dtype) / half)
    positions = torch.arange(position, position + x.shape[2], device=x.device, dtype=dtype)
    # bfloat16 has 8 bits: positions above 256 would collide
    angle = positions[:, None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def causal_mask(num_queries: int, num_keys: int, device: torch.device) -> Bool[Tensor, "t s"]:
    """Return True where a query may attend to a key: not in its future. The queries are the last tokens."""
    query = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None]
    return query >= torch.arange(num_keys, device=device)


class AttentionHeads(nn.Module):
    """The heads of causal attention: a layer without its output projection.

    `window`: how many tokens a query attends to, its own included (None: all past tokens).
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
        """Return the cache for a new document, which is empty: a cache is context, not memory."""
        return self.init_state(len(state.key))

    def queries(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b h t k"]:
        """Return the queries of `x`, before the rotation by their position."""
        return self.query_norm(self._split_heads(self.query(x)))

    def keys_values(self, x: Float[Tensor, "b t d"]) -> KeyValues:
        """Return the keys and values of `x`."""
        return KeyValues(self.key_norm(self._split_heads(self.key(x))), self._split_heads(self.value(x)))

    def _split_heads(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b h t k"]:
        return rearrange(z, "b t (h k) -> b h t k", h=self.num_heads)

    def attend(
        self, x: Float[Tensor, "b t d"], state: KVCache, persistent: KeyValues | None
    ) -> tuple[Float[Tensor, "b t d"], KVCache]:
        """Attend to the cache, to `x`, and, with a window, to `persistent` tokens, which every query sees."""
        assert self.window is not None or persistent is None, "persistent tokens are for attention with a window"
        unrotated, (k, v) = self.queries(x), self.keys_values(x)
        # keys are cached after rotation: a key keeps its position, so that a step rotates new tokens only
        q, k = rotate(unrotated, state.position), rotate(k, state.position)
        k, v = torch.cat([state.key.to(k), k], dim=2), torch.cat([state.value.to(v), v], dim=2)
        t, s = x.shape[1], k.shape[2]
        if self.window is not None:
            prefix = None
            if persistent is not None:
                # not rotated: persistent tokens are at the same distance from every query
                prefix = Prefix(unrotated @ persistent.key.to(k).mT, persistent.value.to(v))
            y = window_attention(q, k, v, self.window, max(0, self.window - 1 - state.position), prefix)
        # without a mask tensor, torch can use its fused kernels: one token sees the whole cache; with an empty cache
        # the usual causal flag is right
        elif t in (1, s):
            y = F.scaled_dot_product_attention(q, k, v, is_causal=t > 1)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=causal_mask(t, s, x.device))
        # with a window the cache keeps its length: as many tokens leave it as enter
        dropped = 0 if self.window is None else t
        cache = KVCache(k[:, :, dropped:], v[:, :, dropped:], state.position + t)
        return rearrange(y, "b h t k -> b t (h k)"), cache


class Attention(AttentionHeads):
    """Multi-head causal attention; `window`: how many tokens a query attends to (None: all past tokens)."""

    def __init__(self, dim: int, num_heads: int, window: int | None = None) -> None:
        super().__init__(dim, num_heads, window)
        self.output = nn.Linear(dim, dim, bias=False)

    def forward(
        self, x: Float[Tensor, "b t d"], state: KVCache, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], KVCache]:
        """Attend to the cache and to `x`. The cache is context, not memory: it is updated for any `write`."""
        y, cache = self.attend(x, state, None)
        return self.output(y), cache
