"""The interface of launchers: tasks in, outcomes out."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable


@dataclass(frozen=True)
class Task:
    """One job: the name of its files, the line that announces it, its configuration as YAML, and how it is run here."""

    name: str
    title: str
    config: str
    run: Callable[[], object]


class Outcome(NamedTuple):
    """How a job ended: `error` is one line, "" for success."""

    task: Task
    error: str


@runtime_checkable
class LauncherConfig(Protocol):
    """An option of the launcher group."""

    name: str

    def check(self) -> None:
        """Raise ConfigError for what cannot work on this machine, before any file is created."""
        ...

    def launch(self, tasks: Sequence[Task], folder: Path) -> Generator[Outcome, None, None]:
        """Run `tasks`, yielding each as it ends, however it ends; files of the launcher go into `folder`.

        When the generator is closed, jobs on this machine are stopped, and saved.
        """
        ...
