"""The operations between processes: sums, broadcasts, sharding, gradient reduction, replica checks."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import distributed, nn

from nested_learning import errors
from nested_learning.errors import NestedLearningError
from nested_learning.world import replicas, sharding
from nested_learning.world.config import WorldConfig
from nested_learning.world.reduction import Averaged, FixedTree, Reduction

# floats that together represent a sum exactly: 3 * 53 bits
PARTS = 3


@dataclass(frozen=True)
class World:
    """This process (`rank` of `size`, `local_rank` on its machine), its device, and its communication with the others.

    `config` says how they share the work. With size 1 there is no process group, and every method is a local operation.
    """

    rank: int
    size: int
    local_rank: int
    device: torch.device
    backend: str
    config: WorldConfig = field(default_factory=WorldConfig)

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files and prints."""
        return self.rank == 0

    @property
    def is_sharding(self) -> bool:
        """Whether each process holds shards of the parameters, so that all must call the model together."""
        return self.config.num_shards(self.size) > 1

    def share_of(self, number: int) -> range:
        """Return the indices, of 0 to `number` - 1, that belong to this process; `size` divides `number`."""
        each = number // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """Return the `values` of every process, in float64; all must pass equally many."""
        if self.size == 1:
            return [[float(value) for value in values]]
        own = torch.tensor(values, dtype=torch.float64, device=self.device)
        return self._gather(own).tolist()

    def sum(self, values: Sequence[float | Sequence[float]]) -> list[float]:
        """Add up `values` over all processes, in one message; a value may be a sequence, whose numbers are added too.

        A sum is exact until it is rounded once, at its end, so that it does not depend on which process had which of
        the numbers; that holds while they lie within a factor of 2^100 of each other.
        """
        parts = [part for value in values for part in in_parts([value] if isinstance(value, float | int) else value)]
        everywhere = self.gather(parts)
        sums = [[part for of_one in everywhere for part in of_one[k : k + PARTS]] for k in range(0, len(parts), PARTS)]
        return [exact_sum(each) for each in sums]

    def share(self, make: Callable[[], str]) -> str:
        """Call `make` on the first process; return its text, or raise its NestedLearningError, on all."""
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
        """Return the sum of `tensor` over all processes, on its device and in its dtype."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    def is_sharded(self, tensor: torch.Tensor) -> bool:
        """Return whether this process holds only a shard of `tensor`."""
        # a single process shards nothing; the import that the check needs takes half a second
        return self.size > 1 and sharding.is_sharded(tensor)

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the whole of a sharded tensor, gathered from all processes; any other tensor itself."""
        return tensor if self.size == 1 else sharding.gather_whole(tensor)

    def shard_like(self, whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Return `whole` sharded as `like` is, each process keeping its part; `whole` itself when `like` is not.

        `whole` must be the same on all processes: nothing is sent.
        """
        return whole if self.size == 1 else sharding.shard_like(whole, like)

    def barrier(self) -> None:
        """Wait for all processes."""
        self.sum([0.0])

    def shard(self, model: nn.Module, blocks: Sequence[nn.Module]) -> nn.Module:
        """With world.parallel=fsdp keep only a shard of each parameter of `model`, in place; return `model`.

        The parameters of each of `blocks` are gathered when it is called, and freed afterwards. From then on every call
        of `model` must be made by all processes.
        """
        if self.is_sharding:
            sharding.shard(model, blocks, self.device.type, self.size, self.config.num_shards(self.size))
        return model

    def reduction(self, training: nn.Module) -> Reduction:
        """Return what sums the gradients of the micro-batches of all processes, as world.reduction says."""
        if self.config.is_deterministic:
            return FixedTree(training, self.size)
        return Averaged(training, self.size, self.device, is_sharded=self.is_sharding)

    def check_replicas(self, tensors: dict[str, torch.Tensor]) -> None:
        """Compare every tensor with its copies on other processes. Raises ReplicaError naming one that differs."""
        if self.size > 1:
            replicas.check_replicas(tensors, self.config.num_shards(self.size), self._gather)

    def _gather(self, own: torch.Tensor) -> torch.Tensor:
        everywhere = own.new_empty(self.size, *own.shape)
        distributed.all_gather(list(everywhere.unbind()), own)
        return everywhere

    def _broadcast(self, text: str) -> str:
        payload = torch.tensor(list(text.encode()), dtype=torch.uint8, device=self.device)
        size = torch.tensor([len(payload)], device=self.device)
        distributed.broadcast(size, src=0)
        if not self.is_first:
            payload = torch.empty(int(size), dtype=torch.uint8, device=self.device)
        distributed.broadcast(payload, src=0)
        return bytes(payload.tolist()).decode()


def exact_sum(numbers: Sequence[float]) -> float:
    """Return the sum, rounded once, so that the order does not matter; infinities and NaN propagate as usual."""
    plain = sum(numbers, start=0.0)
    return math.fsum(numbers) if math.isfinite(plain) else plain


def in_parts(numbers: Sequence[float]) -> list[float]:
    """Return the sum of `numbers` as `PARTS` floats: the rounded sum, its rounding error, and so on."""
    # a float64 alone would round here, and what it loses depends on which process has which number
    parts: list[float] = []
    for _ in range(PARTS):
        finite = all(math.isfinite(part) for part in parts)
        parts.append(exact_sum([*numbers, *(-part for part in parts)]) if finite else 0.0)
    return parts
