"""The state of one level of the continuum memory: the change of its weights by each row, and its updates."""

from typing import Any, NamedTuple

import torch

from nested_learning.level import Context, Level
from nested_learning.nn.full_precision import full_precision
from nested_learning.ops.rules import RULES
from nested_learning.ops.rules.functions import FUNCTIONS
from nested_learning.shapes import Float, Tensor

# the largest change of a level's matrix: its root mean square, in units of 1 / sqrt(inputs), about that of the weights
# that it is added to
MAX_CHANGE = 8.0


class MLPWeights(NamedTuple):
    """The two matrices of a level, or changes of them, for each row of the batch."""

    up: Float[Tensor, "b u d"]
    down: Float[Tensor, "b d f"]


class LevelInputs(NamedTuple):
    """The inputs of the two matrices in the current period, for rules that read them; zeros before its first token."""

    up: Float[Tensor, "b n d"]
    down: Float[Tensor, "b n f"]


class FastWeights(NamedTuple):
    """The change of a level's weights by one clock, for each row.

    `delta`: the change; `gradient`: the sum of gradients since the last update, over `pending` calls; `rule`: the state
    of the rule for each matrix; `inputs`: those of the same tokens (None: the rule reads no inputs).
    """

    delta: MLPWeights
    gradient: MLPWeights
    pending: int
    rule: tuple[Any, Any]
    inputs: LevelInputs | None


