"""Chrome traces of single training steps, requested with `profile=` or, during a run, with a signal."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from torch import profiler

from nested_learning.signals import PROFILING, handle_signals

FOLDER = "profile"
# number of steps that `kill -USR2 <process id>` profiles
ON_SIGNAL = 3


class Profiler:
    """Writes `<run>/profile/step_NNNNNNNN_rank_N.json`, which chrome://tracing and ui.perfetto.dev open.

    The first step of a process is never recorded: it includes one-time work.
    """

    def __init__(self, run: Path, rank: int, steps: int) -> None:
        """Profile the next `steps` steps, 0 for none, after the first of this process."""
        self.folder, self.rank, self.asked = run / FOLDER, rank, steps
        self._is_warm = False
        self._running: profiler.profile | None = None
        self._left = self._step = 0

    def ask(self, steps: int) -> None:
        """Profile the next `steps` steps."""
        self.asked = steps

    @contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Run step `step`, 1 being the first, and record it where requested."""
        if self.asked and self._is_warm and self._running is None:
            self._running, self._left, self.asked = profiler.profile(), self.asked, 0
            self._running.start()
        self._is_warm, self._step = True, step
        try:
            yield
        finally:
            self._left -= 1
            if self._left <= 0:
                self.write()

    def write(self) -> None:
        """End the running trace, if any, and write it under the number of its last step."""
        if self._running is None:
            return
        self._running.stop()
        self.folder.mkdir(exist_ok=True)
        self._running.export_chrome_trace(str(self.folder / f"step_{self._step:08d}_rank_{self.rank}.json"))
        self._running = None


@contextmanager
def profiling(run: Path, rank: int, steps: int) -> Iterator[Profiler]:
    """Yield the profiler of this process. SIGUSR2 starts it within the context, whose end writes its trace."""
    made = Profiler(run, rank, steps)

    def ask(_number: int, _frame: FrameType | None) -> None:
        made.ask(ON_SIGNAL)

    try:
        with handle_signals(dict.fromkeys(PROFILING, ask)):
            yield made
    finally:
        # a run may end or fail before its last profiled step; a profiler left on would record all that follows
        made.write()
