"""Go from chunk to chunk and keep only what each began with: the backward pass computes a chunk again, then leaves it.

Memory is that of one chunk's graph and of all starts; time is that of one more forward pass.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nested_learning import tree
from nested_learning.shapes import Tensor

# (a chunk of what is read `[b h t ...]`, what is carried, what all chunks share) -> (what is returned, what is carried)
Step = Callable[[Any, Any, Any], tuple[Tensor, Any]]


@dataclass
class Plan:
    """What to do with a flat list of tensors; `after` becomes what is carried in the end, for its structure."""

    step: Step
    sizes: Sequence[int]
    given: tuple[Any, Any, Any]
    after: Any = None

    def fill(self, leaves: Iterable[Tensor]) -> tuple[Any, Any, Any]:
        """Return what is read, carried and shared, made of other tensors."""
        return fill(self.given, leaves)

    def run(self, leaves: Iterable[Tensor]) -> tuple[list[Tensor], list[Any]]:
        """Go through all chunks; return what is returned and carried in the end, flat, and what chunks began with."""
        read, carry, shared = self.fill(leaves)
        starts, outputs = [], []
        for here in chunks_of(read, self.sizes):
            starts.append(carry)
            y, carry = self.step(here, carry, shared)
            outputs.append(y)
        self.after = carry
        return [torch.cat(outputs, 2), *tree.leaves(carry)], starts


def recomputed(step: Step, sizes: Sequence[int], read: Any, carry: Any, shared: Any) -> tuple[Tensor, Any]:
    """Return what `step` returns for all chunks, in a row, and what it carries in the end.

    `read` is cut into `sizes` along dimension 2. The gradient may be differentiated again; that needs the memory of
    all chunks. Source: ours.
    """
    plan = Plan(step, sizes, (read, carry, shared))
    leaves = tree.leaves(plan.given)
    if torch.is_grad_enabled() and any(x.requires_grad for x in leaves):
        y, *after = _Recomputed.apply(plan, *leaves)
    else:
        (y, *after), _ = plan.run(leaves)
    return y, fill(plan.after, after)


def stretches(sizes: Sequence[int]) -> list[int]:
    """Lay chunks together, about as many in each stretch as there are stretches.

    What is kept, all starts and the graph of one stretch, is least so. Source: ours, after arXiv 1604.06174, section 4.
    """
    each = math.isqrt(max(len(sizes) - 1, 0)) + 1
    return [sum(sizes[first : first + each]) for first in range(0, len(sizes), each)]


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: Plan, *leaves: Tensor) -> tuple[Tensor, ...]:
        """Run the plan without a graph."""
        results, ctx.starts = plan.run(leaves)
        ctx.plan = plan
        ctx.save_for_backward(*leaves)
        ctx.set_materialize_grads(False)
        # each a tensor of its own: what is carried may hold one twice
        return results[0], *(x.clone() for x in results[1:])

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *d_carry: Tensor | None) -> tuple[Tensor | None, ...]:
        """Walk back from the last chunk to the first."""
        plan, leaves = ctx.plan, ctx.saved_tensors
        if torch.is_grad_enabled():
            # views, so that an input that was computed from another gets its own gradient only
            own = [x.view_as(x) for x in leaves]
            results, _ = plan.run(own)
            return None, *differentiate(results, (dy, *d_carry), own, create_graph=True)
        read, _, shared = plan.fill(leaves)
        d_read = [torch.zeros_like(x) for x in tree.leaves(read)]
        d_shared: list[Tensor | None] = [None for _ in tree.leaves(shared)]
        ends = list(torch.tensor(plan.sizes).cumsum(0).tolist())
        pieces = list(chunks_of(read, plan.sizes))
        for here, start, size, end in reversed(list(zip(pieces, ctx.starts, plan.sizes, ends, strict=True))):
            dy_here = None if dy is None else dy[:, :, end - size : end]
            found = backward_of_chunk(plan.step, (here, start, shared), (dy_here, *d_carry))
            of_read, of_carry, of_shared = cut(found, [len(d_read), len(tree.leaves(start)), len(d_shared)])
            for whole, part in zip(d_read, of_read, strict=True):
                if part is not None:
                    whole[:, :, end - size : end] = part
            d_carry = tuple(of_carry)
            d_shared = [b if a is None else a if b is None else a + b for a, b in zip(d_shared, of_shared, strict=True)]
        return None, *d_read, *d_carry, *d_shared


def backward_of_chunk(step: Step, given: Any, after: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Compute a chunk again; return the gradients of all it was given, from those of what it returned."""
    own = [x.detach().requires_grad_() for x in tree.leaves(given)]
    with torch.enable_grad():
        y, carry = step(*fill(given, own))
        return differentiate([y, *tree.leaves(carry)], after, own, create_graph=False)


def differentiate(
    results: Sequence[Tensor], after: Sequence[Tensor | None], leaves: Sequence[Tensor], create_graph: bool
) -> list[Tensor | None]:
    """Return the gradients of `leaves`, None for what none of the `results` that have gradients depends on."""
    wanted = [(x, d) for x, d in zip(results, after, strict=True) if d is not None and x.requires_grad]
    needed = [x for x in leaves if x.requires_grad]
    if not wanted or not needed:
        return [None for _ in leaves]
    ends, gradients = zip(*wanted, strict=True)
    found = iter(torch.autograd.grad(ends, needed, gradients, create_graph=create_graph, allow_unused=True))
    return [next(found) if x.requires_grad else None for x in leaves]


def chunks_of(read: Any, sizes: Sequence[int]) -> Iterator[Any]:
    """Cut every tensor of `read` into `sizes` along dimension 2; at once, as slices have costly gradients."""
    parts = [x.split(list(sizes), dim=2) for x in tree.leaves(read)]
    for here in zip(*parts, strict=True):
        yield fill(read, here)


def fill(template: Any, leaves: Iterable[Tensor]) -> Any:
    """Return the structure of `template` with other tensors."""
    each = iter(leaves)
    return tree.map(lambda _: next(each), template)


def cut(items: Sequence[Any], lengths: Sequence[int]) -> Iterator[list[Any]]:
    """Cut a list into pieces of the given lengths."""
    done = 0
    for length in lengths:
        yield list(items[done : done + length])
        done += length
