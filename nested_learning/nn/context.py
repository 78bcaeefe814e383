"""Titans with the memory as context (MAC): attention over a segment reads what the memory recalls, and writes it."""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from nested_learning import tree
from nested_learning.nn.associative import AssociativeState, MemoryHeads
from nested_learning.nn.attention import AttentionHeads, Shown, rotate, visible
from nested_learning.nn.hybrid import gated
from nested_learning.nn.norm import RMSNorm
from nested_learning.nn.persistent import PersistentTokens
from nested_learning.ops.memory import Weights, chunk_sizes
from nested_learning.shapes import Float, Tensor


class Segment(NamedTuple):
    """The segment being read: the keys and values of its first `place` tokens, zeros after them.

    Of each token there are two: of what the memory recalled for it, and of the token itself.
    """

    key: Float[Tensor, "b h s 2 k"]
    value: Float[Tensor, "b h s 2 k"]
    place: int


class ContextState(NamedTuple):
    """Per row: what the memory is asked for next, the weights that the segment found, the segment, and the memory.

    `asking` is the window of the convolution of the queries; `persistent` the keys and values of persistent tokens.
    """

    asking: Float[Tensor, "b w d"]
    found: Weights
    short_term: Segment
    persistent: Shown | None
    long_term: AssociativeState


class MemoryAsContext(nn.Module):
    """MAC (Titans, arXiv 2501.00663, equations 21-25), by segments `S`.

    `h = M(q(S))`, from the memory as the segment found it; `y = Attn([P | h | S])` with the persistent tokens P; what
    is written is `y`; the output is the product of `y` and `M(y)`. Inside the segment all is causal (ours, so that a
    model of language can be trained): a token sees P, and of h and S what is not after it, and M(y) is read after its
    own write. Arguments: width, the heads of attention, without a window, and of the memory, how many tokens persist,
    and the tokens of a segment.
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
        """Return the state before the first token. The memory is written by attention alone: P is not in it."""
        long_term = self.memory.init_state(batch)
        shown = None
        if self.persistent is not None:
            key, value = self.attention.show(self.persistent())
            rows = torch.zeros(batch, dtype=torch.int64, device=key.device)
            shown = tree.select_rows(Shown(rotate(key, 0), value), rows)
        windows, memory = long_term
        return ContextState(torch.zeros_like(windows.query), memory.weight, self._empty(batch), shown, long_term)

    def reset_context(self, state: ContextState) -> ContextState:
        """Return the state before another text: an empty segment, and the memory as it was left."""
        long_term = self.memory.reset_context(state.long_term)
        windows, memory = long_term
        empty = self._empty(len(state.asking))
        return ContextState(torch.zeros_like(windows.query), memory.weight, empty, state.persistent, long_term)

    def forward(
        self, x: Float[Tensor, "b t d"], state: ContextState, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], ContextState]:
        """Read `x` on, segment by segment."""
        asking, found, segment, persistent, long_term = state
        wanted, asking = self.memory.ask(x, asking)
        query, shown = self.attention.ask(x), self.attention.show(x)
        outputs = []
        if segment.place == 0:
            found = long_term.memory.weight
        sizes = chunk_sizes(x.shape[1], self.segment, segment.place)
        pieces = (z.split(sizes, dim=2) for z in (wanted, query, *shown))
        for asked, q, k, v in zip(*pieces, strict=True):
            recalled = self.attention.show(self.memory.recall(asked, found).to(x.dtype))
            y, segment = self._attend(q, recalled, Shown(k, v), persistent, segment)
            y = self.attention_norm(y)
            answers, long_term = self.memory(y, long_term, write=write)
            outputs.append(gated(y, answers))
            if segment.place == self.segment:
                segment, found = self._empty(len(x)), long_term.memory.weight
        y = self.output(torch.cat(outputs, dim=1))
        return y, ContextState(asking, found, segment, persistent, long_term)

    def _attend(
        self,
        q: Float[Tensor, "b h t k"],
        recalled: Shown,
        shown: Shown,
        persistent: Shown | None,
        segment: Segment,
    ) -> tuple[Float[Tensor, "b t d"], Segment]:
        """Attend from some tokens of one segment; places are those of the sequence `[P | h | S]`."""
        begin, end = segment.place, segment.place + q.shape[2]
        first_recalled = self.num_persistent + begin
        first = first_recalled + self.segment
        new_keys = torch.stack([rotate(recalled.key, first_recalled), rotate(shown.key, first)], dim=3)
        new_values = torch.stack([recalled.value, shown.value], dim=3)
        key = torch.cat([segment.key[:, :, :begin].to(new_keys), new_keys], dim=2)
        value = torch.cat([segment.value[:, :, :begin].to(new_values), new_values], dim=2)
        mask = visible(q.shape[2], end, q.device).repeat_interleave(2, dim=1)
        keys, values = key.flatten(2, 3), value.flatten(2, 3)
        if persistent is not None:
            keys = torch.cat([persistent.key.to(keys), keys], dim=2)
            values = torch.cat([persistent.value.to(values), values], dim=2)
            mask = F.pad(mask, (self.num_persistent, 0), value=True)
        y = F.scaled_dot_product_attention(rotate(q, first), keys, values, attn_mask=mask)
        rest = (0, 0, 0, 0, 0, self.segment - end)
        return rearrange(y, "b h t k -> b t (h k)"), Segment(F.pad(key, rest), F.pad(value, rest), end)

    def _empty(self, batch: int) -> Segment:
        heads = self.attention.num_heads
        weight = self.attention.key.weight
        empty = weight.new_zeros(batch, heads, self.segment, 2, weight.shape[0] // heads)
        return Segment(empty, empty, 0)
