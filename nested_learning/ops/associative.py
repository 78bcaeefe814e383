"""Associative memories over a sequence: `naive_associative` for every design, on the backend that the design names."""

from nested_learning.ops import fused
from nested_learning.ops.chunked import chunked, closed_form, is_matrix
from nested_learning.ops.memory import Design, Memory, Tokens, Weights
from nested_learning.shapes import Float, Tensor


def associative(
    tokens: Tokens, memory: Memory, base: Weights | None, design: Design
) -> tuple[Float[Tensor, "b h t o"], Memory]:
    """Write every token and read after it; exact to rounding, however the sequence is split into calls.

    Memories of several layers, or with a norm, learn with gradients at the start of the chunk: no closed form is known
    for their gradients at each token, which `chunk=1` gives.
    """
    if design.backend == "cpp" and is_matrix(memory.weight, design):
        return fused.matrix_memory(tokens, memory, base, design)
    return chunked(tokens, memory, base, design)


def chunk_update(tokens: Tokens, memory: Memory, base: Weights | None, design: Design) -> Memory:
    """Return the memory after tokens that lie in one chunk; queries are not read."""
    if design.backend == "cpp" and is_matrix(memory.weight, design):
        return fused.matrix_memory(tokens, memory, base, design, read=False)[1]
    return closed_form(memory.weight, design).chunk_update(tokens, memory, base, design)
