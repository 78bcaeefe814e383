"""An associative memory as a layer: it learns, while it reads, to map keys to values."""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from nested_learning.nn.full_precision import full_precision
from nested_learning.nn.memory_weights import MemoryWeights
from nested_learning.nn.norm import RMSNorm
from nested_learning.nn.qkv import QKVProjections, Windows
from nested_learning.nn.telemetry import Observation, observed
from nested_learning.ops.associative import associative
from nested_learning.ops.gates import GateKinds, Gates
from nested_learning.ops.memory import Design, Memory, Weights, add, answer, fresh, rest
from nested_learning.ops.self_modifying import READ
from nested_learning.ops.telemetry import watch
from nested_learning.shapes import Float, Tensor

# Gates at the start: a rate of 0.27 of the largest, momentum 0.27, and retention 0.993, so that what is written
# survives a context.
BIASES = {"rate": -1.0, "momentum": -1.0, "retention": 5.0}


class AssociativeState(NamedTuple):
    """Per row: the windows of the convolutions, and the memory of each head."""

    windows: Windows
    memory: Memory


class Projections(NamedTuple):
    """What tokens ask the memory, and what they write into it: `[b h t k]` each, and the gates."""

    query: Tensor
    key: Tensor
    value: Tensor
    gates: Gates


class MemoryHeads(nn.Module):
    """A memory of any design, but for the output projection of its layer.

    Titans' (arXiv 2501.00663, equations 11-15), DeltaNet's, TTT's, linear attention's. Keys and queries are
    `l2norm(silu(conv(x W)))`, values `silu(conv(x W))`; gates are functions of the token, one each a head. Values of a
    deep memory are normalised too (ours): its layers multiply each other, and errors of free length make them grow
    without bound. Arguments: width, heads, the width of the convolutions, the design of the memory and its gates, its
    depth, the width of its hidden layers, and where it starts: at "zero", at "learned" weights, or, with "base", on
    learned weights that stay: retention forgets only what was written on them (ours).
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
            begin = "drawn" if design.norm else "identity"
            self.initial = MemoryWeights(num_heads, self.head_dim, self.head_dim, depth, hidden_dim, begin)
        self.read_norm = RMSNorm(self.head_dim)

    def init_state(self, batch: int) -> AssociativeState:
        """Return empty windows and the memory as it starts, one copy a row."""
        if self.initial is None:
            weight: Weights = (self.read_norm.scale.new_zeros(batch, self.num_heads, self.head_dim, self.head_dim),)
        else:
            weight = self.initial.of_rows(batch)
            if self.start == "base":
                weight = tuple(torch.zeros_like(layer) for layer in weight)
        memory = fresh(weight, momentum=self.kinds.momentum == "gate")
        return AssociativeState(self.views.init_state(batch), memory)

    def reset_context(self, state: AssociativeState) -> AssociativeState:
        """Return the state before another text: empty windows, and the memory as it was left."""
        return AssociativeState(self.views.init_state(len(state.windows.query)), rest(state.memory))

    def forward(
        self, x: Float[Tensor, "b t d"], state: AssociativeState, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], AssociativeState]:
        """Write every token into the memory, then read it with the token's query."""
        (q, k, v, gates), windows = self.project(x, state)
        memory = state.memory
        if not write:
            return self.recall(q, memory.weight).to(x.dtype), AssociativeState(windows, memory)
        # the memory stays in the parameters' precision whatever autocast does around it
        with full_precision(x.device):
            y, memory = associative(q, k, v, gates, memory, self.base(), self.design)
        return self.join(y).to(x.dtype), AssociativeState(windows, memory)

    def ask(
        self, x: Float[Tensor, "b t d"], window: Float[Tensor, "b w d"]
    ) -> tuple[Float[Tensor, "b h t k"], Float[Tensor, "b w d"]]:
        """Return the queries of `x`, in the precision of the memory, and the window of their convolution after them."""
        q, window = self.views.queries(x, window)
        return F.normalize(q.to(self.read_norm.scale.dtype), dim=-1), window

    def recall(self, q: Float[Tensor, "b h t k"], written: Weights) -> Float[Tensor, "b t d"]:
        """Return what a memory of which `written` is the state answers to the queries; nothing is written."""
        with full_precision(q.device):
            return self.join(answer(q, add(self.base(), written), self.design))

    def join(self, y: Float[Tensor, "b h t v"]) -> Float[Tensor, "b t d"]:
        """Normalise what the heads read, and lay it side by side."""
        return rearrange(self.read_norm(y), "b h t v -> b t (h v)")

    def base(self) -> Weights | None:
        """Return the weights that what is written stands on; None: it is all there is."""
        return self.initial.weights() if self.initial is not None and self.start == "base" else None

    def project(self, x: Float[Tensor, "b t d"], state: AssociativeState) -> tuple[Projections, Windows]:
        """Return what tokens ask and write, in the precision of the memory, and the windows after them."""
        q, k, v, windows = self.views(x, state.windows)
        logits = x.new_zeros(*x.shape[:2], 0) if self.gates is None else self.gates(x)
        dtype = state.memory.weight[0].dtype
        with full_precision(x.device):
            q, k, v = F.normalize(q.to(dtype), dim=-1), F.normalize(k.to(dtype), dim=-1), v.to(dtype)
            v = F.normalize(v, dim=-1) if self.is_deep else v
            gates = self.kinds.open(rearrange(logits.to(dtype), "b t (g h) -> b h t g", h=self.num_heads))
        return Projections(q, k, v, gates), windows

    def observe(
        self, x: Float[Tensor, "b t d"], before: AssociativeState, after: AssociativeState
    ) -> dict[str, Observation]:
        """Return what writing `x` did to the memory, whose name is that of the one that is read: there is one."""
        (_, k, v, gates), _ = self.project(x, before)
        with full_precision(x.device):
            return {READ: observed(watch(k, v, gates, before.memory, self.base(), self.design), after.memory)}


class AssociativeMemory(MemoryHeads):
    """A memory as a layer: its heads, and an output projection. Arguments: those of `MemoryHeads`."""

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
