"""Schedules of the learning rate: pure functions of the step, so that there is nothing to save or to restore."""

import math
from dataclasses import dataclass

from nested_learning.errors import ConfigError

KINDS = ("constant", "cosine", "wsd")


@dataclass(kw_only=True)
class ScheduleConfig:
    """The course of the learning rate over a run: a linear warmup, then one of three kinds.

    `constant` keeps the peak. `cosine` falls from the peak to `final` times the peak over the rest of the run. `wsd`
    (warmup, stable, decay) keeps the peak and falls linearly to `final` times the peak over the last `decay` of the
    run. `warmup` and `decay` are shares of the run's steps, so that they fit a run of any length. Raises ConfigError.
    """

    kind: str
    warmup: float
    decay: float
    final: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"optim.schedule.kind={self.kind!r} must be one of {list(KINDS)}")
        for key in ("warmup", "decay", "final"):
            if not 0 <= vars(self)[key] <= 1:
                raise ConfigError(
                    f"optim.schedule.{key}={vars(self)[key]} must lie in [0, 1]: it is a share of the "
                    f"{'peak' if key == 'final' else 'run'}, such as optim.schedule.{key}=0.1"
                )
        if self.kind == "wsd" and self.warmup + self.decay > 1:
            raise ConfigError(
                f"optim.schedule.warmup={self.warmup} and optim.schedule.decay={self.decay} exceed the whole run: "
                f"try optim.schedule.decay={1 - self.warmup:g}"
            )


def lr_factor(schedule: ScheduleConfig, step: int, total_steps: int) -> float:
    """Return the factor on every group's learning rate at `step` (0, 1, ...) of `total_steps`. Source: ours.

    The first step of a warmup over n steps has 1/n, so that no step is lost, and its last has 1; the last step of a
    decay has `final` exactly, and a step beyond the run has what the last one had.
    """
    warmup_steps = round(schedule.warmup * total_steps)
    step = min(step, total_steps - 1)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule.kind == "cosine":
        progress = _progress(warmup_steps, step, total_steps)
        return schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * progress)) / 2
    decay_start = round((1 - schedule.decay) * total_steps)
    if schedule.kind == "wsd" and step >= decay_start:
        progress = _progress(decay_start, step, total_steps)
        return (1 - progress) + progress * schedule.final
    return 1.0


def _progress(start: int, step: int, end: int) -> float:
    """Return the share of the steps [start, end) that is done after `step`: 1 after the last."""
    return (step + 1 - start) / (end - start)
