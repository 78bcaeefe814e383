"""Gradient accumulation over micro-batches and processes: fast, or in an order that is always the same."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from nested_learning.shapes import Tensor

# numbers sent in one message
MESSAGE = 2**23

Gradients = list[Tensor | None]


@runtime_checkable
class Reduction(Protocol):
    """Accumulates gradients. Call `module` with a micro-batch and multiply its loss by `weight` before backward."""

    module: nn.Module
    weight: float

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Return the context of the forward and the backward pass of the next micro-batch of this process."""
        ...

    def finish(self) -> None:
        """Leave the sum over all micro-batches of all processes in `.grad`."""
        ...


class Averaged:
    """Adds gradients as they arrive, and averages them over processes during the last backward pass (DDP).

    The average over processes becomes a sum because `weight` is their number. Gradients of sharded parameters
    (`is_sharded`) are reduced at every micro-batch, so that no process ever holds a whole one.
    """

    def __init__(self, training: nn.Module, size: int, device: torch.device, *, is_sharded: bool) -> None:
        self.module, self.weight = training, float(size)
        if size > 1 and not is_sharded:
            devices = [device.index] if device.type == "cuda" else None
            self.module = DistributedDataParallel(training, device_ids=devices, gradient_as_bucket_view=True)

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Suppress communication until the last micro-batch, where DDP keeps whole gradients."""
        if isinstance(self.module, DistributedDataParallel) and not is_last:
            return self.module.no_sync()
        return nullcontext()

    def finish(self) -> None:
        """Do nothing: the last backward pass has reduced the gradients."""


class Node(NamedTuple):
    """A node of the tree: the sum of the gradients of `size` micro-batches that follow one another."""

    size: int
    gradients: Gradients


class FixedTree:
    """Adds the gradients of micro-batches in a tree that depends on their number only, not on the processes.

    The leaves are the micro-batches in order. Two neighbouring nodes of one size are added as soon as both exist, as in
    a binary counter; the nodes that remain at the end are added from the right. A process that reads a span of 2^n
    micro-batches computes exactly one node of the tree, and every process adds the nodes of all by the same rule: with
    any number of processes every addition has the same two terms, so the bytes are the same. It takes as many additions
    as adding in order, and one copy of the gradients for each level of the tree (pairwise summation).
    """

    def __init__(self, training: nn.Module, size: int) -> None:
        self.module, self.weight = training, 1.0
        self.size = size
        self.parameters = list(training.parameters())
        self.nodes: list[Node] = []

    @contextmanager
    def micro_batch(self, *, is_last: bool) -> Iterator[None]:
        """Move the gradients of the micro-batch from `.grad` into the tree; `.grad` is empty before and after."""
        if not self.nodes:
            # a step that raised an error may have left gradients
            self._clear()
        yield
        gradients = [parameter.grad for parameter in self.parameters]
        self._clear()
        self.nodes = grown(self.nodes, Node(1, gradients))

    def finish(self) -> None:
        """Add up the nodes of this process, then those of all."""
        if self.size == 1:
            gradients = folded(self.nodes).gradients
        else:
            # each process has a power of two of micro-batches (count_micro_batches checks it), so one node is left
            (node,) = self.nodes
            gradients = self._sum_over_processes(node)
        self.nodes = []
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _sum_over_processes(self, node: Node) -> Gradients:
        """Return the sum of the nodes of all processes, sent in messages of bounded size."""
        # all processes must send equally many numbers, so they first agree on which parameters any of them used
        is_used = [gradient is not None for gradient in node.gradients]
        num_users = torch.tensor(is_used, device=self.parameters[0].device).to(torch.int64)
        distributed.all_reduce(num_users)
        known: list[Tensor] = []
        for parameter, gradient, users in zip(self.parameters, node.gradients, num_users.tolist(), strict=True):
            if users:
                # a parameter that this process did not use: x + -0.0 is x for every x, while -0.0 + 0.0 is 0.0
                known.append(torch.full_like(parameter, -0.0) if gradient is None else gradient)
        for message in messages(known):
            own = torch.cat([gradient.flatten() for gradient in message])
            everywhere = list(own.new_empty(self.size, len(own)).unbind())
            distributed.all_gather(everywhere, own)
            # the nodes of all processes, in rank order, are added as one process would add them
            nodes: list[Node] = []
            for each in everywhere:
                nodes = grown(nodes, Node(node.size, [each]))
            (summed,) = folded(nodes).gradients
            assert summed is not None
            for gradient, part in zip(message, summed.split([each.numel() for each in message]), strict=True):
                gradient.copy_(part.view(gradient.shape))
        sums = iter(known)
        return [next(sums) if users else None for users in num_users.tolist()]


def grown(nodes: Sequence[Node], node: Node) -> list[Node]:
    """Return the neighbouring `nodes` with one more on their right; two of one size are merged."""
    nodes = list(nodes)
    while nodes and nodes[-1].size == node.size:
        node = _added(nodes.pop(), node)
    return [*nodes, node]


def folded(nodes: Sequence[Node]) -> Node:
    """Return the sum of the remaining nodes, added from the right."""
    *nodes, node = nodes
    while nodes:
        node = _added(nodes.pop(), node)
    return node


def messages(tensors: Sequence[Tensor], most: int = MESSAGE) -> Iterator[list[Tensor]]:
    """Split a list of tensors into lists of one dtype with at most `most` numbers, or with one tensor."""
    message: list[Tensor] = []
    for tensor in tensors:
        is_full = sum(each.numel() for each in message) + tensor.numel() > most
        if message and (is_full or message[0].dtype != tensor.dtype):
            yield message
            message = []
        message.append(tensor)
    if message:
        yield message


def _added(left: Node, right: Node) -> Node:
    """Return the sum of two nodes; the tensors of the left one are overwritten."""
    pairs = [(a, b) for a, b in zip(left.gradients, right.gradients, strict=True) if a is not None and b is not None]
    if pairs:
        torch._foreach_add_([a for a, _ in pairs], [b for _, b in pairs])
    gradients = [b if a is None else a for a, b in zip(left.gradients, right.gradients, strict=True)]
    return Node(left.size + right.size, gradients)
