"""What the steps of a run read, on this process."""

from collections.abc import Sequence
from types import TracebackType

from nested_learning.data.batch import Batch
from nested_learning.data.curriculum import Stage, stage_at, tokens_before
from nested_learning.data.loader import check_micro_batches, read_micro_batch
from nested_learning.data.source import Source
from nested_learning.data.workers import Prefetcher, report_killed_worker
from nested_learning.errors import ConfigError


class Feed:
    """The batches of a run by step: `own_micro_batches` of the `num_micro_batches` that each global batch is cut into.

    `overfit`: every step reads the first batch. `num_workers` processes read `ahead` steps each before they are asked
    for; without any, a step is read when it is asked for. Neither changes what is read. Use it as a context, which ends
    the processes. Raises ConfigError for a stage that does not fit the source or cannot be cut evenly.
    """

    def __init__(
        self,
        source: Source,
        seed: int,
        stages: Sequence[Stage],
        num_micro_batches: int = 1,
        own_micro_batches: range = range(1),
        *,
        overfit: bool = False,
        num_workers: int = 0,
        ahead: int = 2,
    ) -> None:
        self.source, self.seed, self.stages = source, seed, list(stages)
        self.num_micro_batches, self.own_micro_batches = num_micro_batches, own_micro_batches
        self.overfit, self.num_workers = overfit, num_workers
        self._ahead = Prefetcher(self.micro_batches, num_workers, ahead) if num_workers else None
        for stage in stages:
            check_micro_batches(stage, num_micro_batches)
            check_length(stage, source)

    def __enter__(self) -> "Feed":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ahead is not None:
            self._ahead.stop()
        if isinstance(error, RuntimeError):
            # the death of a process is noticed wherever training is just then
            with report_killed_worker(self.num_workers):
                raise error

    def read(self, step: int) -> list[Batch]:
        """Return this process's micro-batches of the batch of `step`, read ahead if possible. Raises DataError."""
        return self.micro_batches(step) if self._ahead is None else self._ahead(step)

    def micro_batches(self, step: int) -> list[Batch]:
        """Return this process's micro-batches of the batch of `step`, read here and now."""
        return [self._micro_batch(step, micro_batch, self.num_micro_batches) for micro_batch in self.own_micro_batches]

    def row(self, step: int, row: int) -> Batch:
        """Return row `row` of the global batch of `step`, whichever process reads it."""
        return self._micro_batch(step, row, self.batch_size(step))

    def batch_size(self, step: int) -> int:
        """Count the rows of the global batch of `step`."""
        return stage_at(self.stages, step).batch_size

    def tokens_before(self, step: int) -> int:
        """Count the tokens that the first `step` steps read, over all processes."""
        return tokens_before(self.stages, step)

    def least_tokens(self) -> int:
        """Count the tokens of the smallest step."""
        return min(stage.batch_size * stage.seq_len for stage in self.stages)

    def _micro_batch(self, step: int, micro_batch: int, num_micro_batches: int) -> Batch:
        return read_micro_batch(
            self.source, self.seed, self.stages, 0 if self.overfit else step, micro_batch, num_micro_batches
        )


def check_length(stage: Stage, source: Source) -> None:
    """Raise ConfigError for a stage whose rows cannot be cut from those of `source`."""
    if source.tokenizer is None and stage.seq_len != source.seq_len:
        raise ConfigError(
            f"stages: seq_len={stage.seq_len} would cut rows that are a task as a whole; use seq_len={source.seq_len}, "
            "or data that is text"
        )
