"""Joining the process group that torchrun started, and leaving it."""

import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from nested_learning.errors import ConfigError, LostError
from nested_learning.signals import signal_on_parent_death
from nested_learning.world.config import WorldConfig, split_device
from nested_learning.world.world import World


@contextmanager
def open_world(device: str, config: WorldConfig | None = None) -> Iterator[World]:
    """Join the processes that torchrun started, or make a world of one, and leave the group at the end.

    `device`: auto, cpu, cuda, cuda:<number> or mps. Raises ConfigError for what this machine lacks, and for a `config`
    that does not fit the number of processes; LostError, from any call that waits for the others, when one of them has
    died.
    """
    config = WorldConfig() if config is None else config
    rank, size, local_rank = (int(os.environ.get(name, alone)) for name, alone in _TORCHRUN)
    torch_device = pick_device(device, local_rank)
    backend = pick_backend(config.backend, torch_device, size)
    world = World(rank, size, local_rank, torch_device, backend, config)
    config.check(size)
    if size == 1:
        yield world
        return
    # torchrun may die of the second signal while its processes still save; they stop by themselves
    signal_on_parent_death(signal.SIGTERM)
    if torch_device.type == "cuda":
        torch.cuda.set_device(torch_device)
    timeout = timedelta(seconds=config.timeout)
    # a process may open several worlds in turn; the prefix keeps the keys of an earlier one out of the next
    store, _, _ = next(distributed.rendezvous("env://", rank, size))
    store = distributed.PrefixStore(f"world_{next(_OPENED)}", store)
    distributed.init_process_group(world.backend, store=store, rank=rank, world_size=size, timeout=timeout)
    # the destructor of a group waits for threads that may wait for the GIL, a deadlock: so groups are kept to the end
    _KEPT.append(distributed.group.WORLD)
    try:
        yield world
    except RuntimeError as error:
        # gloo raises plain RuntimeErrors, which name its source files
        if isinstance(error, distributed.DistError) or "/gloo/" in str(error):
            raise LostError(
                f"process {rank}: another process has died, or has not answered for world.timeout={config.timeout:g} "
                "seconds; its own error, if any, is printed next to this one. Give the same command again, with any "
                "number of processes: the run resumes from its last checkpoint"
            ) from error
        raise
    finally:
        distributed.destroy_process_group()


_OPENED = itertools.count()
_KEPT: list[distributed.ProcessGroup | None] = []
_TORCHRUN = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device called `name`; auto is the first available of cuda, mps, cpu. Raises ConfigError.

    On a machine with several processes each has the GPU of its `local_rank`.
    """
    kind, number = split_device(name)
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    usable = [kind for kind, available in here.items() if available]
    if kind == "auto":
        kind = usable[0]
    if kind not in usable:
        raise ConfigError(f"device={name}: not available here; use device=auto, or one of: {', '.join(usable)}")
    return torch.device("cuda", _pick_gpu(number, local_rank)) if kind == "cuda" else torch.device(kind)


def _pick_gpu(number: int | None, local_rank: int) -> int:
    """Return the number of the GPU of process `local_rank` of this machine: its own, or the one that was asked for."""
    count = torch.cuda.device_count()
    if number is None and local_rank >= count:
        raise ConfigError(
            f"device=cuda: process {local_rank} of this machine finds only {count} GPU; "
            f"start torchrun with --nproc-per-node {count}, or use device=cpu"
        )
    if number is not None and local_rank:
        raise ConfigError(
            f"device=cuda:{number}: the processes of a machine cannot share one GPU; use device=cuda, which gives each "
            "its own"
        )
    if number is not None and number >= count:
        raise ConfigError(
            f"device=cuda:{number}: the GPUs here are cuda:0 to cuda:{count - 1}; use device=cuda:{count - 1}, or "
            "device=auto"
        )
    return local_rank if number is None else number


def pick_backend(name: str, device: torch.device, size: int) -> str:
    """Return the backend called `name`; auto is nccl on CUDA, else gloo. Raises ConfigError."""
    if size > 1 and device.type == "mps":
        raise ConfigError("device=mps: several processes cannot share it; use device=cpu, or start without torchrun")
    if name == "nccl" and device.type != "cuda":
        raise ConfigError(
            f"world.backend=nccl: works on CUDA only, the device is {device.type}; use world.backend=auto"
        )
    if name not in ("auto", "gloo", "nccl"):
        raise ConfigError(f"world.backend={name}: must be auto, gloo or nccl; use world.backend=auto")
    if name == "auto":
        return "nccl" if device.type == "cuda" else "gloo"
    return name
