"""Titans with attention: the memory beside a sliding window, as a gate (MAG), or before it, as a layer (MAL)."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from nested_learning import tree
from nested_learning.nn.associative import AssociativeState, MemoryHeads
from nested_learning.nn.attention import AttentionHeads, KVCache, Shown
from nested_learning.nn.norm import RMSNorm
from nested_learning.nn.persistent import PersistentTokens
from nested_learning.ops.memory import rest
from nested_learning.shapes import Float, Tensor


class HybridState(NamedTuple):
    """Per row: the window, what attention sees of the persistent tokens (None: there are none), and the memory."""

    short_term: KVCache
    persistent: Shown | None
    long_term: AssociativeState


def gated(y: Float[Tensor, "b t d"], memory: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
    """Return `silu(y) * memory`: what the memory says, through a gate that attention opens; both come normalised.

    Source: Titans, arXiv 2501.00663, section 4.2: normalised with learned vectors, then any non-linear gate.
    """
    return F.silu(y) * memory


class Hybrid(nn.Module, ABC):
    """What MAG and MAL share: a window, a memory that has read the persistent tokens, and the output projection.

    Arguments: width, the heads of attention, which have a window, and of the memory, and how many tokens persist.
    """

    def __init__(self, dim: int, attention: AttentionHeads, memory: MemoryHeads, num_persistent: int) -> None:
        super().__init__()
        self.attention, self.memory = attention, memory
        self.persistent = PersistentTokens(num_persistent, dim) if num_persistent else None
        self.output = nn.Linear(dim, dim, bias=False)

    @abstractmethod
    def prefix(self, tokens: Float[Tensor, "1 p d"], answers: Float[Tensor, "1 p d"]) -> Float[Tensor, "1 p d"]:
        """Return what attention reads before the text, out of the persistent tokens and the memory's answers."""

    def init_state(self, batch: int) -> HybridState:
        """Return the state after the persistent tokens: attention sees them, and they are written in the memory."""
        shown, long_term = None, self.memory.init_state(1)
        if self.persistent is not None:
            tokens = self.persistent()
            # not by calling the module: whoever observes a memory looks at what it reads of the rows
            answers, long_term = self.memory.forward(tokens, long_term)
            # they are a chunk of their own, so that the text begins with a chunk
            memory = long_term.memory
            long_term = long_term._replace(memory=rest(memory))
            shown = self.attention.show(self.prefix(tokens, answers))
        rows = torch.zeros(batch, dtype=torch.int64, device=self.output.weight.device)
        return tree.select_rows(HybridState(self.attention.init_state(1), shown, long_term), rows)

    def reset_context(self, state: HybridState) -> HybridState:
        """Return the state before another text: windows after the persistent tokens, and the memory as it was left."""
        empty, memory = self.init_state(len(state.short_term.key)), rest(state.long_term.memory)
        return empty._replace(long_term=empty.long_term._replace(memory=memory))


class MemoryAsGate(Hybrid):
    """MAG: a memory, gated by a window beside it (Titans, arXiv 2501.00663, equations 26-28)."""

    def __init__(self, dim: int, attention: AttentionHeads, memory: MemoryHeads, num_persistent: int) -> None:
        super().__init__(dim, attention, memory, num_persistent)
        self.attention_norm = RMSNorm(dim)

    def prefix(self, tokens: Float[Tensor, "1 p d"], answers: Float[Tensor, "1 p d"]) -> Float[Tensor, "1 p d"]:
        """Return the tokens: attention reads what the memory reads."""
        return tokens

    def forward(
        self, x: Float[Tensor, "b t d"], state: HybridState, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], HybridState]:
        """Read `x` on, by attention and by the memory."""
        y, short_term = self.attention.attend(x, state.short_term, state.persistent)
        answers, long_term = self.memory(x, state.long_term, write=write)
        y = self.output(gated(self.attention_norm(y), answers))
        return y, HybridState(short_term, state.persistent, long_term)


class MemoryAsLayer(Hybrid):
    """MAL: a memory reads, then a window reads what it answers (Titans, arXiv 2501.00663, equations 29-31)."""

    def prefix(self, tokens: Float[Tensor, "1 p d"], answers: Float[Tensor, "1 p d"]) -> Float[Tensor, "1 p d"]:
        """Return what the memory answers to the tokens."""
        return answers

    def forward(
        self, x: Float[Tensor, "b t d"], state: HybridState, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], HybridState]:
        """Read `x` on by the memory, and what it answers by attention."""
        answers, long_term = self.memory(x, state.long_term, write=write)
        y, short_term = self.attention.attend(answers, state.short_term, state.persistent)
        return self.output(y), HybridState(short_term, state.persistent, long_term)
