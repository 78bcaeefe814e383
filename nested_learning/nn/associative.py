"""An associative memory as a layer: it learns to map keys to values while it reads."""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from nested_learning.nn.full_precision import full_precision
from nested_learning.nn.memory_weights import MemoryWeights
from nested_learning.nn.norm import RMSNorm
from nested_learning.nn.qkv import QKVProjections, Windows
from nested_learning.nn.telemetry import Observation, observation
from nested_learning.ops.associative import associative
from nested_learning.ops.gates import GateKinds
from nested_learning.ops.memory import (
    Design,
    Memory,
    Tokens,
    Weights,
    apply_memory,
    end_context,
    full_weights,
    init_memory,
)
from nested_learning.ops.self_modifying import READ
from nested_learning.ops.telemetry import token_stats
from nested_learning.shapes import Float, Tensor

# biases of the gates, as logits: the rate starts at 0.27 of its maximum, momentum at 0.27 and retention at 0.993, so
# that a write lasts for a context
BIASES = {"rate": -1.0, "momentum": -1.0, "retention": 5.0}


class AssociativeState(NamedTuple):
    """Per row: the windows of the short convolutions, and the memory of each head."""

    windows: Windows
    memory: Memory


class MemoryHeads(nn.Module):
    """The heads of a memory layer of any design, without its output projection.

    Covers Titans (arXiv 2501.00663, equations 11-15), DeltaNet, TTT and linear attention. Keys and queries are
    `l2norm(silu(conv(x W)))`, values `silu(conv(x W))`; every head has its own gates, which are functions of the token.
    Values of a deep memory are normalised too (ours): its layers multiply each other, and with errors of any length
    they would grow without bound.

    Arguments: `conv_width` tokens per short convolution; `design` and `kinds`: the memory and its gates; `depth` layers
    of a memory, with `hidden_dim` units between them; `start`: "zero", "learned" initial weights, or "base": learned
    weights that are never forgotten, because retention multiplies only what is written on top of them (ours).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        conv_width: int,
        design: Design,
        kinds: GateKinds,
        depth: int,
        hidden_dim: int,
        start: str,
    ) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.design, self.kinds = num_heads, dim // num_heads, design, kinds
        self.start, self.is_deep = start, depth > 1
        self.views = QKVProjections(dim, num_heads, conv_width)
        self.gates = None
        if kinds.learned:
            self.gates = nn.Linear(dim, len(kinds.learned) * num_heads)
            bias = torch.tensor([BIASES[name] for name in kinds.learned])
            self.gates.bias.data.copy_(bias.repeat_interleave(num_heads))
        self.initial = None
        if start != "zero":
            initial_map = "drawn" if design.norm else "identity"
            self.initial = MemoryWeights(num_heads, self.head_dim, self.head_dim, depth, hidden_dim, initial_map)
        self.read_norm = RMSNorm(self.head_dim)

    def init_state(self, batch: int) -> AssociativeState:
        """Return empty windows and the initial memory, one copy per row."""
        if self.initial is None:
            weight: Weights = (self.read_norm.scale.new_zeros(batch, self.num_heads, self.head_dim, self.head_dim),)
        else:
            weight = self.initial.of_rows(batch)
            # the base is added at each use; the state starts at zero
            if self.start == "base":
                weight = tuple(torch.zeros_like(layer) for layer in weight)
        memory = init_memory(weight, momentum=self.kinds.momentum == "gate")
        return AssociativeState(self.views.init_state(batch), memory)

    def reset_context(self, state: AssociativeState) -> AssociativeState:
        """Return the state for a new document: empty windows, and the memory with its weights."""
        return AssociativeState(self.views.init_state(len(state.windows.query)), end_context(state.memory))

    def forward(
        self, x: Float[Tensor, "b t d"], state: AssociativeState, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], AssociativeState]:
        """Write every token into the memory, then read it with the token's query."""
        tokens, windows = self.project(x, state)
        memory = state.memory
        if not write:
            return self.recall(tokens.q, memory.weight).to(x.dtype), AssociativeState(windows, memory)
        # the memory keeps the precision of the parameters, also under autocast: many small updates add up in it
        with full_precision(x.device):
            y, memory = associative(tokens, memory, self.base(), self.design)
        return self.merge_heads(y).to(x.dtype), AssociativeState(windows, memory)

    def queries(
        self, x: Float[Tensor, "b t d"], window: Float[Tensor, "b w d"]
    ) -> tuple[Float[Tensor, "b h t k"], Float[Tensor, "b w d"]]:
        """Return the queries of `x`, in the precision of the memory, and the next window of their convolution."""
        q, window = self.views.queries(x, window)
        return F.normalize(q.to(self.read_norm.scale.dtype), dim=-1), window

    def recall(self, q: Float[Tensor, "b h t k"], written: Weights) -> Float[Tensor, "b t d"]:
        """Read a memory whose state is `written` with the queries, without writing."""
        with full_precision(q.device):
            return self.merge_heads(apply_memory(q, full_weights(self.base(), written), self.design))

    def merge_heads(self, y: Float[Tensor, "b h t v"]) -> Float[Tensor, "b t d"]:
        """Normalise the reads of the heads and concatenate them."""
        return rearrange(self.read_norm(y), "b h t v -> b t (h v)")

    def base(self) -> Weights | None:
        """Return the learned weights that are added to the state; None: the state is all of the memory."""
        return self.initial.weights() if self.initial is not None and self.start == "base" else None

    def project(self, x: Float[Tensor, "b t d"], state: AssociativeState) -> tuple[Tokens, Windows]:
        """Return queries, keys, values and gates, in the precision of the memory, and the next windows."""
        q, k, v, windows = self.views(x, state.windows)
        logits = x.new_zeros(*x.shape[:2], 0) if self.gates is None else self.gates(x)
        dtype = state.memory.weight[0].dtype
        with full_precision(x.device):
            q, k, v = F.normalize(q.to(dtype), dim=-1), F.normalize(k.to(dtype), dim=-1), v.to(dtype)
            v = F.normalize(v, dim=-1) if self.is_deep else v
            gates = self.kinds.open(rearrange(logits.to(dtype), "b t (g h) -> b h t g", h=self.num_heads))
        return Tokens(q, k, v, gates), windows

    def observe(
        self, x: Float[Tensor, "b t d"], before: AssociativeState, after: AssociativeState
    ) -> dict[str, Observation]:
        """Return statistics of writing `x` into the memory; its name is that of the memory that is read."""
        tokens, _ = self.project(x, before)
        with full_precision(x.device):
            return {READ: observation(token_stats(tokens, before.memory, self.base(), self.design), after.memory)}


class AssociativeMemory(MemoryHeads):
    """A memory layer: heads and an output projection. Arguments: those of `MemoryHeads`."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        conv_width: int,
        design: Design,
        kinds: GateKinds,
        depth: int,
        hidden_dim: int,
        start: str,
    ) -> None:
        super().__init__(dim, num_heads, conv_width, design, kinds, depth, hidden_dim, start)
        self.output = nn.Linear(dim, dim, bias=False)

    def forward(
        self, x: Float[Tensor, "b t d"], state: AssociativeState, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], AssociativeState]:
        """Write every token into the memory, then read it with the token's query."""
        y, state = super().forward(x, state, write=write)
        return self.output(y), state
