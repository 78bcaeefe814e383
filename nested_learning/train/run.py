"""A run: its directory, the lock on it, and the context that trainer and evaluations share."""

import json
import os
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout

from nested_learning import checkpoint
from nested_learning.data.curriculum import plan_stages
from nested_learning.data.feed import Feed
from nested_learning.data.source import Source
from nested_learning.errors import CheckpointError, ConfigError, Stopped
from nested_learning.files import read_holder
from nested_learning.logger.build import open_loggers
from nested_learning.logger.protocol import Fanout, LoggedRun, Logger
from nested_learning.seeds import derive_seed
from nested_learning.train.environment import ENVIRONMENT, write_environment
from nested_learning.train.precision import DTYPES
from nested_learning.world.world import World

if TYPE_CHECKING:
    from nested_learning.config.schema import Config

LOCK = "lock"

# keys that may change when a run resumes: they do not change what is learned
FREE = {"name", "out", "resume", "phase", "checkpoint", "prompt", "sampling", "dry_run", "memory", "evals", "logger"}
FREE |= {"weights", "prompts", "sample_every", "divergence", "profile", "launcher", "plan", "num_workers"}
FREE |= {"keep_every", "log_every", "save_every", "val_every", "device", "compile", "recompute", "backend"}
FREE |= {"micro_batches", "world"}


@dataclass(frozen=True)
class RunContext:
    """What the trainer needs to know about its run: directory, configuration, device, processes, log."""

    directory: Path
    config: "Config"
    seed: int
    device: torch.device
    dtype: torch.dtype
    world: World
    log: Logger


def prepare_process(seed: int, device: torch.device, *, is_elastic: bool = False) -> None:
    """Set up this process once, before anything is built: the same seed must give the same bytes.

    Nothing should draw from the global generators; what does is at least fixed by the seed. `is_elastic`: with any
    number of processes, too, so that this one must not add in parallel as many threads as its share of the machine.
    """
    torch.manual_seed(derive_seed(seed, "process"))
    if is_elastic:
        torch.set_num_threads(1)
        # cuBLAS reads it at its first call; without it matrix products may add in any order
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.set_deterministic_debug_mode("error")
    if device.type == "cpu":
        # subnormal numbers are a hundred times slower on CPUs, and too small to matter
        torch.set_flush_denormal(True)
        # the same as `use_deterministic_algorithms`, which would import the compiler, a second
        torch.set_deterministic_debug_mode("error")
        # no code here reads uninitialized memory, so torch need not fill it
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def open_feed(config: "Config", source: Source, world: World) -> Feed:
    """Return the feed of this process, its batches by step. Raises ConfigError for stages that do not fit."""
    micro_batches = count_micro_batches(config, world)
    stages = plan_stages(config.stages, config.data.batch_size, source.seq_len)
    overfit, num_workers = config.overfit, config.num_workers
    own = world.share_of(micro_batches)
    return Feed(source, config.seed, stages, micro_batches, own, overfit=overfit, num_workers=num_workers)


def count_micro_batches(config: "Config", world: World) -> int:
    """Return the number of micro-batches of a step, summed over processes. Raises ConfigError."""
    if config.micro_batches is None:
        return world.size
    if config.micro_batches % world.size:
        near = max(1, round(config.micro_batches / world.size)) * world.size
        raise ConfigError(
            f"micro_batches={config.micro_batches}: must be a multiple of the {world.size} processes; "
            f"use micro_batches={near}"
        )
    each = config.micro_batches // world.size
    if config.world.is_deterministic and world.size > 1 and each & (each - 1):
        raise ConfigError(
            f"micro_batches={config.micro_batches}: with world.reduction=deterministic each of {world.size} processes "
            f"must have 1, 2, 4, ... of them, not {each}; use micro_batches={world.size * 2 ** (each.bit_length() - 1)}"
        )
    return config.micro_batches


@contextmanager
def lock_run(config: "Config", world: World) -> Iterator["RunLock"]:
    """Find the run directory and lock it while the context lasts; no file is created yet.

    Raises ConfigError for a directory that is in use, is no run, holds a run with another configuration, or must not
    be continued (`resume=never`). An interruption within the context says how to resume.
    """
    lock = RunLock(config, world)
    try:
        lock.find()
        yield lock
    except KeyboardInterrupt as interrupt:
        raise interrupt if str(interrupt) else lock.interrupted() from interrupt
    finally:
        lock.release()


