"""Self-modifying Titans: a layer whose memories generate their own keys, values and rates, and rewrite them."""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from nested_learning.nn.norm import RMSNorm
from nested_learning.nn.views import Views, Windows
from nested_learning.ops.self_modifying import NUM_GATES, Written, self_modifying
from nested_learning.shapes import Float, Tensor

# Gates at the start: retention 0.993 a token, so that what is written survives a context. What is read is written at a
# rate of 0.5, which can reach 1. The memories that generate are written at 0.0003: they stay the projections they were
# learned as until the outer loss teaches them to change; at 0.007 they drift, and recall fails in longer contexts.
READ_RATE_BIAS, GENERATING_RATE_BIAS, RETENTION_BIAS = 0.0, -8.0, 5.0


class SelfModifyingState(NamedTuple):
    """Per row: the windows of the convolutions, and what each head wrote on its memories."""

    windows: Windows
    memory: Written


class SelfModifyingMemory(nn.Module):
    """Self-modifying Titans with matrix memories (Nested Learning, arXiv 2512.24695, equations 83-88, 90, 93).

    Fixed projections and short convolutions give queries, keys and values a view of `x` each; the query is its view, as
    in the paper, keys and values are what memories make of theirs. A head has its memories on its slice of the views.
    Every memory starts as the identity, the residual of equation 89. Arguments: width, heads (1: the paper's form),
    width of the convolutions, and the tokens of a chunk, which share the memories that generate what they write.
    """

    def __init__(self, dim: int, num_heads: int, conv_width: int, chunk: int) -> None:
        super().__init__()
        self.chunk = chunk
        head_dim = dim // num_heads
        self.views = Views(dim, num_heads, conv_width)
        bias = [GENERATING_RATE_BIAS, RETENTION_BIAS, READ_RATE_BIAS, RETENTION_BIAS]
        identity = torch.eye(head_dim).repeat(num_heads, 1, 1)
        self.key_memory = nn.Parameter(identity.clone())
        self.value_memory = nn.Parameter(identity.clone())
        self.gate_memory = nn.Parameter(torch.zeros(num_heads, head_dim, NUM_GATES))
        self.gate_bias = nn.Parameter(torch.tensor(bias).repeat(num_heads, 1))
        self.read_memory = nn.Parameter(identity.clone())
        self.read_norm = RMSNorm(head_dim)
        self.output = nn.Linear(dim, dim, bias=False)

    def init_state(self, batch: int) -> SelfModifyingState:
        """Return the state in which nothing is written."""
        heads, inputs, outputs = self.key_memory.shape
        nothing = self.key_memory.new_zeros(batch, heads, inputs, 3 * outputs + NUM_GATES)
        return SelfModifyingState(self.views.init_state(batch), Written(nothing, nothing, 0))

    def forward(
        self, x: Float[Tensor, "b t d"], state: SelfModifyingState, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], SelfModifyingState]:
        """Write every token on the five memories, then read with the token's query."""
        q, k, v, windows = self.views(x, state.windows)
        memory = state.memory
        # the memories stay in the parameters' precision whatever autocast does around them
        with torch.autocast(x.device.type, enabled=False):
            q, k, v = (z.to(self.read_memory.dtype) for z in (q, k, v))
            q = F.normalize(q, dim=-1)
            if write:
                meta = torch.cat([self.key_memory, self.value_memory, self.gate_memory, self.read_memory], dim=-1)
                y, memory = self_modifying(k, v, q, meta, self.gate_bias, memory, self.chunk)
            else:
                y = q @ (self.read_memory + memory.now[..., -q.shape[-1] :])
        y = rearrange(self.read_norm(y), "b h t v -> b t (h v)").to(x.dtype)
        return self.output(y), SelfModifyingState(windows, memory)
