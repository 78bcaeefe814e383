"""Memories over a sequence in torch: `naive_associative` for every design, computed chunk by chunk."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import ModuleType

import torch

from nested_learning import tree
from nested_learning.ops import deep, fla, matrix
from nested_learning.ops.gates import Gates
from nested_learning.ops.memory import Design, Memory, Tokens, Weights, chunk_sizes
from nested_learning.ops.recompute import recomputed, spans
from nested_learning.shapes import Float, Tensor


def is_matrix(weights: Weights, design: Design) -> bool:
    """Say whether a memory is a matrix, which has a closed form for every design."""
    return len(weights) == 1 and not design.norm


def closed_form(weights: Weights, design: Design) -> ModuleType:
    """Return the module whose `chunk` and `chunk_update` compute this design."""
    if is_matrix(weights, design):
        return matrix
    assert design.gradient == "chunk", "a deep memory has no closed form with gradients of each token"
    return deep


def chunked(
    tokens: Tokens, memory: Memory, base: Weights | None, design: Design
) -> tuple[Float[Tensor, "b h t o"], Memory]:
    """Compute `ops/associative.py:associative` in torch."""
    form = closed_form(memory.weight, design)
    num_tokens = tokens.q.shape[2]
    sizes = chunk_sizes(num_tokens, design.chunk, memory.position)
    # the graph of a deep memory has the weights and activations of every chunk, so it is always recomputed
    if form is deep and len(sizes) > 1:

        def read_chunk(here: Tokens, memory: Memory, base: Weights | None) -> tuple[Tensor, Memory]:
            return deep.chunk(here, memory, base, design)

        return recomputed(read_chunk, sizes, tokens, memory, base)
    if design.recompute and len(sizes) > 1:
        plain = replace(design, recompute=False)

        def read_span(here: Tokens, memory: Memory, base: Weights | None) -> tuple[Tensor, Memory]:
            return chunked(here, memory, base, plain)

        return recomputed(read_span, spans(sizes), tokens, memory, base)
    num_whole = sizes.count(design.chunk)
    if form is matrix and num_whole > 1:
        # all whole chunks are computed together; only the first and the last can be incomplete
        first = sizes[0] if sizes[0] < design.chunk else 0
        sizes = [first, num_whole * design.chunk, num_tokens - first - num_whole * design.chunk]
    outputs = []
    for size, here in zip(sizes, split_tokens(tokens, sizes), strict=True):
        if size > design.chunk:
            in_chunks = tree.map(lambda x: x.unflatten(2, (-1, design.chunk)), here)
            whole = fla.chunks if design.backend == "fla" else matrix.chunks
            y, memory = whole(in_chunks, memory, base, design)
            outputs.append(y.flatten(2, 3))
        elif size > 0:
            y, memory = form.chunk(here, memory, base, design)
            outputs.append(y)
    return torch.cat(outputs, dim=2), memory


def split_tokens(tokens: Tokens, sizes: Sequence[int]) -> Iterator[Tokens]:
    """Split tokens along the sequence into parts of the given sizes."""
    q, k, v, (rate, log_retention, log_momentum) = tokens
    # split at once: the gradient of slicing one chunk is a full-length tensor of zeros for every chunk
    parts = (x.split(list(sizes), dim=2) for x in (q, k, v, rate, log_retention))
    momenta = [None] * len(sizes) if log_momentum is None else log_momentum.split(list(sizes), dim=2)
    for momentum, (q, k, v, rate, log_retention) in zip(momenta, zip(*parts, strict=True), strict=True):
        yield Tokens(q, k, v, Gates(rate, log_retention, momentum))