class RunLock:
    """The locked directory of a run; `directory` is None for a run that does not exist yet.

    `checkpoint` is the one to resume from, None for a run that starts at step 0.
    """

    def __init__(self, config: "Config", world: World) -> None:
        self.config, self.world = config, world
        self.directory: Path | None = None
        self.checkpoint: Path | None = None
        self._lock: FileLock | None = None
        self._log: Logger = Fanout()

    def find(self) -> None:
        """Find, check and lock the directory if it exists; the first process does, and tells the others."""
        directory, saved = json.loads(self.world.share(lambda: json.dumps(self._find())))
        self.directory = Path(directory) if directory else None
        self.checkpoint = Path(saved) if saved else None

    def open_run(self, start_step: int) -> RunContext:
        """Create the directory unless it exists, write configuration and environment, open the logs at `start_step`."""
        is_new = self.directory is None
        self.directory = Path(self.world.share(lambda: str(self._make())))
        try:
            if self.world.is_first:
                self._log = self._record(self.directory, start_step)
        except ConfigError:
            # a logger that cannot be opened must not leave an empty run behind
            if is_new:
                shutil.rmtree(self.directory)
            raise
        config, world = self.config, self.world
        return RunContext(self.directory, config, config.seed, world.device, DTYPES[config.dtype], world, self._log)

    def interrupted(self) -> Stopped:
        """Return the exception of a run that was interrupted before or after its training."""
        if self.directory is None or not checkpoint.has_checkpoint(self.directory):
            return Stopped("interrupted before anything was saved", "give the same command again")
        return Stopped("interrupted", f"resume with: {command_to_continue(self.directory, self.world.size)}")

    def close_log(self) -> None:
        """Close the logs; what is printed from now on stands below a live view."""
        self._log.close()
        self._log = Fanout()

    def release(self) -> None:
        """Close the logs and release the lock."""
        self.close_log()
        if self._lock is not None:
            self._lock.release()

    def _find(self) -> tuple[str, str]:
        """Return the directory and the checkpoint to resume from, "" for none."""
        config = self.config
        resumed = Path(config.resume) if config.resume not in ("auto", "never") else None
        directory = self._named() if resumed is None else run_directory(resumed)
        if directory is None or not directory.exists():
            return "", ""
        if resumed is not None and config.name not in (None, directory.name):
            raise ConfigError(
                f"resume={resumed} resumes the run {directory.name}, not name={config.name}; leave name out"
            )
        if config.resume == "never":
            raise ConfigError(f"resume=never: {directory} exists; give another name=, or resume=auto to resume it")
        if resumed is not None and not (directory / LOCK).exists():
            raise ConfigError(f"resume={resumed}: no run here; give a run, or one of its checkpoints/step_*")
        if not (directory / LOCK).exists() and any(directory.iterdir()):
            raise ConfigError(f"name={directory.name}: {directory} exists and is not a run; give another name= or out=")
        self._take_lock(directory)
        if (directory / checkpoint.CONFIG).exists():
            refuse_changes(directory, checkpoint.read_config(directory), asdict(config))
        if resumed is None and not checkpoint.has_checkpoint(directory):
            return str(directory), ""
        saved = checkpoint.find(directory if resumed is None else resumed)
        refuse_changes(saved, checkpoint.read_config(saved), asdict(config))
        return str(directory), str(saved)

    def _named(self) -> Path | None:
        return Path(self.config.out) / self.config.name if self.config.name is not None else None

    def _make(self) -> Path:
        if self.directory is not None:
            return self.directory
        out, directory = Path(self.config.out), self._named()
        try:
            out.mkdir(parents=True, exist_ok=True)
            if directory is None:
                directory = make_up_directory(out, self.config.model.name)
            elif directory.exists():
                raise ConfigError(f"{directory} was just created by another process; give another name=")
            else:
                directory.mkdir()
        except OSError as error:
            raise ConfigError(f"out={out}: no run can be made there ({error.strerror}); give another out=") from error
        self._take_lock(directory)
        return directory

    def _record(self, directory: Path, start_step: int) -> Logger:
        """Write configuration and environment of the run, and open its logs."""
        plain = asdict(self.config)
        checkpoint.tidy(directory)
        checkpoint.write_config(directory, plain)
        write_environment(directory, start_step, str(self.world.device))
        logged = LoggedRun(directory, directory.name, plain, self.config.steps, start_step)
        return open_loggers(self.config.logger, logged)

    def _take_lock(self, directory: Path) -> None:
        # the system releases this lock when the process dies, so a kill leaves no stale lock behind
        lock = FileLock(directory / LOCK)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise ConfigError(
                f"{directory} is in use by process {read_holder(directory / LOCK)}; wait for it, or start another run "
                "with another name="
            ) from None
        self._lock = lock
        (directory / LOCK).write_text(f"{os.getpid()}\n", encoding="utf-8")


