"""The curriculum: how many rows of which length each step reads. Pure functions of the step, so it has no state."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nested_learning.errors import ConfigError


@dataclass(kw_only=True)
class StageConfig:
    """One entry of `stages`: `steps` optimizer steps, each reading `batch_size` rows of `seq_len` tokens."""

    steps: int
    batch_size: int
    seq_len: int

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            if value < 1:
                raise ConfigError(f"stages: {key}={value} must be at least 1; for example {key}=1")


class Stage(NamedTuple):
    """Steps [first_step, end_step), each reading `batch_size` rows of `seq_len` tokens. `end_step` None: no end.

    `first_token`: tokens read by all earlier steps, summed over processes.
    """

    first_step: int
    end_step: int | None
    first_token: int
    batch_size: int
    seq_len: int


def constant_stages(batch_size: int, seq_len: int) -> list[Stage]:
    """Return the stages of a run whose steps all have the same size."""
    return [Stage(0, None, 0, batch_size, seq_len)]


def plan_stages(stages: Sequence[StageConfig], batch_size: int, seq_len: int) -> list[Stage]:
    """Return the stages of a run: the given ones in order, then steps of `batch_size` rows of `seq_len` to the end.

    A stage splits rows of `seq_len` tokens into equal parts of its own length. It must read whole rows in total, so
    that between two stages no part is skipped or read twice. Raises ConfigError for a stage that does not.
    """
    planned, step, tokens = [], 0, 0
    for i, stage in enumerate(stages):
        if seq_len % stage.seq_len:
            raise ConfigError(
                f"stages.{i}.seq_len={stage.seq_len}: must divide data.seq_len={seq_len}, whose rows it splits; "
                f"try stages.{i}.seq_len={_divisor(seq_len, stage.seq_len)}"
            )
        parts = seq_len // stage.seq_len
        # otherwise the stage would end inside a row, and the next stage, of another length, could not start there
        if stage.steps * stage.batch_size % parts:
            raise ConfigError(
                f"stages.{i}.steps={stage.steps}: its {stage.steps * stage.batch_size} rows must be a multiple of "
                f"{parts}, the number of parts in a row of data.seq_len={seq_len}; "
                f"try stages.{i}.steps={-(-stage.steps // parts) * parts}"
            )
        planned.append(Stage(step, step + stage.steps, tokens, stage.batch_size, stage.seq_len))
        step, tokens = step + stage.steps, tokens + stage.steps * stage.batch_size * stage.seq_len
    return [*planned, Stage(step, None, tokens, batch_size, seq_len)]


def stage_at(stages: Sequence[Stage], step: int) -> Stage:
    """Return the stage of `step` (counted from 0)."""
    return next(stage for stage in stages if stage.end_step is None or step < stage.end_step)


def tokens_before(stages: Sequence[Stage], step: int) -> int:
    """Count the tokens that the first `step` steps read, summed over processes, padding included."""
    stage = stage_at(stages, step)
    return stage.first_token + (step - stage.first_step) * stage.batch_size * stage.seq_len


def _divisor(seq_len: int, most: int) -> int:
    """Return the largest divisor of `seq_len` that is at most `most`."""
    return next(length for length in range(min(most, seq_len), 0, -1) if seq_len % length == 0)
