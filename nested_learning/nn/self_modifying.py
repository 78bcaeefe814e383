"""Self-modifying Titans: a layer whose memories generate their own keys, values and gates, and rewrite them."""

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
from nested_learning.nn.telemetry import Observation, observed
from nested_learning.ops import self_modifying as ops
from nested_learning.ops.memory import Weights, add, answer, fresh, rest
from nested_learning.ops.self_modifying import NUM_GATE_SETS, READ, SelfDesign
from nested_learning.ops.telemetry import watch_self_modifying
from nested_learning.shapes import Float, Tensor

# Gates at the start: retention 0.993 a token, so that what is written survives a context. What is read is written at
# half of the largest rate. The memories that generate are written at 0.0003 of it: they stay the projections they were
# learned as until the outer loss teaches them to change; at 0.007 they drift, and recall fails in longer contexts.
READ_BIASES = {"rate": 0.0, "momentum": -1.0, "retention": 5.0}
GENERATING_BIASES = READ_BIASES | {"rate": -8.0}


class SelfModifyingState(NamedTuple):
    """Per row: the windows of the convolutions, and what each head wrote on its memories, by name."""

    windows: Windows
    memory: ops.State


class SelfModifyingMemory(nn.Module):
    """Self-modifying Titans (Nested Learning, arXiv 2512.24695, equations 83-93).

    Fixed projections and short convolutions give queries, keys and values a view of `x` each; those named in `adaptive`
    ("key", "value", "gates", "query") are what memories make of their views, the others are their views. A head has
    its memories on its slice of the views. Arguments: width, heads (1: the paper's form), width of the convolutions,
    the design, what is adaptive, and the depth of the memories and the width of their hidden layers.
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
        """Return the state in which nothing is written."""
        momentum = self.design.kinds.momentum == "gate"
        memory = {}
        for name, weights in self.weights().items():
            nothing = tuple(layer.new_zeros(batch, *layer.shape) for layer in weights)
            memory[name] = fresh(nothing, momentum=momentum)
        return SelfModifyingState(self.views.init_state(batch), memory)

    def reset_context(self, state: SelfModifyingState) -> SelfModifyingState:
        """Return the state before another text: empty windows, and the memories as they were left."""
        memory = {name: rest(each) for name, each in state.memory.items()}
        return SelfModifyingState(self.views.init_state(len(state.windows.query)), memory)

    def forward(
        self, x: Float[Tensor, "b t d"], state: SelfModifyingState, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], SelfModifyingState]:
        """Write every token on all memories, then read one with the token's query."""
        views, windows = self.project(x, state)
        memory = state.memory
        # the memories stay in the parameters' precision whatever autocast does around them
        with full_precision(x.device):
            base = self.weights()
            if write:
                y, memory = ops.self_modifying(views, base, memory, self.design)
            else:
                y = self.read_frozen(views.query, base, memory)
        y = rearrange(self.read_norm(y), "b h t v -> b t (h v)").to(x.dtype)
        return self.output(y), SelfModifyingState(windows, memory)

    def project(self, x: Float[Tensor, "b t d"], state: SelfModifyingState) -> tuple[ops.QKV, Windows]:
        """Return what tokens show the memories, in the precision of the parameters, and the windows after them."""
        q, k, v, windows = self.views(x, state.windows)
        logits = self.gate_bias[:, None].expand(len(x), -1, x.shape[1], -1)
        if self.gates is not None:
            logits = logits + rearrange(self.gates(x), "b t (g h) -> b h t g", h=self.num_heads)
        return ops.QKV(*(z.to(self.gate_bias.dtype) for z in (q, k, v, logits))), windows

    def observe(
        self, x: Float[Tensor, "b t d"], before: SelfModifyingState, after: SelfModifyingState
    ) -> dict[str, Observation]:
        """Return what writing `x` did to each memory, by its name."""
        views, _ = self.project(x, before)
        with full_precision(x.device):
            watched = watch_self_modifying(views, self.weights(), before.memory, self.design)
            return {name: observed(each, after.memory[name]) for name, each in watched.items()}

    def weights(self) -> dict[str, Weights]:
        """Return the meta-learned weights of every memory, by name."""
        # a ModuleDict does not tell what it holds
        return {name: cast(MemoryWeights, memory).weights() for name, memory in self.base.items()}

    def read_frozen(
        self, query: Float[Tensor, "b h t k"], base: ops.Memories, memory: ops.State
    ) -> Float[Tensor, "b h t k"]:
        """Read with memories that stay as they are."""
        if "query" in base:
            query = answer(query, add(base["query"], memory["query"].weight), self.design.of("query"))
        return answer(F.normalize(query, dim=-1), add(base[READ], memory[READ].weight), self.design.read)
