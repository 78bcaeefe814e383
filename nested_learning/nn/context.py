"""Titans with the memory as context (MAC): attention reads a segment and what the memory recalls for it."""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from nested_learning import tree
from nested_learning.nn.associative import AssociativeState, MemoryHeads
from nested_learning.nn.attention import AttentionHeads, KeyValues, causal_mask, rotate
from nested_learning.nn.hybrid import gated
from nested_learning.nn.norm import RMSNorm
from nested_learning.nn.persistent import PersistentTokens
from nested_learning.ops.memory import Weights, chunk_sizes
from nested_learning.shapes import Float, Tensor


class Segment(NamedTuple):
    """The current segment: keys and values of its first `position` tokens, zeros after them.

    Each token has two of each: one for what the memory recalled for it, and one for the token itself.
    """

    key: Float[Tensor, "b h s 2 k"]
    value: Float[Tensor, "b h s 2 k"]
    position: int


class ContextState(NamedTuple):
    """Per row: `query_window`: the window of the convolution of the memory's queries; `start_weights`: the memory's
    weights at the start of the segment, which it recalls from; the segment; the persistent tokens; the memory.
    """

    query_window: Float[Tensor, "b w d"]
    start_weights: Weights
    short_term: Segment
    persistent: KeyValues | None
    long_term: AssociativeState


class MemoryAsContext(nn.Module):
    """MAC (Titans, arXiv 2501.00663, equations 21-25), by segments `S`.

    `h = M(q(S))`, from the memory at the start of the segment; `y = Attn([P | h | S])` with the persistent tokens P;
    `y` is written into the memory; the output is `M(y)`, gated by `y`. Inside a segment attention is causal (ours: a
    language model needs it): a token sees P and the part of h and S up to itself, and M(y) is read just after the
    token's own write. Arguments: `attention` has no window; `segment`: tokens per segment.
    """

    def __init__(
        self, dim: int, attention: AttentionHeads, memory: MemoryHeads, num_persistent: int, segment: int
    ) -> None:
        super().__init__()
        self.attention, self.memory, self.segment = attention, memory, segment
        self.num_persistent = num_persistent
        self.persistent = PersistentTokens(num_persistent, dim) if num_persistent else None
        self.attention_norm = RMSNorm(dim)
        self.output = nn.Linear(dim, dim, bias=False)

    def init_state(self, batch: int) -> ContextState:
        """Return the state before the first token. Only outputs of attention are written: P is not in the memory."""
        long_term = self.memory.init_state(batch)
        persistent = None
        if self.persistent is not None:
            key, value = self.attention.keys_values(self.persistent())
            # they do not depend on the input: keys and values are computed once and copied to all rows
            rows = torch.zeros(batch, dtype=torch.int64, device=key.device)
            persistent = tree.select_rows(KeyValues(rotate(key, 0), value), rows)
        windows, memory = long_term
        return ContextState(torch.zeros_like(windows.query), memory.weight, self._empty(batch), persistent, long_term)

    def reset_context(self, state: ContextState) -> ContextState:
        """Return the state for a new document: an empty segment, and the memory with its weights."""
        long_term = self.memory.reset_context(state.long_term)
        windows, memory = long_term
        empty = self._empty(len(state.query_window))
        return ContextState(torch.zeros_like(windows.query), memory.weight, empty, state.persistent, long_term)

    def forward(
        self, x: Float[Tensor, "b t d"], state: ContextState, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], ContextState]:
        """Read `x`, segment by segment."""
        query_window, start_weights, segment, persistent, long_term = state
        memory_queries, query_window = self.memory.queries(x, query_window)
        queries, keys_values = self.attention.queries(x), self.attention.keys_values(x)
        outputs = []
        # a new segment recalls from the memory as it is now, which may have been written since the last call
        if segment.position == 0:
            start_weights = long_term.memory.weight
        sizes = chunk_sizes(x.shape[1], self.segment, segment.position)
        parts = (z.split(sizes, dim=2) for z in (memory_queries, queries, *keys_values))
        for memory_query, q, k, v in zip(*parts, strict=True):
            # fixed weights for the whole segment: recall for all its tokens is one product, whatever was written since
            recalled = self.attention.keys_values(self.memory.recall(memory_query, start_weights).to(x.dtype))
            y, segment = self._attend(q, recalled, KeyValues(k, v), persistent, segment)
            y = self.attention_norm(y)
            read, long_term = self.memory(y, long_term, write=write)
            outputs.append(gated(y, read))
            if segment.position == self.segment:
                segment, start_weights = self._empty(len(x)), long_term.memory.weight
        y = self.output(torch.cat(outputs, dim=1))
        return y, ContextState(query_window, start_weights, segment, persistent, long_term)

    def _attend(
        self,
        q: Float[Tensor, "b h t k"],
        recalled: KeyValues,
        current: KeyValues,
        persistent: KeyValues | None,
        segment: Segment,
    ) -> tuple[Float[Tensor, "b t d"], Segment]:
        """Attend from tokens of one segment; positions are those in the sequence `[P | h | S]`."""
        begin, end = segment.position, segment.position + q.shape[2]
        first_recalled = self.num_persistent + begin
        first = first_recalled + self.segment
        # h and S are interleaved, token by token, so that a prefix of the cache is a prefix of both
        new_keys = torch.stack([rotate(recalled.key, first_recalled), rotate(current.key, first)], dim=3)
        new_values = torch.stack([recalled.value, current.value], dim=3)
        key = torch.cat([segment.key[:, :, :begin].to(new_keys), new_keys], dim=2)
        value = torch.cat([segment.value[:, :, :begin].to(new_values), new_values], dim=2)
        # each token has two keys, h and S, and both are visible from the token on
        mask = causal_mask(q.shape[2], end, q.device).repeat_interleave(2, dim=1)
        keys, values = key.flatten(2, 3), value.flatten(2, 3)
        if persistent is not None:
            keys = torch.cat([persistent.key.to(keys), keys], dim=2)
            values = torch.cat([persistent.value.to(values), values], dim=2)
            mask = F.pad(mask, (self.num_persistent, 0), value=True)
        y = F.scaled_dot_product_attention(rotate(q, first), keys, values, attn_mask=mask)
        # the state has the shape of a whole segment: compiled code sees one shape for every position
        padding = (0, 0, 0, 0, 0, self.segment - end)
        return rearrange(y, "b h t k -> b t (h k)"), Segment(F.pad(key, padding), F.pad(value, padding), end)

    def _empty(self, batch: int) -> Segment:
        heads = self.attention.num_heads
        weight = self.attention.key.weight
        empty = weight.new_zeros(batch, heads, self.segment, 2, weight.shape[0] // heads)
        return Segment(empty, empty, 0)
