"""The interface through which an optimizer uses the processes that train together; `world.World` implements it."""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from nested_learning.shapes import Tensor


@runtime_checkable
class Processes(Protocol):
    """Processes that each hold a whole tensor, or a part of it (a sharded tensor, which knows its part)."""

    def is_sharded(self, tensor: "Tensor") -> bool:
        """Say whether this process holds only a part of `tensor`."""
        ...

    def whole(self, tensor: "Tensor") -> "Tensor":
        """Return a sharded tensor gathered from all processes; any other tensor as it is."""
        ...

    def shard_like(self, whole: "Tensor", like: "Tensor") -> "Tensor":
        """Return `whole` sharded as `like` is, each process keeping its part; `whole` itself when `like` is not."""
        ...

    def total(self, tensor: "Tensor") -> "Tensor":
        """Return the sum of `tensor` over all processes."""
        ...


class Alone:
    """A single process: nothing is sharded, and sums are complete."""

    def is_sharded(self, tensor: "Tensor") -> bool:
        """Return False."""
        return False

    def whole(self, tensor: "Tensor") -> "Tensor":
        """Return `tensor`."""
        return tensor

    def shard_like(self, whole: "Tensor", like: "Tensor") -> "Tensor":
        """Return `whole`."""
        return whole

    def total(self, tensor: "Tensor") -> "Tensor":
        """Return `tensor`."""
        return tensor


ALONE = Alone()
