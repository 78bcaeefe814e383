"""A run of several processes, one of which diverges."""

import math
from typing import Any

import torch

from nested_learning.config.schema import Config
from nested_learning.phase.train import run
from nested_learning.train.trainer import Trainer


def _of_a_negative(_module: Any, given: Any) -> Any:
    return (-1 - given[0] ** 2).log(), *given[1:]


def diverge(configs: dict[str, Config]) -> dict[str, Any]:
    """Train each run; return the skipped steps and the learned weights.

    In step 3 the second process reads what it cannot take, in step 5 its gradient is broken behind the reduction.
    """
    real = Trainer.backward

    def backward(self: Trainer, batches: Any, num_targets: int, step: int) -> Any:
        broken = list(self.model.blocks[1].children())[-1]
        is_bad = self.world.rank == 1 and step == 2
        hook = (
            broken.register_forward_pre_hook(lambda _, given: ((-1 - given[0] ** 2).log(), *given[1:]))
            if is_bad
            else None
        )
        result = real(self, batches, num_targets, step)
        if hook is not None:
            hook.remove()
        if self.world.rank == 1 and step == 4:
            gradient = next(parameter.grad for parameter in self.model.parameters())
            gradient *= torch.tensor(math.nan)
        return result

    Trainer.backward = backward  # type: ignore[method-assign]
    try:
        return {name: _train(config) for name, config in configs.items()}
    finally:
        Trainer.backward = real  # type: ignore[method-assign]


def _train(config: Config) -> list[Any]:
    learned: list[Any] = []
    real = Trainer.fit

    def fit(self: Trainer) -> Any:
        progress = real(self)
        whole = [self.world.whole(parameter.detach()) for parameter in self.model.parameters()]
        learned.extend([progress.skipped, [float(parameter.double().sum()) for parameter in whole]])
        return progress

    Trainer.fit = fit  # type: ignore[method-assign]
    try:
        loss = run(config).metrics["train/loss"]
    finally:
        Trainer.fit = real  # type: ignore[method-assign]
    skipped, sums = learned
    return [skipped, loss, sums]
