"""Activation checkpointing over chunks: store the state at the start of each chunk, recompute the chunk in backward.

Memory: the graph of one chunk and all start states. Time: one more forward pass.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nested_learning import tree
from nested_learning.shapes import Tensor

# (inputs of a chunk `[b h t ...]`, state, weights that all chunks share) -> (outputs, state)
Step = Callable[[Any, Any, Any], tuple[Tensor, Any]]


@dataclass
class ChunkLoop:
    """A loop over chunks, as a function of a flat list of tensors, which is what autograd functions take.

    `given`: the inputs, the first state and the shared weights. `after`: the last state. `run` sets it, because the
    results of an autograd function are flat and the caller needs the structure (and the integers) of the state.
    """

    step: Step
    sizes: Sequence[int]
    given: tuple[Any, Any, Any]
    after: Any = None

    def run(self, leaves: Iterable[Tensor]) -> tuple[list[Tensor], list[Any]]:
        """Run all chunks with `leaves` as the tensors of `given`; return outputs and last state, flat, and starts."""
        inputs, state, shared = unflatten(self.given, leaves)
        starts, outputs = [], []
        for here in chunks_of(inputs, self.sizes):
            starts.append(state)
            y, state = self.step(here, state, shared)
            outputs.append(y)
        self.after = state
        return [torch.cat(outputs, 2), *tree.leaves(state)], starts


def recomputed(step: Step, sizes: Sequence[int], inputs: Any, state: Any, shared: Any) -> tuple[Tensor, Any]:
    """Run `step` over all chunks; return the concatenated outputs and the last state.

    `inputs` are split into `sizes` along dimension 2. The gradients can be differentiated again; then all chunks are
    stored.
    """
    loop = ChunkLoop(step, sizes, (inputs, state, shared))
    leaves = tree.leaves(loop.given)
    if torch.is_grad_enabled() and any(x.requires_grad for x in leaves):
        y, *after = _Recomputed.apply(loop, *leaves)
    else:
        (y, *after), _ = loop.run(leaves)
    return y, unflatten(loop.after, after)


def spans(sizes: Sequence[int]) -> list[int]:
    """Group n chunks into about sqrt(n) spans of sqrt(n) chunks; return the tokens of each span.

    The stored states at span starts and the graph of one span then sum to the least memory. Source: arXiv 1604.06174,
    section 4.
    """
    each = math.isqrt(max(len(sizes) - 1, 0)) + 1
    return [sum(sizes[first : first + each]) for first in range(0, len(sizes), each)]


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loop: ChunkLoop, *leaves: Tensor) -> tuple[Tensor, ...]:
        """Run the loop without a graph."""
        results, ctx.starts = loop.run(leaves)
        ctx.loop = loop
        ctx.save_for_backward(*leaves)
        # gradients that are not needed arrive as None, not as zeros of a whole state
        ctx.set_materialize_grads(False)
        # autograd needs distinct outputs: a state may contain one tensor twice, as reference and as weight
        return results[0], *(x.clone() for x in results[1:])

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *d_state: Tensor | None) -> tuple[Tensor | None, ...]:
        """Recompute the chunks from last to first, passing on the gradient of the state."""
        loop, leaves = ctx.loop, ctx.saved_tensors
        # grad mode is on in a backward pass only with create_graph=True: recompute everything with a graph
        if torch.is_grad_enabled():
            # views: where one input was computed from another, each gets only its direct gradient
            own = [x.view_as(x) for x in leaves]
            results, _ = loop.run(own)
            return None, *differentiate(results, (dy, *d_state), own, create_graph=True)
        inputs, _, shared = unflatten(loop.given, leaves)
        d_inputs = [torch.zeros_like(x) for x in tree.leaves(inputs)]
        d_shared: list[Tensor | None] = [None for _ in tree.leaves(shared)]
        ends = list(torch.tensor(loop.sizes).cumsum(0).tolist())
        chunks = list(chunks_of(inputs, loop.sizes))
        for here, start, size, end in reversed(list(zip(chunks, ctx.starts, loop.sizes, ends, strict=True))):
            dy_here = None if dy is None else dy[:, :, end - size : end]
            gradients = backward_of_chunk(loop.step, (here, start, shared), (dy_here, *d_state))
            lengths = [len(d_inputs), len(tree.leaves(start)), len(d_shared)]
            d_here, d_start, more = split_list(gradients, lengths)
            for whole, part in zip(d_inputs, d_here, strict=True):
                if part is not None:
                    whole[:, :, end - size : end] = part
            # the start of this chunk is the end of the previous one
            d_state = tuple(d_start)
            d_shared = [b if a is None else a if b is None else a + b for a, b in zip(d_shared, more, strict=True)]
        return None, *d_inputs, *d_state, *d_shared


def backward_of_chunk(step: Step, given: Any, after: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Recompute one chunk with a graph; return the gradients of `given` from the gradients `after` of its results."""
    # detached: the graph of the chunk ends at its inputs and is freed with it
    own = [x.detach().requires_grad_() for x in tree.leaves(given)]
    with torch.enable_grad():
        y, state = step(*unflatten(given, own))
        return differentiate([y, *tree.leaves(state)], after, own, create_graph=False)


def differentiate(
    results: Sequence[Tensor], after: Sequence[Tensor | None], leaves: Sequence[Tensor], create_graph: bool
) -> list[Tensor | None]:
    """Return the gradients of `leaves` from the gradients `after` of `results`; None for a leaf without one."""
    # torch.autograd.grad accepts neither results without a graph nor leaves that require no gradient
    pairs = [(x, d) for x, d in zip(results, after, strict=True) if d is not None and x.requires_grad]
    inputs = [x for x in leaves if x.requires_grad]
    if not pairs or not inputs:
        return [None for _ in leaves]
    outputs, d_outputs = zip(*pairs, strict=True)
    d_inputs = iter(torch.autograd.grad(outputs, inputs, d_outputs, create_graph=create_graph, allow_unused=True))
    return [next(d_inputs) if x.requires_grad else None for x in leaves]


def chunks_of(inputs: Any, sizes: Sequence[int]) -> Iterator[Any]:
    """Split every tensor of `inputs` into `sizes` along dimension 2."""
    # split at once: the gradient of slicing one chunk is a full-length tensor of zeros for every chunk
    parts = [x.split(list(sizes), dim=2) for x in tree.leaves(inputs)]
    for here in zip(*parts, strict=True):
        yield unflatten(inputs, here)


def unflatten(template: Any, leaves: Iterable[Tensor]) -> Any:
    """Return the structure of `template` with `leaves` as its tensors."""
    each = iter(leaves)
    return tree.map(lambda _: next(each), template)


def split_list(items: Sequence[Any], lengths: Sequence[int]) -> Iterator[list[Any]]:
    """Split a list into lists of the given lengths."""
    done = 0
    for length in lengths:
        yield list(items[done : done + length])
        done += length
