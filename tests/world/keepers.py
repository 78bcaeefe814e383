"""What each process does in tests of sharded checkpoints."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import torch.distributed.checkpoint

from nested_learning.config.schema import Config
from nested_learning.errors import CheckpointError
from nested_learning.phase.train import run
from nested_learning.world.storage import own_file

FIRST, LAST = "step_00000002", "step_00000004"


def copy_stopped(origin: Path, copy: Path) -> None:
    """Copy a run as if it had been killed after step 2."""
    shutil.copytree(origin, copy)
    shutil.rmtree(copy / "checkpoints" / LAST)
    (copy / "checkpoints" / "latest").write_text(f"{FIRST}\n")
    (copy / "summary.json").unlink()


def keep(config: Config, given: dict[str, str]) -> dict[str, str]:
    """Train the run `whole`, then resume copies of runs that were stopped: name -> name of the run copied."""
    out, is_first = Path(config.out), os.environ["RANK"] == "0"
    if not given:
        run(replace(config, name="whole"))
        given = {"again": "whole"}
    for name, origin in given.items():
        if is_first:
            copy_stopped(out / origin, out / "draft")
            (out / "draft").rename(out / name)
        run(replace(config, name=name, resume=str(wait_for(out / name))))
    return {}


def wait_for(path: Path) -> Path:
    """Return `path` once another process has made it."""
    while not path.exists():
        os.sched_yield()
    return path


def fill_the_disk_of_one(config: Config) -> str:
    """Train until the disk of the second process is full, in the second save; return the error message."""
    writer = torch.distributed.checkpoint.HuggingFaceStorageWriter
    real = writer.write_data

    def full(self, *arguments):
        if os.environ["RANK"] == "1" and LAST in str(self.path):
            own_file(Path(self.path), 1).write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, *arguments)

    writer.write_data = full
    try:
        run(config)
    except CheckpointError as error:
        return str(error)
    finally:
        writer.write_data = real
    return ""
