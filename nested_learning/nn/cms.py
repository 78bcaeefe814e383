"""The continuum memory system: MLP blocks, each of which is updated with a period of its own."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional as F

from nested_learning.level import Context, Level
from nested_learning.nn.dropout import residual_dropout
from nested_learning.nn.full_precision import full_precision
from nested_learning.nn.level_state import (
    LevelInputs,
    LevelState,
    MLPWeights,
    advance,
    init_level,
    record_inputs,
    write_gradient,
)
from nested_learning.nn.norm import RMSNorm
from nested_learning.ops.swiglu import swiglu, swiglu_gradient
from nested_learning.shapes import Float, Tensor

# of each level; None: it learns outside the context only
CMSState = tuple[LevelState | None, ...]


class _Activations(NamedTuple):
    y: Tensor
    hidden: Tensor
    below: Tensor


class MLPMemory(nn.Module):
    """One level: a SwiGLU block on a normalised input, `down(silu(gate) * up)`, whose weights are a memory.

    The weights are meta-learned; for a level with a context clock each row of the batch adds its own change to them.
    With a local signal the level has its own objective: mapping `key(z)` to `value(z)`, learned projections of its
    normalised input z, with the loss `½ ‖MLP(key) - value‖² / dim` summed over the tokens of a period. Its updates then
    depend on the tokens read, not on the task. Source: Titans, arXiv 2501.00663, equation 12, with the block's own
    input as query. `clocks`: those that update its weights, its own first; none: no fast weights.
    """

    def __init__(self, dim: int, hidden_dim: int, level: Level, clocks: tuple[Context, ...]) -> None:
        super().__init__()
        self.level, self.clocks = level, clocks
        self.norm = RMSNorm(dim)
        self.up = nn.Linear(dim, 2 * hidden_dim, bias=False)
        self.down = nn.Linear(hidden_dim, dim, bias=False)
        self.has_local_signal = bool(clocks) and clocks[0].signal == "local"
        if self.has_local_signal:
            self.key = nn.Linear(dim, dim, bias=False)
            self.value = nn.Linear(dim, dim, bias=False)

    def init_state(self, batch: int) -> LevelState | None:
        """Return the state before the first update; None for a level without updates inside the context."""
        if not any(clock.lr for clock in self.clocks):
            return None
        return init_level(self.level, self.clocks, MLPWeights(self.up.weight, self.down.weight), batch)

    def reset_context(self, state: LevelState | None) -> LevelState | None:
        """Return `state` for a new document: all of it is memory, the sums of the unfinished period too."""
        return state

    def forward(
        self, x: Float[Tensor, "b t d"], state: LevelState | None, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], LevelState | None]:
        """Apply the level with the weights of each row. A local signal also updates it after every period."""
        z = self.norm(x)
        if state is None:
            return self._mlp(z, self._weights(None)).y, None
        if write and self.has_local_signal:
            return self._apply_and_write(z, state)
        result = self._mlp(z, self._weights(state))
        # a taught level is written later, when the loss is known: only its inputs are recorded here
        if write:
            state = record_inputs(state, LevelInputs(z, result.hidden))
        return result.y, advance(state, x.shape[1])

    def _weights(self, state: LevelState | None) -> MLPWeights | None:
        """Return the weights of each row; None while all rows share the meta-learned ones."""
        if state is None or state.is_unwritten:
            return None
        delta = state.delta()
        return MLPWeights(self.up.weight + delta.up, self.down.weight + delta.down)

    def _mlp(self, z: Tensor, weights: MLPWeights | None) -> _Activations:
        # one product with base plus change costs less than two products, with the base and with the change
        below = self.up(z) if weights is None else z @ weights.up.mT
        hidden = swiglu(below)
        return _Activations(self.down(hidden) if weights is None else hidden @ weights.down.mT, hidden, below)

    def _apply_and_write(self, z: Tensor, state: LevelState) -> tuple[Tensor, LevelState]:
        """Apply and update period by period: each period uses the weights after the update of the previous one."""
        outputs, done = [], 0
        # normalised keys: the size of the gradient, and so the useful rate, does not depend on the projection
        keys = F.rms_norm(self.key(z).to(self.up.weight.dtype), z.shape[-1:])
        values = self.value(z)
        while done < z.shape[1]:
            until = min(done + state.tokens_to_write, z.shape[1])
            key, weights = keys[:, done:until], self._weights(state)
            # read before the write: a token must not see an update that used later tokens of its period
            outputs.append(self._mlp(z[:, done:until], weights).y)
            output, hidden, below = self._mlp(key, weights)
            down = self.down.weight if weights is None else weights.down
            # updates keep the precision of the parameters, also under autocast
            with full_precision(z.device):
                output, hidden, below = (x.to(key.dtype) for x in (output, hidden, below))
                error = (output - values[:, done:until]) / z.shape[-1]
                gradient = swiglu_gradient(key, below, hidden, down, error)
            state = advance(record_inputs(state, LevelInputs(key, hidden)), until - done)
            state = write_gradient(state, MLPWeights(*gradient))
            done = until
        return torch.cat(outputs, 1), state


class ContinuumMemory(nn.Module):
    """Several levels between the input and the output of a block, all with residuals.

    A level of period p changes its weights once every p tokens, by the accumulated gradient of those tokens (Nested
    Learning, arXiv 2512.24695, equation 71). One level of period 0 is the MLP of a Transformer. `variant`:

    - sequential: `y = MLP_k(... MLP_1(x))`, each with a residual (equations 70 and 73);
    - independent: `y = x + Σ scale_l MLP_l(x)`: all read the same input, with a learned weight each (equation 74);
    - nested: the chain, and the slower level after a level also learns the weights that this level starts from: they
      are updated once in the slower one's period, by its rule, and the level's own change is reset (equation 72).

    `levels` go from fast to slow; `dropout`: the fraction of each level's output that is dropped in training.
    """

    def __init__(
        self, dim: int, levels: Sequence[Level], hidden_dim: int, variant: str = "sequential", dropout: float = 0.0
    ) -> None:
        super().__init__()
        clocks = [() if level.context is None else (level.context,) for level in levels]
        if variant == "nested":
            # a level also has the clocks of all slower levels: they move the weights that it starts from
            clocks = [own and sum(clocks[index:], ()) for index, own in enumerate(clocks)]
        self.levels = nn.ModuleDict(
            {level.name: MLPMemory(dim, hidden_dim, level, own) for level, own in zip(levels, clocks, strict=True)}
        )
        self.is_parallel = variant == "independent"
        if self.is_parallel:
            self.scale = nn.Parameter(torch.ones(len(levels)))
        self.dropout = residual_dropout(dropout)

    def init_state(self, batch: int) -> CMSState:
        """Return the states of all levels before their first update."""
        # the values of a ModuleDict are typed as plain modules
        levels = cast(Iterable[MLPMemory], self.levels.values())
        return tuple(level.init_state(batch) for level in levels)

    def reset_context(self, state: CMSState) -> CMSState:
        """Return the states of all levels for a new document."""
        levels = cast(Iterable[MLPMemory], self.levels.values())
        return tuple(level.reset_context(before) for level, before in zip(levels, state, strict=True))

    def forward(
        self, x: Float[Tensor, "b t d"], state: CMSState, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], CMSState]:
        """Apply every level. Levels with a local signal update here; taught levels later, by `write_gradient`."""
        y, states = x, []
        for index, (level, before) in enumerate(zip(self.levels.values(), state, strict=True)):
            read, after = level(x if self.is_parallel else y, before, write=write)
            y = y + self.dropout(self.scale[index] * read if self.is_parallel else read)
            states.append(after)
        return y, tuple(states)
