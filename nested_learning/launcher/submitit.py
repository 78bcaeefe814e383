"""`launcher=submitit`: each job in the queue of a cluster, over as many nodes and GPUs as it needs."""

import json
import math
import subprocess
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

from nested_learning.errors import ConfigError
from nested_learning.files import write_atomic
from nested_learning.launcher.command import describe_end, job_command, job_environment, write_job
from nested_learning.launcher.protocol import Outcome, Task

# the folder of submitit's files, and the file that maps our jobs to those of the cluster
FOLDER, SUBMITTED = "submitit", "submitted.json"
CLUSTERS = ("slurm", "local")
# states of a job that has not ended
UNDERWAY = ("PENDING", "RUNNING", "REQUEUED", "COMPLETING", "SUSPENDED", "CONFIGURING", "RESIZING")
# seconds between two checks of the queue
POLL = {"slurm": 10.0, "local": 0.2}


@dataclass(kw_only=True)
class SubmititConfig:
    """The resources of a job; `configs/launcher/submitit.yaml` says what each key means.

    With several processes (`nodes` times `tasks_per_node`) a job is what torchrun would start, without torchrun.
    """

    name: str
    cluster: str
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    nodes: int
    gpus_per_node: int
    tasks_per_node: int | None
    cpus_per_task: int
    mem_gb: float | None
    timeout_min: int
    max_timeouts: int
    setup: list[str]

    def __post_init__(self) -> None:
        if self.cluster not in CLUSTERS:
            raise ConfigError(f"launcher.cluster={self.cluster}: no such cluster; allowed: {', '.join(CLUSTERS)}")
        least = {"nodes": 1, "gpus_per_node": 0, "cpus_per_task": 1, "timeout_min": 1, "max_timeouts": 0}
        for key, value in least.items():
            if vars(self)[key] < value:
                raise ConfigError(f"launcher.{key}={vars(self)[key]} must be at least {value}")
        if self.tasks_per_node is not None and self.tasks_per_node < 1:
            raise ConfigError(f"launcher.tasks_per_node={self.tasks_per_node} must be at least 1, or null")
        if self.mem_gb is not None and not 0 < self.mem_gb < math.inf:
            raise ConfigError(f"launcher.mem_gb={self.mem_gb} must be more than 0, or null for the cluster's default")
        if self.cluster == "local" and self.nodes > 1:
            raise ConfigError(
                f"launcher.nodes={self.nodes}: launcher.cluster=local is one machine; use launcher.nodes=1"
            )

    def unread(self) -> dict[str, str]:
        """Return the keys that these settings do not read, each with the reason."""
        if self.cluster == "slurm":
            return {}
        keys = ("partition", "account", "qos", "constraint", "max_timeouts")
        return dict.fromkeys(keys, "it is for launcher.cluster=slurm")

    def check(self) -> None:
        """Raise ConfigError where submitit is not installed or there is no such cluster."""
        if find_spec("submitit") is None:
            raise ConfigError("launcher=submitit: submitit is not installed; pip install -e '.[slurm]'")
        if self.cluster == "slurm" and which("srun") is None:
            raise ConfigError(
                "launcher.cluster=slurm: no srun here; start it where sbatch works, or try launcher.cluster=local"
            )

    def launch(self, tasks: Sequence[Task], folder: Path) -> Generator[Outcome, None, None]:
        """Submit `tasks` and wait for them; those already in the queue are not submitted again."""
        from submitit.helpers import as_completed, environment_variables

        directory = folder / FOLDER
        directory.mkdir(parents=True, exist_ok=True)
        note = directory / SUBMITTED
        ids: dict[str, str] = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
        jobs: dict[str, tuple[Task, Any]] = {}
        for task in tasks:
            job = self._underway(directory, ids[task.name]) if task.name in ids else None
            is_new = job is None
            if job is None:
                work = Work(job_command(write_job(task, folder)))
                # the processes of the cluster get this one's environment, and must find the package
                with environment_variables(**job_environment()):
                    job = self._executor(directory, task.name).submit(work)
                ids[task.name] = job.job_id
                write_atomic(note, json.dumps(ids, indent=2) + "\n")
            print(
                f"{task.title} ({'' if is_new else 'still '}job {job.job_id}, output: {job.paths.stdout})", flush=True
            )
            jobs[job.job_id] = (task, job)
        for job in as_completed([job for _, job in jobs.values()], poll_frequency=POLL[self.cluster]):
            yield Outcome(jobs[job.job_id][0], _end(job))

    def _executor(self, directory: Path, name: str) -> Any:
        from submitit import AutoExecutor

        executor = AutoExecutor(directory, cluster=self.cluster, slurm_max_num_timeout=self.max_timeouts)
        slurm = {"partition": self.partition, "account": self.account, "qos": self.qos, "constraint": self.constraint}
        resources: dict[str, Any] = {f"slurm_{key}": value for key, value in slurm.items() if value is not None}
        if self.mem_gb is not None:
            resources["mem_gb"] = self.mem_gb
        executor.update_parameters(
            name=name,
            timeout_min=self.timeout_min,
            nodes=self.nodes,
            gpus_per_node=self.gpus_per_node,
            tasks_per_node=self.tasks_per_node or max(1, self.gpus_per_node),
            cpus_per_task=self.cpus_per_task,
            stderr_to_stdout=True,
            **{f"{self.cluster}_setup": self.setup},
            **resources,
        )
        return executor

    def _underway(self, directory: Path, job_id: str) -> Any | None:
        """Return the job `job_id` of the cluster if it has not ended, else None."""
        from submitit import SlurmJob

        if self.cluster == "local":
            # a job still running holds the lock of its run, for which a new one waits
            return None
        job: Any = SlurmJob(directory, job_id)
        return job if job.watcher.get_state(job_id, mode="force").split(" ")[0] in UNDERWAY else None


class Work:
    """The callable that the cluster runs in each process of a job: our command, with its rank in the environment."""

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Run the command to its end; return its exit status."""
        from submitit import JobEnvironment
        from submitit.helpers import TorchDistributedEnvironment

        ranks: dict[str, str] = {}
        if JobEnvironment().num_tasks > 1:
            world = TorchDistributedEnvironment()
            ranks = {"MASTER_ADDR": world.master_addr, "MASTER_PORT": str(world.master_port)}
            ranks |= {"RANK": str(world.rank), "WORLD_SIZE": str(world.world_size)}
            ranks |= {"LOCAL_RANK": str(world.local_rank), "LOCAL_WORLD_SIZE": str(world.local_world_size)}
        self._process = subprocess.Popen(self.command, env=job_environment(**ranks))
        return _end_of(self._process)

    def checkpoint(self) -> Any:
        """Called at the time limit or on preemption: let the run save and stop, and requeue the job."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            # the processes agree on the step to stop after, and all save it
            self._process.terminate()
            _end_of(self._process)
        return DelayedSubmission(Work(self.command))


def _end_of(process: "subprocess.Popen[bytes]") -> int:
    """Poll `process` to its end: `wait` holds a lock that a signal handler, which waits as well, could not take."""
    while (status := process.poll()) is None:
        time.sleep(POLL["local"])
    return status


def _end(job: Any) -> str:
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        status = max(job.results(), key=abs)
    except (FailedJobError, UncompletedJobError) as error:
        first = str(error).strip().split("\n")[0]
        return f"job {job.job_id}: {first}; its output: {job.paths.stdout}"
    return describe_end(status, job.paths.stdout)
