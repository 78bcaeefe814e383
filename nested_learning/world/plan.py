"""How processes share the work of a step: who holds the parameters, and how gradients become one."""

from dataclasses import dataclass

from nested_learning.errors import ConfigError


@dataclass(frozen=True)
class Plan:
    """`parallel`: ddp, every process holds all parameters, or fsdp, every process holds a part of each.

    `shards`: so many processes hold all parts together, and there are as many copies as it takes (None: one copy).
    `reduction`: fast, gradients are added as they come, or deterministic, in the same order whatever the number of
    processes. `timeout`: after so many seconds without an answer the others count as dead.
    """

    parallel: str = "ddp"
    shards: int | None = None
    reduction: str = "fast"
    timeout: float = 60.0

    @property
    def is_deterministic(self) -> bool:
        """Say whether gradients are added in an order that the number of processes does not change."""
        return self.reduction == "deterministic"

    def num_shards(self, size: int) -> int:
        """Return how many of `size` processes hold all parameters together: 1 where each of them does."""
        if self.parallel == "ddp":
            return 1
        return size if self.shards is None else self.shards

    def check(self, size: int) -> None:
        """Raise ConfigError when `size` processes cannot work by this plan."""
        if self.parallel == "fsdp" and self.shards is not None and size % self.shards:
            near = max(count for count in range(1, min(self.shards, size) + 1) if size % count == 0)
            raise ConfigError(
                f"world.shards={self.shards}: must divide the number of processes, {size}; use world.shards={near}"
            )
