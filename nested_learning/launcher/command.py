"""A job as a command: `python -m nested_learning --job <file>`, a process that trains one configuration and ends."""

import os
import signal
import sys
from pathlib import Path

from nested_learning.files import write_atomic
from nested_learning.launcher.protocol import Task
from nested_learning.signals import INTERRUPTED

JOBS, LOGS = "jobs", "logs"


def write_job(task: Task, folder: Path) -> Path:
    """Write the configuration of `task` into `folder`; return the file."""
    path = folder / JOBS / f"{task.name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, task.config)
    return path.resolve()


def job_command(path: Path) -> list[str]:
    """Return the command that runs the job in the file `path`."""
    return [sys.executable, "-m", "nested_learning", "--job", str(path)]


def job_environment(**values: str) -> dict[str, str]:
    """Return this process's environment with `values`, in which the package can be imported from any directory."""
    package = str(Path(__file__).parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | values


def describe_end(status: int, log: Path) -> str:
    """Return how a job with exit `status` ended: the error it printed or the signal, "" for success."""
    if status == 0:
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if status == INTERRUPTED and any(lines):
        # where the job is saved
        return [line for line in lines if line][-1]
    if status > 0 and said:
        return said[-1]
    how = f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return f"{how}; its output: {log}"
