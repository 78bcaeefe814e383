"""Titans with attention: a memory in parallel to a sliding window, as a gate (MAG), or before it, as a layer (MAL)."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from nested_learning import tree
from nested_learning.nn.associative import AssociativeState, MemoryHeads
from nested_learning.nn.attention import AttentionHeads, KeyValues, KVCache
from nested_learning.nn.norm import RMSNorm
from nested_learning.nn.persistent import PersistentTokens
from nested_learning.ops.memory import end_context
from nested_learning.shapes import Float, Tensor


class HybridState(NamedTuple):
    """Per row: the KV cache, keys and values of the persistent tokens (None: there are none), and the memory."""

    short_term: KVCache
    persistent: KeyValues | None
    long_term: AssociativeState


def gated(y: Float[Tensor, "b t d"], memory: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
    """Return `silu(y) * memory`: the memory's output, gated by attention's `y`. Both inputs are normalised.

    Source: Titans, arXiv 2501.00663, section 4.2, which leaves the non-linearity open.
    """
    return F.silu(y) * memory


class Hybrid(nn.Module, ABC):
    """The parts that MAG and MAL share: attention with a window, a memory, persistent tokens, the output projection.

    `num_persistent`: how many persistent tokens attention and the memory read before the first token.
    """

    def __init__(self, dim: int, attention: AttentionHeads, memory: MemoryHeads, num_persistent: int) -> None:
        super().__init__()
        self.attention, self.memory = attention, memory
        self.persistent = PersistentTokens(num_persistent, dim) if num_persistent else None
        self.output = nn.Linear(dim, dim, bias=False)

    @abstractmethod
    def prefix(self, tokens: Float[Tensor, "1 p d"], outputs: Float[Tensor, "1 p d"]) -> Float[Tensor, "1 p d"]:
        """Return what attention sees as persistent tokens, given the tokens and the memory's outputs for them."""

    def init_state(self, batch: int) -> HybridState:
        """Return the state after the persistent tokens: attention sees them, and they are written into the memory."""
        persistent, long_term = None, self.memory.init_state(1)
        if self.persistent is not None:
            tokens = self.persistent()
            # forward, not a call of the module: hooks of telemetry should not observe persistent tokens
            outputs, long_term = self.memory.forward(tokens, long_term)
            # persistent tokens are a chunk of their own, so that the first token of the text begins a chunk
            memory = long_term.memory
            long_term = long_term._replace(memory=end_context(memory))
            persistent = self.attention.keys_values(self.prefix(tokens, outputs))
        rows = torch.zeros(batch, dtype=torch.int64, device=self.output.weight.device)
        return tree.select_rows(HybridState(self.attention.init_state(1), persistent, long_term), rows)

    def reset_context(self, state: HybridState) -> HybridState:
        """Return the state for a new document: the windows of `init_state`, and the memory with its weights."""
        empty, memory = self.init_state(len(state.short_term.key)), end_context(state.long_term.memory)
        return empty._replace(long_term=empty.long_term._replace(memory=memory))


class MemoryAsGate(Hybrid):
    """MAG: a memory, gated by attention over the same input (Titans, arXiv 2501.00663, equations 26-28)."""

    def __init__(self, dim: int, attention: AttentionHeads, memory: MemoryHeads, num_persistent: int) -> None:
        super().__init__(dim, attention, memory, num_persistent)
        self.attention_norm = RMSNorm(dim)

    def prefix(self, tokens: Float[Tensor, "1 p d"], outputs: Float[Tensor, "1 p d"]) -> Float[Tensor, "1 p d"]:
        """Return the tokens: attention reads the same input as the memory."""
        return tokens

    def forward(
        self, x: Float[Tensor, "b t d"], state: HybridState, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], HybridState]:
        """Read `x` with attention and with the memory."""
        y, short_term = self.attention.attend(x, state.short_term, state.persistent)
        recalled, long_term = self.memory(x, state.long_term, write=write)
        y = self.output(gated(self.attention_norm(y), recalled))
        return y, HybridState(short_term, state.persistent, long_term)


class MemoryAsLayer(Hybrid):
    """MAL: a memory reads, then attention reads its outputs (Titans, arXiv 2501.00663, equations 29-31)."""

    def prefix(self, tokens: Float[Tensor, "1 p d"], outputs: Float[Tensor, "1 p d"]) -> Float[Tensor, "1 p d"]:
        """Return the memory's outputs for the tokens."""
        return outputs

    def forward(
        self, x: Float[Tensor, "b t d"], state: HybridState, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], HybridState]:
        """Read `x` with the memory, and its outputs with attention."""
        recalled, long_term = self.memory(x, state.long_term, write=write)
        y, short_term = self.attention.attend(recalled, state.short_term, state.persistent)
        return self.output(y), HybridState(short_term, state.persistent, long_term)
