"""Self-modifying Titans: a layer whose memories generate their own keys, values and rates, and rewrite them."""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from nested_learning.nn.conv import ShortConv
from nested_learning.ops.self_modifying import Written, self_modifying
from nested_learning.shapes import Float, Tensor

# Gates at the start: rate 0.5 (it can reach 1), and retention 0.993, so that what is written survives a context.
RATE_BIAS, RETENTION_BIAS = 0.0, 5.0


class SelfModifyingState(NamedTuple):
    """Per row: the windows of the three convolutions, and what each head wrote on its five memories."""

    query: Float[Tensor, "b w d"]
    key: Float[Tensor, "b w d"]
    value: Float[Tensor, "b w d"]
    memory: Written


class SelfModifyingMemory(nn.Module):
    """Self-modifying Titans with matrix memories (Nested Learning, arXiv 2512.24695, equations 83-88, 90, 93).

    `x` is mixed once by a fixed projection, and each head works on its slice; queries, keys and values each see it
    through a short convolution, and the query is the only other fixed projection. Arguments: width, heads (1: the
    paper's literal form), width of the convolution, and the tokens of a chunk, which share the memories that generate
    what they write.
    """

    def __init__(self, dim: int, num_heads: int, conv_width: int, chunk: int) -> None:
        super().__init__()
        self.num_heads, self.chunk = num_heads, chunk
        head_dim = dim // num_heads
        self.mix = nn.Linear(dim, dim, bias=False)
        self.query_conv = ShortConv(dim, conv_width)
        self.key_conv = ShortConv(dim, conv_width)
        self.value_conv = ShortConv(dim, conv_width)
        self.query_weight = nn.Parameter(torch.zeros(num_heads, head_dim, head_dim))
        self.key_weight = nn.Parameter(torch.zeros(num_heads, head_dim, head_dim))
        self.value_weight = nn.Parameter(torch.zeros(num_heads, head_dim, head_dim))
        self.gate_weight = nn.Parameter(torch.zeros(num_heads, head_dim, 2))
        self.gate_bias = nn.Parameter(torch.tensor([RATE_BIAS, RETENTION_BIAS]).repeat(num_heads, 1))
        self.memory_weight = nn.Parameter(torch.zeros(num_heads, head_dim, head_dim))
        self.read_norm = nn.RMSNorm(head_dim)
        self.output = nn.Linear(dim, dim, bias=False)

    def init_state(self, batch: int) -> SelfModifyingState:
        """Return the state in which nothing is written."""
        heads, inputs, outputs = self.key_weight.shape
        nothing = self.key_weight.new_zeros(batch, heads, inputs, 3 * outputs + 2)
        query, key, value = (conv.init_state(batch) for conv in (self.query_conv, self.key_conv, self.value_conv))
        return SelfModifyingState(query, key, value, Written(nothing, nothing, 0))

    def forward(
        self, x: Float[Tensor, "b t d"], state: SelfModifyingState, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], SelfModifyingState]:
        """Write every token on the five memories, then read with the token's query."""
        mixed = self.mix(x)
        q, query = self.query_conv(mixed, state.query)
        k, key = self.key_conv(mixed, state.key)
        v, value = self.value_conv(mixed, state.value)
        q, k, v = (rearrange(F.silu(z), "b t (h k) -> b h t k", h=self.num_heads) for z in (q, k, v))
        memory = state.memory
        # the memories stay in the parameters' precision whatever autocast does around them
        with torch.autocast(x.device.type, enabled=False):
            q, k, v = (z.to(self.query_weight.dtype) for z in (q, k, v))
            q = F.normalize(q @ self.query_weight, dim=-1)
            if write:
                meta = torch.cat([self.key_weight, self.value_weight, self.gate_weight, self.memory_weight], dim=-1)
                y, memory = self_modifying(k, v, q, meta, self.gate_bias, memory, self.chunk)
            else:
                y = q @ (self.memory_weight + memory.now[..., -q.shape[-1] :])
        y = rearrange(self.read_norm(y), "b h t v -> b t (h v)").to(x.dtype)
        return self.output(y), SelfModifyingState(query, key, value, memory)
