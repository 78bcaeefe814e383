"""`launcher=serial`: one job after another, in this process."""

import traceback
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nested_learning.errors import NestedLearningError
from nested_learning.launcher.protocol import Outcome, Task


@dataclass(kw_only=True)
class SerialConfig:
    """Nothing to set. The only launcher whose jobs may be shared by the processes of torchrun."""

    name: str

    def check(self) -> None:
        """Always works."""

    def launch(self, tasks: Sequence[Task], folder: Path) -> Generator[Outcome, None, None]:
        """Run `tasks` in order. A job that fails does not stop the next ones."""
        for task in tasks:
            print(task.title, flush=True)
            yield Outcome(task, _attempt(task))


def _attempt(task: Task) -> str:
    try:
        task.run()
    except NestedLearningError as error:
        return str(error)
    # one job out of memory, or with a bug of one model, must not stop the jobs after it
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    return ""
