"""The processes that train together, and what they say to each other: the only importer of torch.distributed."""

import ctypes
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from nested_learning import errors
from nested_learning.errors import ConfigError, NestedLearningError

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class World:
    """This process (`rank` of `size`, `local_rank` on its machine), its device, and how it reaches the others.

    With size 1 there is no process group, and every method is a plain local operation.
    """

    rank: int
    size: int
    local_rank: int
    device: torch.device
    backend: str

    @property
    def is_first(self) -> bool:
        """Say whether this process is the one that writes files and prints."""
        return self.rank == 0

    def share_of(self, number: int) -> range:
        """Return which of `number` things, a multiple of the number of processes, are this process's: one stretch."""
        each = number // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Add up `values` over all processes, in float64, in one message."""
        if self.size == 1:
            return [float(value) for value in values]
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return total.tolist()

    def share(self, make: Callable[[], str]) -> str:
        """Call `make` on the first process and return its text on all. So is an error for the user."""
        if self.size == 1:
            return make()
        kind, text = "", ""
        if self.is_first:
            try:
                text = make()
            except NestedLearningError as error:
                kind, text = type(error).__name__, str(error)
        kind, text = json.loads(self._broadcast(json.dumps([kind, text])))
        if kind:
            raise vars(errors)[kind](text)
        return text

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add `tensor` up over all processes, where it lies and in its own type."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    def is_sharded(self, tensor: torch.Tensor) -> bool:
        """Say whether this process holds a part of `tensor` only, as `torch.distributed.fsdp.fully_shard` leaves it."""
        # half a second to import, and only training asks
        from torch.distributed.tensor import DTensor

        return isinstance(tensor, DTensor)

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the whole of a sharded tensor, gathered from all processes; any other tensor itself."""
        from torch.distributed.tensor import DTensor

        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def cut(self, whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Return `whole` sharded as `like` is, each process keeping its part; `whole` itself when `like` is not.

        `whole` must be the same on all processes: nothing is sent.
        """
        from torch.distributed.tensor import DTensor, distribute_tensor

        if not isinstance(like, DTensor):
            return whole
        return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)

    def barrier(self) -> None:
        """Wait for all processes."""
        self.sum([0.0])

    def replicate(self, model: nn.Module) -> nn.Module:
        """Return a module called like `model`, whose backward pass averages `.grad` over all processes."""
        if self.size == 1:
            return model
        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)

    def only_locally(self, replica: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which backward passes add to `.grad` without talking to the other processes."""
        return replica.no_sync() if isinstance(replica, DistributedDataParallel) else nullcontext()

    def _broadcast(self, text: str) -> str:
        payload = torch.tensor(list(text.encode()), dtype=torch.uint8, device=self.device)
        size = torch.tensor([len(payload)], device=self.device)
        distributed.broadcast(size, src=0)
        if not self.is_first:
            payload = torch.empty(int(size), dtype=torch.uint8, device=self.device)
        distributed.broadcast(payload, src=0)
        return bytes(payload.tolist()).decode()


@contextmanager
def open_world(device: str, backend: str) -> Iterator[World]:
    """Join the processes that torchrun started (or be alone), and part from them at the end.

    `device`: auto, cpu, cuda or mps; `backend`: auto, gloo or nccl. Raises ConfigError for what this machine lacks.
    """
    rank, size, local_rank = (int(os.environ.get(name, alone)) for name, alone in _TORCHRUN)
    place = pick_device(device, local_rank)
    world = World(rank, size, local_rank, place, pick_backend(backend, place, size))
    if size == 1:
        yield world
        return
    _die_with_parent()
    if place.type == "cuda":
        torch.cuda.set_device(place)
    # a process may open one world after another, and must not find the addresses of the one before
    store, _, _ = next(distributed.rendezvous("env://", rank, size))
    store = distributed.PrefixStore(f"world_{next(_OPENED)}", store)
    distributed.init_process_group(world.backend, store=store, rank=rank, world_size=size)
    try:
        yield world
    finally:
        distributed.destroy_process_group()


_OPENED = itertools.count()
_TORCHRUN = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device called `name`; auto is the first there is of cuda, mps, cpu. Raises ConfigError."""
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, available in here.items() if available)
    if name not in here or not here[name]:
        usable = ", ".join(kind for kind, available in here.items() if available)
        raise ConfigError(f"device={name}: not available here; use device=auto, or one of: {usable}")
    if name == "cuda" and local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"device=cuda: process {local_rank} of this machine finds only {torch.cuda.device_count()} GPU; "
            f"start torchrun with --nproc-per-node {torch.cuda.device_count()}, or use device=cpu"
        )
    return torch.device(name, local_rank) if name == "cuda" else torch.device(name)


def pick_backend(name: str, device: torch.device, size: int) -> str:
    """Return the backend called `name`; auto is nccl on CUDA, else gloo. Raises ConfigError. Source: ours."""
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


def _die_with_parent() -> None:
    """Ask Linux to kill this process when torchrun is killed: two generations of workers must never write one run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