class LevelState(NamedTuple):
    """The state of one level for the rows of a batch.

    `fast`: one change of the weights for each clock of `clocks`, the level's own first; the others, of slower levels,
    move the weights that it starts from (the nested variant). `position`: tokens read; `writes`: updates made;
    `surprise`: the sum of the gradient norms at the updates.
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
    def is_unwritten(self) -> bool:
        """Say whether every row still has the meta-learned weights, and needs no gradient for its own change."""
        # then all rows share one matrix, and the level is one ordinary product instead of one for each row
        return self.writes == 0 and not self.fast[0].delta.up.requires_grad

    def delta(self) -> MLPWeights:
        """Return the sum of all changes, to be added to the meta-learned weights."""
        first, *others = (fast.delta for fast in self.fast)
        for each in others:
            first = MLPWeights(first.up + each.up, first.down + each.down)
        return first


def init_level(level: Level, clocks: tuple[Context, ...], weights: MLPWeights, batch: int) -> LevelState:
    """Return the state of `batch` rows before the first update, for a level with the meta-learned `weights` [o i]."""
    zeros = MLPWeights(*(matrix.new_zeros(batch, *matrix.shape) for matrix in weights))
    fast = tuple(zero_weights(zeros, clock) for clock in clocks)
    return LevelState(fast, 0, 0, weights.up.new_zeros(batch), level, clocks)


def zero_weights(like: MLPWeights, clock: Context) -> FastWeights:
    """Return fast weights of the shape of `like` before the first update."""
    zeros = MLPWeights(*(torch.zeros_like(matrix) for matrix in like))
    # the rule is applied to the change, not to the weights: its weight decay draws towards the meta-learned weights
    rule = FUNCTIONS[clock.rule]
    inputs = None
    if RULES[clock.rule].reads_inputs:
        inputs = LevelInputs(*(matrix.new_zeros(len(matrix), clock.period, matrix.shape[2]) for matrix in zeros))
    return FastWeights(zeros, zeros, 0, (rule.init(zeros.up), rule.init(zeros.down)), inputs)


def advance(state: LevelState, num_tokens: int) -> LevelState:
    """Return `state` with its position advanced by `num_tokens`."""
    return state._replace(position=state.position + num_tokens)


def record_inputs(state: LevelState, inputs: LevelInputs) -> LevelState:
    """Append the `inputs` of the tokens just read, for the rules that read them."""
    # without `through`, no graph: it would keep the activations of every token of the period
    with torch.set_grad_enabled(state.clocks[0].is_through and torch.is_grad_enabled()):
        return state._replace(fast=tuple(_with_inputs(fast, inputs) for fast in state.fast))


def write_gradient(state: LevelState, gradient: MLPWeights) -> LevelState:
    """Add the `gradient` of the tokens just read; at the end of a period, update the weights once with the sum.

    The tokens must not reach beyond `tokens_to_write`. When a slower clock ends its period too, it moves the weights
    that the level starts from, and the level's own change is reset to zero. Unless the level's gradient is `through`,
    the update is a constant to the outer gradient.
    Source: Nested Learning, arXiv 2512.24695, equations 71 and 72 (of the latter the first-order gradient).
    """
    is_through, device = state.clocks[0].is_through, state.surprise.device
    # updates keep the precision of the parameters, also under autocast: many small ones add up
    with torch.set_grad_enabled(is_through and torch.is_grad_enabled()), full_precision(device):
        gradient = MLPWeights(*(matrix.to(state.surprise.dtype) for matrix in gradient))
        fast = tuple(_accumulate(each, gradient) for each in state.fast)
        due = [index for index, clock in enumerate(state.clocks) if state.position % clock.period == 0]
        if not due:
            return state._replace(fast=fast)
        surprise = norm(fast[0].gradient).detach()
        # clocks go from fast to slow. The slowest that is due updates from the sum over its period, which includes the
        # periods of the faster ones: their changes are reset, or the same tokens would count twice
        slowest = due[-1]
        fast = (
            *(
                zero_weights(each.delta, clock)
                for each, clock in zip(fast[:slowest], state.clocks[:slowest], strict=True)
            ),
            _update(fast[slowest], state.clocks[slowest]),
            *fast[slowest + 1 :],
        )
        return state._replace(fast=fast, writes=state.writes + 1, surprise=state.surprise + surprise)


def limit_change(matrix: Float[Tensor, "b o i"]) -> Float[Tensor, "b o i"]:
    """Return the change of each row, shortened where it is longer than `MAX_CHANGE` allows; most are as they were.

    The two matrices of a level multiply each other. Where the rate is too large for a period, each update goes further
    past its target than the one before, and without a limit the numbers would overflow.
    """
    largest = MAX_CHANGE**2 * matrix.shape[1]
    return matrix * (largest / matrix.square().sum((1, 2), keepdim=True).clamp(min=largest)).sqrt()


def norm(weights: MLPWeights) -> Float[Tensor, "b"]:
    """Return the norm of both matrices together, of each row."""
    return (weights.up.square().sum((1, 2)) + weights.down.square().sum((1, 2))).sqrt()


def _accumulate(fast: FastWeights, gradient: MLPWeights) -> FastWeights:
    # the first gradient replaces the zeros instead of being added: no graph through them, and no copy
    if fast.pending:
        gradient = MLPWeights(fast.gradient.up + gradient.up, fast.gradient.down + gradient.down)
    elif not torch.is_grad_enabled():
        gradient = MLPWeights(gradient.up.detach(), gradient.down.detach())
    return fast._replace(gradient=gradient, pending=fast.pending + 1)


def _with_inputs(fast: FastWeights, inputs: LevelInputs) -> FastWeights:
    if fast.inputs is None:
        return fast
    # a window of one period: new inputs enter at the end, as many leave at the start
    kept = (torch.cat([old, new], 1)[:, new.shape[1] :] for old, new in zip(fast.inputs, inputs, strict=True))
    return fast._replace(inputs=LevelInputs(*kept))


def _update(fast: FastWeights, clock: Context) -> FastWeights:
    """Update once by the rule of `clock`, limit the change, and reset the gradient and the inputs."""
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
        matrices.append(limit_change(matrix))
        states.append(state)
    zeros = MLPWeights(*(torch.zeros_like(matrix) for matrix in fast.delta))
    inputs = None if fast.inputs is None else LevelInputs(*(torch.zeros_like(x) for x in fast.inputs))
    return FastWeights(MLPWeights(*matrices), zeros, 0, (states[0], states[1]), inputs)
