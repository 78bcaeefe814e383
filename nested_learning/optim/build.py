"""Builds the optimizer that a configuration describes, and checks that its schedules fit the run."""

from collections.abc import Sequence

from torch.nn import Parameter

from nested_learning.level import Level, TokensBefore
from nested_learning.optim.config import OptimConfig
from nested_learning.optim.groups import partition
from nested_learning.optim.optimizer import Optimizer
from nested_learning.optim.processes import ALONE, Processes
from nested_learning.optim.schedule import Extent


def build_optimizer(
    config: OptimConfig,
    named_parameters: Sequence[tuple[str, Parameter]],
    levels: Sequence[Level],
    tokens_per_step: int,
    total_steps: int,
    processes: Processes = ALONE,
    tokens_before: TokensBefore | None = None,
) -> Optimizer:
    """Build the optimizer of `named_parameters`, where they lie. Raises ConfigError when the groups do not fit.

    `levels` are the slow clocks that the model declares, `tokens_per_step` the tokens of one optimizer step over all
    processes and micro-batches, `total_steps` the length of the run that the schedule is spread over, `processes` those
    among which parameters may be sharded. Where steps differ, `tokens_per_step` is the least of any, and
    `tokens_before` counts the tokens of all steps before a step.
    """
    groups = partition(config.groups, named_parameters, levels)
    optimizer = Optimizer(groups, config.schedule, tokens_per_step, total_steps, processes, tokens_before, config.ema)
    config.check_fit(Extent(total_steps, optimizer.tokens_before(total_steps)))
    return optimizer
