"""Self-modifying Titans: memories that generate their own keys, values, learning rates and retention, and rewrite these."""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from nested_learning.nn.conv import ShortConv
from nested_learning.ops.fast_weights import delta
from nested_learning.shapes import Float, Tensor

# Gates at the start: rate 0.27 (it can reach 1), and retention 0.993, so that what is written survives a context.
RATE_BIAS, RETENTION_BIAS = -1.0, 5.0


class SelfModifyingState(NamedTuple):
    """Per row: the convolution's window, what was written on the meta-learned weights of the five memories (`written`),
    the same at the start of the chunk (`start`), and how many tokens of the chunk were read (`place`)."""

    window: Float[Tensor, "b w d"]
    start: Float[Tensor, "b h k v"]
    written: Float[Tensor, "b h k v"]
    place: int


class SelfModifyingMemory(nn.Module):
    """Self-modifying Titans with matrix memories (Nested Learning, arXiv 2512.24695, equations 83-88, 93).

    Five memories share one matrix a head: columns for keys, values, the rate, the retention, and what is read.
    Within a chunk, keys, values, rates, retention and targets come from the weights at the chunk's start (equation 90),
    and the writes run token by token with exact errors. Two choices are ours: retention draws the weights
    back to the meta-learned ones, not to zero, so that forgetting never wipes the projections; and the values that
    generate targets are normalised, so that memories that rewrite themselves stay bounded.

    Arguments: width, heads (1: the paper's literal form), width of the convolution, and the chunk's tokens.
    """

    def __init__(self, dim: int, num_heads: int, conv_width: int, chunk: int) -> None:
        super().__init__()
        self.num_heads, self.chunk = num_heads, chunk
        head_dim = dim // num_heads
        self.mix = nn.Linear(dim, dim, bias=False)
        self.conv = ShortConv(dim, conv_width)
        self.query_weight = nn.Parameter(torch.zeros(num_heads, head_dim, head_dim))
        self.key_weight = nn.Parameter(torch.zeros(num_heads, head_dim, head_dim))
        self.value_weight = nn.Parameter(torch.zeros(num_heads, head_dim, head_dim))
        self.gate_weight = nn.Parameter(torch.zeros(num_heads, head_dim, 2))
        self.memory_weight = nn.Parameter(torch.zeros(num_heads, head_dim, head_dim))
        self.gate_bias = nn.Parameter(torch.tensor([RATE_BIAS, RETENTION_BIAS]).repeat(num_heads, 1))
        self.read_norm = nn.RMSNorm(head_dim)
        self.output = nn.Linear(dim, dim, bias=False)

    def meta_weight(self) -> Float[Tensor, "h k v"]:
        """Return the meta-learned weights of the five memories side by side: keys, values, gates, memory."""
        return torch.cat([self.key_weight, self.value_weight, self.gate_weight, self.memory_weight], dim=-1)

    def init_state(self, batch: int) -> SelfModifyingState:
        """Return the state in which nothing is written."""
        meta = self.meta_weight()
        written = meta.new_zeros(batch, *meta.shape)
        return SelfModifyingState(self.conv.init_state(batch), written, written, 0)

    def forward(
        self, x: Float[Tensor, "b t d"], state: SelfModifyingState, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], SelfModifyingState]:
        """Write every token on the five memories, then read with the token's query."""
        mixed, window = self.conv(self.mix(x), state.window)
        mixed = rearrange(F.silu(mixed), "b t (h k) -> b h t k", h=self.num_heads)
        with torch.autocast(x.device.type, enabled=False):
            mixed = mixed.to(self.query_weight.dtype)
            q = F.normalize(mixed @ self.query_weight, dim=-1)
            if write:
                y, state = self.read_and_write(mixed, q, state)
            else:
                y = q @ (self.memory_weight + state.written[..., -q.shape[-1] :])
        y = rearrange(self.read_norm(y), "b h t v -> b t (h v)").to(x.dtype)
        return self.output(y), state._replace(window=window)

    def read_and_write(
        self, mixed: Float[Tensor, "b h t k"], q: Float[Tensor, "b h t k"], state: SelfModifyingState
    ) -> tuple[Float[Tensor, "b h t v"], SelfModifyingState]:
        """Go through the tokens chunk by chunk; the first chunk may have been begun by an earlier call."""
        meta = self.meta_weight()
        _, start, written, place = state
        outputs, t = [], 0
        while t < mixed.shape[2]:
            stop = min(t + self.chunk - place, mixed.shape[2])
            y, written = self.step(mixed[:, :, t:stop], q[:, :, t:stop], meta, start, written)
            outputs.append(y)
            place, t = place + stop - t, stop
            if place == self.chunk:
                start, place = written, 0
        return torch.cat(outputs, dim=2), SelfModifyingState(state.window, start, written, place)

    def generate(
        self, mixed: Float[Tensor, "b h c k"], weight: Float[Tensor, "b h k v"]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Generate what the tokens write (equations 83-84, 86-87), with the memories' weights at the chunk's start.

        Returns keys `[b h c k]`, rates and log retentions `[b h c]`, and the targets `[b h c v]` of all five memories.
        """
        dim = mixed.shape[-1]
        k, v, gates = (mixed @ weight[..., : 2 * dim + 2]).split([dim, dim, 2], dim=-1)
        rate, retention = (gates + self.gate_bias[:, None]).unbind(-1)
        targets = F.normalize(v, dim=-1) * dim**0.5 @ weight
        return F.normalize(k, dim=-1), rate.sigmoid(), F.logsigmoid(retention), targets

    def step(
        self,
        mixed: Float[Tensor, "b h c k"],
        q: Float[Tensor, "b h c k"],
        meta: Float[Tensor, "h k v"],
        start: Float[Tensor, "b h k v"],
        written: Float[Tensor, "b h k v"],
    ) -> tuple[Float[Tensor, "b h c v"], Float[Tensor, "b h k v"]]:
        """Write and read tokens of one chunk.

        `W_t = a_t W_{t-1} - eta_t k^T (k W_{t-1}) - eta_t k^T (k W_{t-1} - target)` (equation 88, rows for columns):
        delta gradient descent and its gradient are together the delta rule of rate `2 eta` towards `target / 2`. Written
        for `W - meta`, on which retention acts, the target loses what the meta-learned weights already answer.
        """
        k, rate, log_retention, targets = self.generate(mixed, meta + start)
        y, written = delta(q, k, targets / 2 - k @ meta, 2 * rate, log_retention, written)
        return q @ self.memory_weight + y[..., -q.shape[-1] :], written
