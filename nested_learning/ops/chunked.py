"""A memory that reads a sequence, in torch: `naive_associative` of every design, computed chunk by chunk."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import torch

from nested_learning import tree
from nested_learning.ops import deep, fla, matrix
from nested_learning.ops.gates import Gates
from nested_learning.ops.memory import Design, Memory, Weights, chunk_sizes
from nested_learning.ops.recompute import recomputed, stretches
from nested_learning.shapes import Float, Tensor


def is_matrix(weights: Weights, design: Design) -> bool:
    """Say whether a memory is a matrix, whose every design has a closed form."""
    return len(weights) == 1 and not design.norm


def closed_form(weights: Weights, design: Design) -> ModuleType:
    """Return the module whose `piece` computes this design."""
    if is_matrix(weights, design):
        return matrix
    assert design.gradient == "chunk", "a deep memory has no closed form with gradients of each token"
    return deep


def chunked(
    q: Float[Tensor, "b h t i"],
    k: Float[Tensor, "b h t i"],
    v: Float[Tensor, "b h t o"],
    gates: Gates,
    memory: Memory,
    base: Weights | None,
    design: Design,
) -> tuple[Float[Tensor, "b h t o"], Memory]:
    """Write every token and read after it; exact to rounding, whatever calls the sequence is cut into.

    Memories of several layers, or with a norm, learn with the gradients of the chunk's start: no closed form is known
    for their token rule, which is the case `chunk=1`. Source: ours.
    """
    form = closed_form(memory.weight, design)
    sizes = chunk_sizes(q.shape[2], design.chunk, memory.place)
    if form is deep and len(sizes) > 1:

        def step(here: Any, memory: Memory, base: Weights | None) -> tuple[Tensor, Memory]:
            q, k, v, gates = here
            return deep.piece(q, k, v, gates, memory, base, design)

        return recomputed(step, sizes, (q, k, v, gates), memory, base)
    if design.recompute and len(sizes) > 1:
        plain = replace(design, recompute=False)

        def read_on(here: Any, memory: Memory, base: Weights | None) -> tuple[Tensor, Memory]:
            q, k, v, gates = here
            return chunked(q, k, v, gates, memory, base, plain)

        return recomputed(read_on, stretches(sizes), (q, k, v, gates), memory, base)
    num_whole = sizes.count(design.chunk)
    if form is matrix and num_whole > 1:
        # the chunks that are whole lie side by side: at most the first and the last are not
        ragged = sizes[0] if sizes[0] < design.chunk else 0
        sizes = [ragged, num_whole * design.chunk, q.shape[2] - ragged - num_whole * design.chunk]
    outputs = []
    # split at once: the gradient of slicing chunk by chunk would fill the whole sequence with zeros for each chunk
    parts = (x.split(sizes, dim=2) for x in (q, k, v, gates.rate, gates.log_retention))
    momenta = [None] * len(sizes) if gates.log_momentum is None else gates.log_momentum.split(sizes, dim=2)
    for size, momentum, (q_here, k_here, v_here, rate, retention) in zip(
        sizes, momenta, zip(*parts, strict=True), strict=True
    ):
        here = (q_here, k_here, v_here, Gates(rate, retention, momentum))
        if size > design.chunk:
            q_in, k_in, v_in, gates_in = tree.map(lambda x: x.unflatten(2, (-1, design.chunk)), here)
            whole = fla.chunks if design.backend == "fla" else matrix.chunks
            y, memory = whole(q_in, k_in, v_in, gates_in, memory, base, design)
            outputs.append(y.flatten(2, 3))
        elif size > 0:
            y, memory = form.piece(*here, memory, base, design)
            outputs.append(y)
    return torch.cat(outputs, dim=2), memory
