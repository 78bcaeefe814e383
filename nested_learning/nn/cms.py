"""Continuum memory system: a chain of MLP blocks, each learning at a period of its own."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn
from torch.nn import functional as F

from nested_learning.level import Level
from nested_learning.nn.norm import RMSNorm
from nested_learning.shapes import Float, Tensor


class MLPDelta(NamedTuple):
    """What one row has written on the weights of a level, added to the meta-learned weights."""

    up: Float[Tensor, "b u d"]
    down: Float[Tensor, "b d f"]


CMSState = tuple[MLPDelta | None, ...]


class MLPMemory(nn.Module):
    """One level: a SwiGLU block on a normalised input, `down(silu(gate) * up)`; a memory whose weights are the store.

    Its weights are meta-learned; a row's own writes are a delta on them (None: nothing written).
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.norm = RMSNorm(dim)
        self.up = nn.Linear(dim, 2 * hidden_dim, bias=False)
        self.down = nn.Linear(hidden_dim, dim, bias=False)

    def forward(self, x: Float[Tensor, "b t d"], delta: MLPDelta | None) -> Float[Tensor, "b t d"]:
        """Read the level with the weights of each row."""
        z = self.norm(x)
        if delta is None:
            gate, value = self.up(z).chunk(2, dim=-1)
            return self.down(F.silu(gate) * value)
        gate, value = (self.up(z) + z @ delta.up.mT).chunk(2, dim=-1)
        hidden = F.silu(gate) * value
        return self.down(hidden) + hidden @ delta.down.mT


class ContinuumMemory(nn.Module):
    """The chain `y = MLP_k(... MLP_1(x))` with residuals (Nested Learning, arXiv 2512.24695, equation 70).

    A level of period p changes its weights once every p tokens, by the accumulated gradient of those tokens (equation
    71). One level of period 0 is the MLP of a Transformer. Arguments: width, the levels, and the hidden width of each.
    """

    def __init__(self, dim: int, levels: Sequence[Level], hidden_dim: int) -> None:
        super().__init__()
        self.levels = nn.ModuleDict({level.name: MLPMemory(dim, hidden_dim) for level in levels})

    def init_state(self, batch: int) -> CMSState:
        """Return the state in which no row has written on any level."""
        return tuple(None for _ in self.levels)

    def forward(
        self, x: Float[Tensor, "b t d"], state: CMSState, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], CMSState]:
        """Read every level in turn, adding its output. The task's error writes levels; a forward pass does not."""
        for level, delta in zip(self.levels.values(), state, strict=True):
            x = x + level(x, delta)
        return x, state
