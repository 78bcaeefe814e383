"""Refuse a run that does not fit into the memory of this machine, before its model is built."""

import logging
from typing import TYPE_CHECKING

from nested_learning.data.curriculum import plan_stages
from nested_learning.data.source import Source
from nested_learning.errors import ConfigError
from nested_learning.phase.dry_run import GB, Outline, memory_of, without_numbers
from nested_learning.planning.config import SMALLER
from nested_learning.planning.footprint import parameter_bytes
from nested_learning.planning.machine import free_bytes
from nested_learning.train.run import count_micro_batches
from nested_learning.world.world import World

if TYPE_CHECKING:
    from nested_learning.config.schema import Config

# the whole estimate takes two seconds, and is up to a hundred times the least; below this share of the free memory it
# cannot matter
NEAR = 0.01
# kernels of memories keep as little as two thirds of what is estimated
MARGIN = 1.5
# bytes of a number
FLOAT = 4


def require_fit(config: "Config", source: Source, world: World) -> None:
    """Raise ConfigError where the run needs more memory than is free on the device of this process.

    First the least that it can need is compared, which is found at once at any size, then the estimate of a dry run.
    Where the estimate is a little more than what is free, it is a warning.
    """
    free = free_bytes(world.device)
    if free is None:
        return
    stages, number = (
        plan_stages(config.stages, config.data.batch_size, source.seq_len),
        count_micro_batches(config, world),
    )
    weights = parameter_bytes(config.model, source.vocab_size) / config.world.num_shards(world.size)
    num_tokens = max(stage.batch_size // number * stage.seq_len for stage in stages)
    # the weights with their gradients, and the outputs of all layers
    least = 2 * weights + num_tokens * FLOAT * config.model.dim * config.model.num_layers
    if least > free:
        raise _too_large("at least", least, 2 * weights, free)
    # operations whose results are computed again are not estimated
    if least < NEAR * free or config.recompute == "chunk":
        return
    model, optimizer = without_numbers(config, source.vocab_size, stages)
    run = Outline(source, "", source.vocab_size, stages, number, model, optimizer)
    memory = memory_of(config, run, world.size)
    problem = _too_large("about", memory.total, memory.total - memory.activations, free)
    if memory.total > MARGIN * free:
        raise problem
    if memory.total > free and world.is_first:
        logging.getLogger(__name__).warning("warning: %s", problem)


def _too_large(how: str, needed: float, weights: float, free: float) -> ConfigError:
    return ConfigError(
        f"not enough memory: the run needs {how} {needed / GB:,.1f} GB ({weights / GB:,.1f} for weights, gradients and "
        f"optimizer), and {free / GB:,.1f} GB are free; use {SMALLER}"
    )
