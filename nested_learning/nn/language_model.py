"""The structure that all models share: embedding, blocks of a mixer and a continuum memory, norm, head."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nested_learning.level import Level
from nested_learning.nn.cms import CMSState, ContinuumMemory
from nested_learning.nn.dropout import residual_dropout
from nested_learning.nn.init import initialise
from nested_learning.nn.memory import MemoryModule, State
from nested_learning.nn.norm import RMSNorm
from nested_learning.shapes import Float, Int, Tensor


class BlockState(NamedTuple):
    """The state of one block: that of its mixer, and those of the levels of its continuum memory."""

    mixer: State
    cms: CMSState


class Block(nn.Module):
    """Mix tokens, then channels: `x + mixer(norm(x))`, then the chain of the continuum memory.

    `dropout`: the fraction of the mixer's output that is dropped in training.
    """

    def __init__(self, dim: int, mixer: MemoryModule, cms: ContinuumMemory, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = RMSNorm(dim)
        self.mixer = mixer
        self.cms = cms
        self.dropout = residual_dropout(dropout)

    def init_state(self, batch: int) -> BlockState:
        """Return the state before the first token."""
        return BlockState(self.mixer.init_state(batch), self.cms.init_state(batch))

    def reset_context(self, state: BlockState) -> BlockState:
        """Return the state for a new document."""
        return BlockState(self.mixer.reset_context(state.mixer), self.cms.reset_context(state.cms))

    def forward(
        self, x: Float[Tensor, "b t d"], state: BlockState, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], BlockState]:
        """Apply the block to `x`, continuing from `state`."""
        y, mixer = self.mixer(self.norm(x), state.mixer, write=write)
        x, cms = self.cms(x + self.dropout(y), state.cms, write=write)
        return x, BlockState(mixer, cms)


class LanguageModel(nn.Module):
    """Tokens to logits, carrying one state per row: `(tokens, state) -> (logits, state)`.

    Arguments: `levels`: of those with a period the optimizer updates the parameters once in the period;
    `tie_embedding`: whether the head shares the embedding's weights; `seed` of the initial weights; `dropout`: the
    fraction of the embedding that is dropped in training; `softcap`: a bound on the logits (None: no bound).
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int,
        blocks: Sequence[Block],
        levels: Sequence[Level],
        tie_embedding: bool,
        seed: int,
        dropout: float = 0.0,
        softcap: float | None = None,
    ) -> None:
        super().__init__()
        self.vocab_size, self.softcap = vocab_size, softcap
        self.levels = tuple(level for level in levels if level.period > 0)
        self.embedding = nn.Embedding(vocab_size, dim)
        self.dropout = residual_dropout(dropout)
        self.blocks = nn.ModuleList(blocks)
        # see nn/execution.py
        self.recomputes_blocks = False
        self.norm = RMSNorm(dim)
        self.head = nn.Linear(dim, vocab_size, bias=False)
        initialise(self, len(blocks), seed)
        if tie_embedding:
            self.head.weight = self.embedding.weight

    def init_state(self, batch: int) -> tuple[BlockState, ...]:
        """Return the state of `batch` rows before their first token."""
        # the items of a ModuleList are typed as plain modules
        blocks = cast(Sequence[Block], self.blocks)
        return tuple(block.init_state(batch) for block in blocks)

    def reset_context(self, state: tuple[BlockState, ...]) -> tuple[BlockState, ...]:
        """Return `state` for a new document: memories stay, convolution windows and KV caches are emptied."""
        blocks = cast(Sequence[Block], self.blocks)
        return tuple(block.reset_context(before) for block, before in zip(blocks, state, strict=True))

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        state: tuple[BlockState, ...],
        *,
        write: bool = True,
        head_fn: Callable[[Float[Tensor, "b t d"]], Any] | None = None,
    ) -> tuple[Any, tuple[BlockState, ...]]:
        """Return the logits [b t v] of `tokens`, continuing from `state`; `write=False` leaves memories unchanged.

        `head_fn` replaces `logits`, for example for chunked cross-entropy. It runs inside forward so that FSDP
        parameters are gathered.
        """
        x = self.embedding(tokens)
        x = self.dropout(F.rms_norm(x, x.shape[-1:]))
        states = []
        for block, before in zip(self.blocks, state, strict=True):
            if self.recomputes_blocks and torch.is_grad_enabled():
                x, after = checkpoint(block, x, before, use_reentrant=False, write=write)
            else:
                x, after = block(x, before, write=write)
            states.append(after)
        return (head_fn or self.logits)(self.norm(x)), tuple(states)

    def logits(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... v"]:
        """Return the logits of outputs; a softcap c makes l to c tanh(l / c), in float32 or better.

        Source: Gemma 2, arXiv 2408.00118, section 2.
        """
        logits = self.head(x)
        if self.softcap is None:
            return logits
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return self.softcap * torch.tanh(exact / self.softcap)
