"""Titans' long-term memory: a layer that learns, while it reads, to map keys to values."""

from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import nn
from torch.nn import functional as F

from nested_learning.nn.norm import RMSNorm
from nested_learning.nn.views import Views, Windows
from nested_learning.ops.fast_weights import Momentum, titans
from nested_learning.shapes import Float, Tensor

# Gates at the start: step 0.27, momentum 0.27, and retention 0.993, so that what is written survives a context.
RATE_BIAS, MOMENTUM_BIAS, RETENTION_BIAS = -1.0, -1.0, 5.0


class TitansState(NamedTuple):
    """Per row: the windows of the convolutions, and the memory of each head."""

    windows: Windows
    memory: Momentum


class TitansMemory(nn.Module):
    """Long-term memory with matrix memories, per-token gates and momentum (Titans, arXiv 2501.00663, equations 11-15).

    Keys and queries are `l2norm(silu(conv(x W)))`, values `silu(conv(x W))`; step, momentum and retention are functions
    of the token, one each a head. The memory starts as the identity; a token is read after its own write. Arguments:
    width, heads, the width of the convolutions, and the tokens computed at once (`chunk`: no effect on the result).
    """

    def __init__(self, dim: int, num_heads: int, conv_width: int, chunk: int) -> None:
        super().__init__()
        self.num_heads, self.chunk = num_heads, chunk
        head_dim = dim // num_heads
        self.views = Views(dim, num_heads, conv_width)
        self.gates = nn.Linear(dim, 3 * num_heads)
        bias = torch.tensor([RATE_BIAS, MOMENTUM_BIAS, RETENTION_BIAS])
        self.gates.bias.data.copy_(bias.repeat_interleave(num_heads))
        self.initial_weight = nn.Parameter(torch.eye(head_dim).repeat(num_heads, 1, 1))
        self.read_norm = RMSNorm(head_dim)
        self.output = nn.Linear(dim, dim, bias=False)

    def init_state(self, batch: int) -> TitansState:
        """Return empty windows and the meta-learned memory, one copy a row."""
        weight = repeat(self.initial_weight, "h k v -> b h k v", b=batch)
        return TitansState(self.views.init_state(batch), Momentum(weight, torch.zeros_like(weight)))

    def forward(
        self, x: Float[Tensor, "b t d"], state: TitansState, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], TitansState]:
        """Write every token into the memory, then read it with the token's query."""
        q, k, v, windows = self.views(x, state.windows)
        rate, momentum, retention = rearrange(self.gates(x), "b t (g h) -> g b h t", g=3)
        memory = state.memory
        # the memory stays in the parameters' precision whatever autocast does around it
        with torch.autocast(x.device.type, enabled=False):
            dtype = memory.weight.dtype
            q, k, v = F.normalize(q.to(dtype), dim=-1), F.normalize(k.to(dtype), dim=-1), v.to(dtype)
            if write:
                rate, momentum, retention = (z.to(dtype) for z in (rate, momentum, retention))
                gates = rate.sigmoid(), F.logsigmoid(retention), F.logsigmoid(momentum)
                y, memory = titans(q, k, v, *gates, memory, self.chunk)
            else:
                y = q @ memory.weight
        y = rearrange(self.read_norm(y), "b h t v -> b t (h v)").to(x.dtype)
        return self.output(y), TitansState(windows, memory)
