"""Checks that the replicas of a tensor on several processes are still bitwise equal."""

from collections.abc import Callable
from functools import lru_cache

import torch

from nested_learning.errors import ReplicaError
from nested_learning.shapes import Int, Tensor
from nested_learning.world.sharding import is_sharded, local_part

# numbers hashed at a time, which bounds the memory
CHUNK = 2**20
WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def check_replicas(tensors: dict[str, Tensor], num_shards: int, gather: Callable[[Tensor], Tensor]) -> None:
    """Compare the hashes of `tensors` over processes; a shard is compared with the replicas of that shard.

    `gather` stacks a tensor of every process. Raises ReplicaError, on all processes, naming the first that differs.
    """
    if not tensors:
        return
    hashes = gather(torch.stack([hash_bits(local_part(tensor)) for tensor in tensors.values()])).cpu()
    for index, (name, tensor) in enumerate(tensors.items()):
        # processes that are this many ranks apart hold the same numbers
        stride = num_shards if is_sharded(tensor) else 1
        for rank in range(stride, len(hashes)):
            first = rank % stride
            if hashes[rank, index] != hashes[first, index]:
                raise ReplicaError(
                    f"{name} is not the same on processes {first} and {rank}: the processes no longer train "
                    "the same model, and its metrics are invalid; resume from an earlier checkpoint with resume=<step "
                    "directory>, and report it if it happens again"
                )


@torch.no_grad()
def hash_bits(tensor: Tensor) -> Int[Tensor, ""]:
    """Return 64 bits that change with any one bit of `tensor`, and with the order of its numbers.

    The bits of each number, as an integer, are multiplied by an odd factor of its index and added modulo 2^64: integer
    sums have no rounding, so every device and order gives the same. A multilinear hash.
    """
    bits = tensor.detach().contiguous().view(WHOLE[tensor.element_size()]).flatten()
    total = torch.zeros((), dtype=torch.int64, device=bits.device)
    factors = _factors(bits.device)
    for chunk in bits.split(CHUNK):
        total = total * FACTOR + (chunk * factors[: len(chunk)]).sum()
    return total


FACTOR = 0x5851F42D4C957F2D


@lru_cache(maxsize=1)
def _factors(device: torch.device) -> Tensor:
    """Return fixed odd numbers, one for each index of a chunk."""
    numbers = torch.randint(2**62, (CHUNK,), generator=torch.Generator().manual_seed(0), dtype=torch.int64)
    return (2 * numbers + 1).to(device)
