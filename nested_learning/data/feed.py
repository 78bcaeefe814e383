"""The feed: the batches that this process reads at each step of a run."""

from collections.abc import Sequence
from types import TracebackType

from nested_learning.data.batch import Batch
from nested_learning.data.curriculum import Stage, stage_at, tokens_before
from nested_learning.data.loader import check_micro_batches, read_micro_batch
from nested_learning.data.source import Source
from nested_learning.data.workers import Prefetcher, report_killed_worker
from nested_learning.errors import ConfigError


class Feed:
    """The batches of a run, by step. Use it as a context manager, which stops the worker processes.

    The global batch of a step is split into `num_micro_batches`; this process reads `own_micro_batches` of them.
    `overfit`: every step reads the batch of step 0. `num_workers` processes prefetch `ahead` steps each; 0 reads in
    this process. Neither changes what is read. Raises ConfigError for a stage that the source cannot provide or that
    does not divide into the micro-batches.
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
        self._prefetcher = Prefetcher(self.micro_batches, num_workers, ahead) if num_workers else None
        for stage in stages:
            check_micro_batches(stage, num_micro_batches)
            check_length(stage, source)

    def __enter__(self) -> "Feed":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # PyTorch reports a killed worker from a signal handler, so its error may surface anywhere in training, and
        # while the other workers are stopped
        with report_killed_worker(self.num_workers):
            if self._prefetcher is not None:
                self._prefetcher.stop()
            if isinstance(error, RuntimeError):
                raise error

    def read(self, step: int) -> list[Batch]:
        """Return this process's micro-batches of `step`, prefetched where there are workers. Raises DataError."""
        return self.micro_batches(step) if self._prefetcher is None else self._prefetcher(step)

    def micro_batches(self, step: int) -> list[Batch]:
        """Return this process's micro-batches of `step`, read in this process."""
        return [self._micro_batch(step, micro_batch, self.num_micro_batches) for micro_batch in self.own_micro_batches]

    def row(self, step: int, row: int) -> Batch:
        """Return row `row` of the global batch of `step` as a batch of one, whichever process reads it in training."""
        return self._micro_batch(step, row, self.batch_size(step))

    def batch_size(self, step: int) -> int:
        """Count the rows of the global batch of `step`."""
        return stage_at(self.stages, step).batch_size

    def tokens_before(self, step: int) -> int:
        """Count the tokens that the first `step` steps read, summed over processes."""
        return tokens_before(self.stages, step)

    def min_step_tokens(self) -> int:
        """Count the tokens of the smallest step of the run."""
        return min(stage.batch_size * stage.seq_len for stage in self.stages)

    def _micro_batch(self, step: int, micro_batch: int, num_micro_batches: int) -> Batch:
        return read_micro_batch(
            self.source, self.seed, self.stages, 0 if self.overfit else step, micro_batch, num_micro_batches
        )


def check_length(stage: Stage, source: Source) -> None:
    """Raise ConfigError for a stage whose rows cannot be parts of the rows of `source`."""
    if source.tokenizer is None and stage.seq_len != source.seq_len:
        raise ConfigError(
            f"stages: seq_len={stage.seq_len} would split rows of a task, which only make sense whole; use "
            f"seq_len={source.seq_len}, or text data such as data=stdlib"
        )
