"""Devices, and how processes share the work of a step. This file must not import torch."""

import re
from dataclasses import dataclass

from nested_learning.errors import ConfigError
from nested_learning.typed import check_at_least, check_one_of

DEVICES = ("auto", "cpu", "cuda", "mps")
# of PyTorch's names with a number, those that can exist
NUMBERED = re.compile(r"cuda:\d{1,4}|cpu:0|mps:0", re.ASCII)
BACKENDS = ("auto", "gloo", "nccl")
PARALLEL = ("ddp", "fsdp")
REDUCTIONS = ("fast", "deterministic")
# seconds
YEAR = 31_536_000


def split_device(name: str) -> tuple[str, int | None]:
    """Return the kind of the device `name`, one of `DEVICES`, and its number: `cuda:1` is ("cuda", 1), `cuda` has None.

    Raises ConfigError for another name.
    """
    kind, _, number = name.partition(":")
    if NUMBERED.fullmatch(name):
        return kind, int(number)
    check_one_of("device", name, (*DEVICES, "cuda:<number>"))
    return kind, None


@dataclass(kw_only=True)
class WorldConfig:
    """How processes communicate, which of them hold the parameters, and how gradients are added up.

    `parallel`: with ddp every process holds all parameters, with fsdp a shard of each. `shards`: how many processes
    hold one copy of the parameters together (None: all of them; fewer gives several copies, HSDP). `reduction`: fast
    adds gradients as they arrive; deterministic adds them in an order that the number of processes does not change.
    `check_every`: steps between two comparisons of the replicas. `timeout`: seconds without an answer after which
    another process counts as dead.
    """

    backend: str = "auto"
    parallel: str = "ddp"
    shards: int | None = None
    reduction: str = "fast"
    check_every: int = 100
    timeout: float = 60.0

    def __post_init__(self) -> None:
        check_one_of("world.backend", self.backend, BACKENDS)
        check_one_of("world.parallel", self.parallel, PARALLEL)
        check_one_of("world.reduction", self.reduction, REDUCTIONS)
        check_at_least("world.check_every", self.check_every, 1)
        if not 1 <= self.timeout <= YEAR:
            raise ConfigError(f"world.timeout={self.timeout} must be 1 to {YEAR} seconds; for example world.timeout=60")
        if self.shards is not None:
            check_at_least("world.shards", self.shards, 1)
            if self.parallel != "fsdp":
                raise ConfigError(f"world.shards={self.shards} is for world.parallel=fsdp; give that, or leave it out")
        if self.reduction == "deterministic" and self.parallel != "ddp":
            raise ConfigError(
                f"world.reduction=deterministic: world.parallel={self.parallel} adds gradients in an order of its "
                "own; use world.parallel=ddp"
            )

    @property
    def is_deterministic(self) -> bool:
        """Whether gradients are added in an order that the number of processes does not change."""
        return self.reduction == "deterministic"

    def num_shards(self, num_processes: int) -> int:
        """Return how many of `num_processes` hold one copy of the parameters together: 1 where each holds all."""
        if self.parallel == "ddp":
            return 1
        return num_processes if self.shards is None else self.shards

    def check(self, num_processes: int) -> None:
        """Raise ConfigError when `num_processes` cannot be divided into groups of `shards`."""
        if self.parallel == "fsdp" and self.shards is not None and num_processes % self.shards:
            divisors = (count for count in range(1, min(self.shards, num_processes) + 1) if num_processes % count == 0)
            raise ConfigError(
                f"world.shards={self.shards}: must divide the number of processes, {num_processes}; "
                f"use world.shards={max(divisors)}"
            )
