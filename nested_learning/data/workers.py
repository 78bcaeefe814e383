"""Processes that read data ahead. What a step reads is a function of the step, whoever reads it, and whenever."""

import itertools
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from nested_learning.data.batch import Batch
from nested_learning.errors import DataError, NestedLearningError
from nested_learning.launcher.parent import signal_on_parent_death

Read = Callable[[int], list[Batch]]


class Prefetcher:
    """Calls `read` for one step after the other in `num_workers` processes, each `ahead` steps before they are wanted.

    Steps may be asked for in any order; those that do not follow each other cost a new start of the processes.
    """

    def __init__(self, read: Read, num_workers: int, ahead: int) -> None:
        self._steps = _Steps(read)
        self._num_workers, self._ahead = num_workers, ahead
        self._next = -1
        self._found: Any = None

    def __call__(self, step: int) -> list[Batch]:
        """Return what `read(step)` returns, or raise what it raises. Raises DataError when a process was killed."""
        with report_killed_worker(self._num_workers):
            if self._found is None or step != self._next:
                self.stop()
                self._found = self._start(step)
            self._next = step + 1
            found = next(self._found)
        if isinstance(found, NestedLearningError):
            raise found
        return found

    def stop(self) -> None:
        """End the processes; what they have read ahead is lost."""
        if self._found is not None:
            # it would do so itself when nobody holds it any more, but the traceback of an error may
            self._found._shutdown_workers()
        self._found = None

    def _start(self, step: int) -> Any:
        loader = DataLoader(
            self._steps,
            batch_size=None,
            sampler=itertools.count(step),
            num_workers=self._num_workers,
            prefetch_factor=self._ahead,
            collate_fn=_as_it_is,
            worker_init_fn=_begin,
            # the global one is not touched
            generator=torch.Generator(),
        )
        return iter(loader)


@contextmanager
def report_killed_worker(num_workers: int) -> Iterator[None]:
    """Say in one line that a process which reads data was killed; it may be noticed wherever training is just then."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"num_workers={num_workers}: a process that reads data was killed, maybe for want of memory "
            f"({str(error).splitlines()[0]}); go on with fewer, such as num_workers={num_workers // 2}"
        ) from error


class _Steps(Dataset[list[Batch] | NestedLearningError]):
    """Steps by number. An error for the user is handed over as it is, not wrapped in a traceback."""

    def __init__(self, read: Read) -> None:
        self.read = read

    def __getitem__(self, step: int) -> list[Batch] | NestedLearningError:
        try:
            return self.read(step)
        except NestedLearningError as error:
            return error


def _begin(_worker: int) -> None:
    """Begin a process that reads: it ends with the one that asked it to, and the terminal's Ctrl-C is not for it."""
    signal_on_parent_death(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _as_it_is(found: Any) -> Any:
    return found