def make_up_directory(out: Path, word: str) -> Path:
    """Return a directory in `out` that no other run has, even one started in the same second."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    while True:
        directory = out / f"{stamp}_{word}_{secrets.token_hex(2)}"
        try:
            directory.mkdir()
        except FileExistsError:
            continue
        return directory


def run_directory(path: Path) -> Path:
    """Return the run directory of `path`, a run directory or one of its checkpoints. Raises CheckpointError."""
    if not path.is_dir():
        raise CheckpointError(f"resume={path}: no such directory; give a run, or one of its checkpoints/step_*")
    return checkpoint.run_of(path)


def refuse_changes(directory: Path, saved: dict[str, Any], given: dict[str, Any]) -> None:
    """Raise ConfigError, naming the keys, when `given` is not the configuration of the run in `directory`.

    Raises CheckpointError when the two were written by versions that know different keys.
    """
    if strange := sorted(_known_to_one(saved, given)):
        shown = ", ".join(strange[:5]) + (" ..." if len(strange) > 5 else "")
        raise CheckpointError(
            f"{directory} was made by another version of nested_learning, one of the two has no {shown}; resume with "
            f"the version whose commit its run's {ENVIRONMENT} names, or start another run with another name="
        )
    before, now = _flat(saved), _flat(given)
    # deterministic sums depend on the number of micro-batches, so there it may not change
    free = FREE - {"micro_batches"} if now["world.reduction"] == "deterministic" else FREE
    changed = [
        key
        for key in sorted(before.keys() | now.keys())
        if key.split(".")[0] not in free and (key not in before or key not in now or before[key] != now[key])
    ]
    if changed:
        shown = "; ".join(f"{key} was {before.get(key, 'absent')}, is {now.get(key, 'absent')}" for key in changed[:5])
        further = f"; to train further from it give branch_from={directory} too" if changed == ["steps"] else ""
        raise ConfigError(
            f"{directory} was made with another configuration: {shown}{' ...' if len(changed) > 5 else ''}; "
            f"resume with the old values, or start another run with another name={further}"
        )


def _known_to_one(saved: dict[str, Any], given: dict[str, Any]) -> set[str]:
    """Return the keys that only one of two configurations has, where both chose the same options."""
    strange = (saved.keys() ^ given.keys()) - FREE
    for key in (saved.keys() & given.keys()) - FREE:
        before, now = saved[key], given[key]
        if isinstance(before, dict) and isinstance(now, dict) and before.get("name") == now.get("name"):
            strange |= {f"{key}.{name}" for name in before.keys() ^ now.keys()}
    return strange


def command_to_continue(directory: Path, world_size: int) -> str:
    """Return the command that resumes this run: that of this process, with `resume=<directory>`."""
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("resume=")]
    start = program()
    if world_size > 1:
        torchrun = _typed(str(Path(sys.executable).with_name("torchrun")))
        start = [torchrun, "--nproc-per-node", str(world_size), sys.argv[0]]
    return shlex.join([*start, *arguments, f"resume={directory}"])


def program() -> list[str]:
    """Return how this process was started, as it is typed here: `python train.py`, `.venv/bin/python train.py`, `nl`.

    A printed command must work when pasted, whether or not a virtual environment is active.
    """
    script = sys.argv[0]
    return [_typed(sys.executable), script] if script.endswith(".py") else [_typed(script)]


def _typed(path: str) -> str:
    """Return a program as its name where PATH finds it, else relative to the working directory if inside."""
    name = Path(path).name
    if shutil.which(name) == path:
        return name
    return str(Path(path).relative_to(Path.cwd())) if Path(path).is_relative_to(Path.cwd()) else path


def _flat(values: Any, key: str = "") -> dict[str, Any]:
    """Return every plain value of nested mappings and lists by its full key."""
    if isinstance(values, dict) and values:
        items: Any = values.items()
    elif isinstance(values, list) and values:
        items = enumerate(values)
    else:
        return {key: values}
    return {
        full: value
        for name, item in items
        for full, value in _flat(item, f"{key}.{name}" if key else str(name)).items()
    }
