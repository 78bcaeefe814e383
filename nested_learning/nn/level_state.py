"""What one row has written on one level of the continuum memory, and how a write is made. All of it is a value."""

from typing import Any, NamedTuple

import torch

from nested_learning.level import Context, Level
from nested_learning.nn.full_precision import full_precision
from nested_learning.ops.rules import RULES
from nested_learning.ops.rules.functions import FUNCTIONS
from nested_learning.shapes import Float, Tensor


class MLPWeights(NamedTuple):
    """The two matrices of a level, or what is added to them: one pair for each row of the batch."""

    up: Float[Tensor, "b u d"]
    down: Float[Tensor, "b d f"]


class Inputs(NamedTuple):
    """The inputs of the two matrices, for rules that read them: the last ones of a period, zeros before them."""

    up: Float[Tensor, "b n d"]
    down: Float[Tensor, "b n f"]


class FastWeights(NamedTuple):
    """A change of a level's weights that one clock makes.

    `delta`: what was written; `gradient`: the sum since the last write, of `pending` pieces; `rule`: the states of the
    rule for both matrices; `inputs`: those of the same tokens (None: the rule reads none).
    """

    delta: MLPWeights
    gradient: MLPWeights
    pending: int
    rule: tuple[Any, Any]
    inputs: Inputs | None


class LevelState(NamedTuple):
    """What the rows of a batch have written on one level.

    `fast`: one change of the weights for each clock of `clocks`, the level's own first; the others, of slower levels,
    move the weights that it starts from (the nested variant). `position`: tokens read; `writes`: updates made;
    `surprise`: the norms of the gradients at the writes, added up. `level`: which level it is.
    """

    fast: tuple[FastWeights, ...]
    position: int
    writes: int
    surprise: Float[Tensor, "b"]
    level: Level
    clocks: tuple[Context, ...]

    @property
    def tokens_to_write(self) -> int:
        """Count the tokens up to the end of the current period, at least 1. Periods count from the first token."""
        return min(clock.period - self.position % clock.period for clock in self.clocks)

    @property
    def is_fresh(self) -> bool:
        """Say whether every row still has the meta-learned weights, and nobody asks for the gradient of its own."""
        return self.writes == 0 and not self.fast[0].delta.up.requires_grad

    def delta(self) -> MLPWeights:
        """Return all that was written, to be added to the meta-learned weights."""
        first, *others = (fast.delta for fast in self.fast)
        for each in others:
            first = MLPWeights(first.up + each.up, first.down + each.down)
        return first


def start(level: Level, clocks: tuple[Context, ...], weights: MLPWeights, batch: int) -> LevelState:
    """Return the state in which `batch` rows have written nothing on a level with the meta-learned `weights` [o i]."""
    zeros = MLPWeights(*(matrix.new_zeros(batch, *matrix.shape) for matrix in weights))
    fast = tuple(blank(zeros, clock) for clock in clocks)
    return LevelState(fast, 0, 0, weights.up.new_zeros(batch), level, clocks)


def blank(like: MLPWeights, clock: Context) -> FastWeights:
    """Return fast weights of the shape of `like` on which nothing is written."""
    zeros = MLPWeights(*(torch.zeros_like(matrix) for matrix in like))
    rule = FUNCTIONS[clock.rule]
    inputs = None
    if RULES[clock.rule].reads_inputs:
        inputs = Inputs(*(matrix.new_zeros(len(matrix), clock.period, matrix.shape[2]) for matrix in zeros))
    return FastWeights(zeros, zeros, 0, (rule.init(zeros.up), rule.init(zeros.down)), inputs)


def read_on(state: LevelState, num_tokens: int) -> LevelState:
    """Return `state` after `num_tokens` more tokens, of which nothing is written yet."""
    return state._replace(position=state.position + num_tokens)


def note_inputs(state: LevelState, inputs: Inputs) -> LevelState:
    """Keep the `inputs` of the tokens just read for the rules that read them."""
    with torch.set_grad_enabled(state.clocks[0].is_through and torch.is_grad_enabled()):
        return state._replace(fast=tuple(_with_inputs(fast, inputs) for fast in state.fast))


def write_gradient(state: LevelState, gradient: MLPWeights) -> LevelState:
    """Add the `gradient` of the tokens just read; where a period is complete, update the weights once by its sum.

    The tokens must not reach beyond `tokens_to_write`. When a slower clock is due as well, it moves the weights that
    the level starts from, and the level starts from there anew. Unless the level's gradient is `through`, what is
    written is a constant to the outer gradient.
    Source: Nested Learning, arXiv 2512.24695, equations 71 and 72 (of the latter the first-order gradient).
    """
    is_through, device = state.clocks[0].is_through, state.surprise.device
    # what is written stays in the parameters' precision whatever autocast does around it
    with torch.set_grad_enabled(is_through and torch.is_grad_enabled()), full_precision(device):
        gradient = MLPWeights(*(matrix.to(state.surprise.dtype) for matrix in gradient))
        fast = tuple(_accumulate(each, gradient) for each in state.fast)
        due = [index for index, clock in enumerate(state.clocks) if state.position % clock.period == 0]
        if not due:
            return state._replace(fast=fast)
        surprise = norm(fast[0].gradient).detach()
        slowest = due[-1]
        fast = (
            *(blank(each.delta, clock) for each, clock in zip(fast[:slowest], state.clocks[:slowest], strict=True)),
            _update(fast[slowest], state.clocks[slowest]),
            *fast[slowest + 1 :],
        )
        return state._replace(fast=fast, writes=state.writes + 1, surprise=state.surprise + surprise)


def norm(weights: MLPWeights) -> Float[Tensor, "b"]:
    """Return the norm of both matrices together, of each row."""
    return (weights.up.square().sum((1, 2)) + weights.down.square().sum((1, 2))).sqrt()


def _accumulate(fast: FastWeights, gradient: MLPWeights) -> FastWeights:
    if fast.pending:
        gradient = MLPWeights(fast.gradient.up + gradient.up, fast.gradient.down + gradient.down)
    elif not torch.is_grad_enabled():
        gradient = MLPWeights(gradient.up.detach(), gradient.down.detach())
    return fast._replace(gradient=gradient, pending=fast.pending + 1)


def _with_inputs(fast: FastWeights, inputs: Inputs) -> FastWeights:
    if fast.inputs is None:
        return fast
    kept = (torch.cat([old, new], 1)[:, new.shape[1] :] for old, new in zip(fast.inputs, inputs, strict=True))
    return fast._replace(inputs=Inputs(*kept))


def _update(fast: FastWeights, clock: Context) -> FastWeights:
    """Apply the rule of `clock`; the gradient and the inputs begin anew."""
    rule, options = FUNCTIONS[clock.rule], dict(clock.options)
    matrices, states = [], []
    for index in range(2):
        x = {} if fast.inputs is None else {"x": fast.inputs[index]}
        matrix, state = rule.update(
            fast.delta[index],
            fast.gradient[index],
            fast.rule[index],
            lr=clock.lr,
            weight_decay=clock.weight_decay,
            **options,
            **x,
        )
        matrices.append(matrix)
        states.append(state)
    nothing = MLPWeights(*(torch.zeros_like(matrix) for matrix in fast.delta))
    inputs = None if fast.inputs is None else Inputs(*(torch.zeros_like(x) for x in fast.inputs))
    return FastWeights(MLPWeights(*matrices), nothing, 0, (states[0], states[1]), inputs)
