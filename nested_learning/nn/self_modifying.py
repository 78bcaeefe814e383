"""Self-modifying Titans: a layer whose memories generate the keys, values and gates that they are written with."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from nested_learning.nn.full_precision import full_precision
from nested_learning.nn.memory_weights import MemoryWeights
from nested_learning.nn.norm import RMSNorm
from nested_learning.nn.qkv import QKVProjections, Windows
from nested_learning.nn.telemetry import Observation, observation
from nested_learning.ops import self_modifying as ops
from nested_learning.ops.memory import Weights, apply_memory, end_context, full_weights, init_memory
from nested_learning.ops.self_modifying import NUM_GATE_SETS, READ, SelfDesign
from nested_learning.ops.telemetry import self_modifying_stats
from nested_learning.shapes import Float, Tensor

# biases of the gates, as logits. Retention starts at 0.993 per token, so that a write lasts for a context. The rate of
# the memory that is read starts at half of the maximum, that of the memories that generate at 0.0003 of it: they stay
# close to their learned projections until training raises it. At 0.007 they drift, and recall fails in long contexts.
READ_BIASES = {"rate": 0.0, "momentum": -1.0, "retention": 5.0}
GENERATING_BIASES = READ_BIASES | {"rate": -8.0}


class SelfModifyingState(NamedTuple):
    """Per row: the windows of the short convolutions, and the state of every memory by name."""

    windows: Windows
    memory: ops.State


class SelfModifyingMemory(nn.Module):
    """Self-modifying Titans (Nested Learning, arXiv 2512.24695, equations 83-93).

    Linear projections and short convolutions of `x` give queries, keys and values. A memory transforms each of those
    named in `adaptive` ("key", "value", "gates", "query") before it is used. Every head has its own memories.

    Arguments: `num_heads` (1 is the paper's form); `conv_width` tokens per short convolution; `design`: how the
    memories learn; `depth` layers of a memory, with `hidden_dim` units between them.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        conv_width: int,
        design: SelfDesign,
        adaptive: Sequence[str],
        depth: int,
        hidden_dim: int,
    ) -> None:
        super().__init__()
        self.num_heads, self.design = num_heads, design
        head_dim = dim // num_heads
        self.views = QKVProjections(dim, num_heads, conv_width)
        learned = design.kinds.learned
        widths = dict.fromkeys(adaptive, head_dim) | {READ: head_dim}
        # an adaptive memory replaces the projection of the gates; their biases stay parameters in both cases
        if "gates" in adaptive:
            widths["gates"] = NUM_GATE_SETS * len(learned)
            self.gates = None
        else:
            self.gates = nn.Linear(dim, NUM_GATE_SETS * len(learned) * num_heads, bias=False)
        biases = [biases[name] for biases in (GENERATING_BIASES, READ_BIASES) for name in learned]
        self.gate_bias = nn.Parameter(torch.tensor(biases).repeat(num_heads, 1))
        self.base = nn.ModuleDict(
            {
                name: MemoryWeights(
                    num_heads, head_dim, width, depth, hidden_dim, "zero" if name == "gates" else "identity"
                )
                for name, width in widths.items()
            }
        )
        self.read_norm = RMSNorm(head_dim)
        self.output = nn.Linear(dim, dim, bias=False)

    def init_state(self, batch: int) -> SelfModifyingState:
        """Return the state before the first token."""
        momentum = self.design.kinds.momentum == "gate"
        memory = {}
        for name, weights in self.weights().items():
            # zeros, not the base: the base is added at each use, so that retention does not decay it
            zeros = tuple(layer.new_zeros(batch, *layer.shape) for layer in weights)
            memory[name] = init_memory(zeros, momentum=momentum)
        return SelfModifyingState(self.views.init_state(batch), memory)

    def reset_context(self, state: SelfModifyingState) -> SelfModifyingState:
        """Return the state for a new document: empty windows, and the memories with their weights."""
        memory = {name: end_context(each) for name, each in state.memory.items()}
        return SelfModifyingState(self.views.init_state(len(state.windows.query)), memory)

    def forward(
        self, x: Float[Tensor, "b t d"], state: SelfModifyingState, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], SelfModifyingState]:
        """Write every token into all memories, then read one of them with the token's query."""
        qkv, windows = self.project(x, state)
        memory = state.memory
        # memories keep the precision of the parameters, also under autocast: many small updates add up in them
        with full_precision(x.device):
            base = self.weights()
            if write:
                y, memory = ops.self_modifying(qkv, base, memory, self.design)
            else:
                y = self.read_frozen(qkv.query, base, memory)
        y = rearrange(self.read_norm(y), "b h t v -> b t (h v)").to(x.dtype)
        return self.output(y), SelfModifyingState(windows, memory)

    def project(self, x: Float[Tensor, "b t d"], state: SelfModifyingState) -> tuple[ops.QKV, Windows]:
        """Return the projections of `x`, in the precision of the parameters, and the next windows."""
        q, k, v, windows = self.views(x, state.windows)
        logits = self.gate_bias[:, None].expand(len(x), -1, x.shape[1], -1)
        if self.gates is not None:
            logits = logits + rearrange(self.gates(x), "b t (g h) -> b h t g", h=self.num_heads)
        return ops.QKV(*(z.to(self.gate_bias.dtype) for z in (q, k, v, logits))), windows

    def observe(
        self, x: Float[Tensor, "b t d"], before: SelfModifyingState, after: SelfModifyingState
    ) -> dict[str, Observation]:
        """Return statistics of writing `x` into each memory, by name."""
        qkv, _ = self.project(x, before)
        with full_precision(x.device):
            stats = self_modifying_stats(qkv, self.weights(), before.memory, self.design)
            return {name: observation(each, after.memory[name]) for name, each in stats.items()}

    def weights(self) -> dict[str, Weights]:
        """Return the meta-learned weights of every memory, by name."""
        # the values of a ModuleDict are typed as plain modules
        return {name: cast(MemoryWeights, memory).weights() for name, memory in self.base.items()}

    def read_frozen(
        self, query: Float[Tensor, "b h t k"], base: ops.Memories, memory: ops.State
    ) -> Float[Tensor, "b h t k"]:
        """Read with the query without writing."""
        # reads need only the query's memory and the memory that is read: keys, values and gates are for writes
        if "query" in base:
            query = apply_memory(query, full_weights(base["query"], memory["query"].weight), self.design.of("query"))
        return apply_memory(F.normalize(query, dim=-1), full_weights(base[READ], memory[READ].weight), self.design.read)
