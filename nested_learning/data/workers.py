"""Worker processes that prefetch data. A step's batch is a function of the step, so prefetching cannot change it."""

import itertools
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from nested_learning.data.batch import Batch
from nested_learning.errors import DataError, NestedLearningError
from nested_learning.signals import ignore_signals, signal_on_parent_death

ReadStep = Callable[[int], list[Batch]]


class Prefetcher:
    """Calls `read_step` for consecutive steps in `num_workers` processes, each up to `ahead` steps in advance.

    Steps may be requested in any order. A request that does not follow the last one restarts the processes.
    """

    def __init__(self, read_step: ReadStep, num_workers: int, ahead: int) -> None:
        self._steps = _Steps(read_step)
        self._num_workers, self._ahead = num_workers, ahead
        self._next_step = -1
        self._batches: Any = None

    def __call__(self, step: int) -> list[Batch]:
        """Return or raise what `read_step(step)` does. Raises DataError when a worker was killed."""
        with report_killed_worker(self._num_workers):
            if self._batches is None or step != self._next_step:
                self.stop()
                self._batches = self._start(step)
            self._next_step = step + 1
            result = next(self._batches)
        if isinstance(result, NestedLearningError):
            raise result
        return result

    def stop(self) -> None:
        """End the processes and drop what they have prefetched."""
        if self._batches is not None:
            # the iterator ends its workers when it is collected, but the traceback of an error may keep it alive
            self._batches._shutdown_workers()
        self._batches = None

    def _start(self, step: int) -> Any:
        loader = DataLoader(
            self._steps,
            # one item is one step and already a list of batches; the endless sampler hands out steps in order
            batch_size=None,
            sampler=itertools.count(step),
            num_workers=self._num_workers,
            prefetch_factor=self._ahead,
            collate_fn=_identity,
            worker_init_fn=_init_worker,
            # without this the loader draws its base seed from the global generator, and workers would change training
            generator=torch.Generator(),
        )
        return iter(loader)


@contextmanager
def report_killed_worker(num_workers: int) -> Iterator[None]:
    """Turn PyTorch's error about a killed data worker into a one-line DataError."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"num_workers={num_workers}: a data worker was killed, perhaps for lack of memory "
            f"({str(error).splitlines()[0]}); resume with fewer, such as num_workers={num_workers // 2}"
        ) from error


class _Steps(Dataset[list[Batch] | NestedLearningError]):
    """Batches by step number. Errors for the user are returned, because PyTorch wraps raised ones in a traceback."""

    def __init__(self, read_step: ReadStep) -> None:
        self.read_step = read_step

    def __getitem__(self, step: int) -> list[Batch] | NestedLearningError:
        try:
            return self.read_step(step)
        except NestedLearningError as error:
            return error


def _init_worker(_worker: int) -> None:
    """Let the worker end with the process that started it and ignore signals that are meant for that process."""
    signal_on_parent_death(signal.SIGKILL)
    # Ctrl-C and schedulers signal all processes of a run; the training process saves first, then stops its workers
    ignore_signals()


def _identity(batches: Any) -> Any:
    return batches
