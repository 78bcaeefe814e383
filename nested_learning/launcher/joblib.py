"""`launcher=joblib`: several jobs at a time on this machine, each a process of its own."""

import os
import signal
import subprocess
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

from nested_learning.errors import ConfigError
from nested_learning.launcher.command import LOGS, describe_end, job_command, job_environment, write_job
from nested_learning.launcher.protocol import Outcome, Task
from nested_learning.typed import ProcessCount


@dataclass(kw_only=True)
class JoblibConfig:
    """`n_jobs` jobs at a time, which share `gpus` GPUs, one each (0: every job sees what this process sees)."""

    name: str
    n_jobs: ProcessCount
    gpus: int

    def __post_init__(self) -> None:
        if self.n_jobs < 1:
            raise ConfigError(f"launcher.n_jobs={self.n_jobs} must be at least 1; for example launcher.n_jobs=2")
        if self.gpus and self.gpus < self.n_jobs:
            raise ConfigError(
                f"launcher.gpus={self.gpus} for launcher.n_jobs={self.n_jobs}: every job needs one; "
                f"use launcher.n_jobs={max(1, self.gpus)}"
            )

    def check(self) -> None:
        """Raise ConfigError where joblib is not installed."""
        if find_spec("joblib") is None:
            raise ConfigError("launcher=joblib: joblib is not installed; pip install -e '.[sweep]'")

    def launch(self, tasks: Sequence[Task], folder: Path) -> Generator[Outcome, None, None]:
        """Run `tasks`; what they print is in <folder>/logs. A job that is killed stops no other.

        The threads here only wait: each job is a process, so that its memory is freed at its end. When the generator is
        closed, all jobs are stopped, and each saves first.
        """
        from joblib import Parallel, delayed

        gpus: SimpleQueue[str] = SimpleQueue()
        for gpu in range(self.gpus):
            gpus.put(str(gpu))
        (folder / LOGS).mkdir(parents=True, exist_ok=True)
        together = Parallel(self.n_jobs, prefer="threads", return_as="generator_unordered", pre_dispatch="all")
        processes = Processes()
        try:
            yield from together(delayed(self._run)(task, folder, gpus, processes) for task in tasks)
        finally:
            processes.stop()

    def _run(self, task: Task, folder: Path, gpus: "SimpleQueue[str]", processes: "Processes") -> Outcome:
        threads = max(1, (os.cpu_count() or 1) // self.n_jobs)
        given = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
        gpu = gpus.get() if self.gpus else None
        if gpu is not None:
            given["CUDA_VISIBLE_DEVICES"] = gpu
        log = folder / LOGS / f"{task.name}.log"
        # one piece, which no other thread's line can split
        print(f"{task.title} (output: {log})\n", end="", flush=True)
        with log.open("w", encoding="utf-8") as file:
            command = job_command(write_job(task, folder))
            status = processes.run(command, env=job_environment(**given), stdout=file, stderr=subprocess.STDOUT)
        if gpu is not None:
            gpus.put(gpu)
        return Outcome(task, describe_end(status, log))


class Processes:
    """The processes of several threads, which another thread can stop."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: list[subprocess.Popen[bytes]] = []
        self._is_stopped = False

    def run(self, command: list[str], **options: Any) -> int:
        """Run `command` to its end and return its exit status; after `stop` run nothing, and return that of SIGTERM."""
        with self._lock:
            if self._is_stopped:
                return -signal.SIGTERM
            process = subprocess.Popen(command, **options)
            self._running.append(process)
        status = process.wait()
        with self._lock:
            self._running.remove(process)
        return status

    def stop(self) -> None:
        """Send SIGTERM to all processes, start no more, and return when all have ended."""
        with self._lock:
            self._is_stopped, running = True, list(self._running)
        if running:
            print(f"stopping the jobs that run: {len(running)}; each saves first", flush=True)
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
