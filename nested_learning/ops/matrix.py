"""Matrix memories, whole chunks at once: exact for every design, with at most one triangular solve per chunk.

The update of token t is `k_t^T e_t` with the error `e_t = n k_t W_{t-1} + s_t`: `n` is the number of erasures (0, 1 or
2) and `s_t` does not depend on earlier writes of the chunk. So the errors of a chunk solve one unit-lower-triangular
system, `(I + n X) E = n K W + S`, and everything else follows from them by matrix products.
"""

import torch

from nested_learning.ops.gates import Decays, shifted, shifted_rows
from nested_learning.ops.memory import Design, Memory, Tokens, Weights
from nested_learning.ops.steps import steps
from nested_learning.shapes import Float, Tensor


def chunk(
    tokens: Tokens, memory: Memory, base: Weights | None, design: Design
) -> tuple[Float[Tensor, "b h c o"], Memory]:
    """`naive_associative` for tokens of one chunk, at once; earlier calls may have read the chunk's first tokens.

    Source: without momentum, the WY form of DeltaNet (arXiv 2406.06484) with decay; momentum is ours.
    """
    decays = steps(design.backend).unroll(tokens.gates)
    errors = chunk_errors(tokens, decays, memory, base, design)
    y = read_chunk(tokens, decays, errors, memory, design)
    # the base is never decayed or written: its part of the output is one plain product
    return y if base is None else y + tokens.q @ base[0], write_chunk(tokens.k, decays, errors, memory, design)


def chunk_update(tokens: Tokens, memory: Memory, base: Weights | None, design: Design) -> Memory:
    """Return the memory after the tokens of one chunk, like `chunk`; queries are not read."""
    decays = steps(design.backend).unroll(tokens.gates)
    errors = chunk_errors(tokens, decays, memory, base, design)
    return write_chunk(tokens.k, decays, errors, memory, design)


def chunk_errors(
    tokens: Tokens, decays: Decays, memory: Memory, base: Weights | None, design: Design
) -> Float[Tensor, "b h c o"]:
    """Return the errors `e_t` of the tokens of one chunk."""
    k, n = tokens.k, design.num_erasures
    right = constant_errors(k, tokens.v, base, design)
    if n:
        # what the chunk's start contributes to k_t W_{t-1}: its weights, and its momentum, which moves into the weights
        right = right + n * shifted(decays.kept, 1.0)[..., None] * (k @ memory.weight[0])
        if decays.momentum is not None:
            right = right + n * shifted(decays.momentum.pushed, 0.0)[..., None] * (k @ memory.momentum[0])
    # the read of the l2 gradient, at the weights of the chunk's start: in the middle of a chunk they are not `weight`
    if design.reads_chunk_start:
        right = right + k @ memory.reference[0]
    return solve_errors(k, decays.written, right, design)


def constant_errors(
    k: Float[Tensor, "*n c i"], v: Float[Tensor, "*n c o"], base: Weights | None, design: Design
) -> Float[Tensor, "*n c o"]:
    """Return the part of the errors that does not depend on the state: the values, and the reads of `base`."""
    return -v if base is None else k @ base[0] * design.num_reads - v


def solve_errors(
    k: Float[Tensor, "*n c i"], written: Float[Tensor, "*n c c"], right: Float[Tensor, "*n c o"], design: Design
) -> Float[Tensor, "*n c o"]:
    """Solve `(I + n X) E = right` for the errors of the chunk, `X[t, i] = k_t k_i^T written[t-1, i]`."""
    if design.num_erasures == 0:
        return right
    # the error of token t holds every earlier error i: k_t meets the update k_i^T e_i, decayed up to token t-1
    system = (k @ k.mT) * shifted_rows(written) * design.num_erasures
    return steps(design.backend).solve(system, right)


def read_chunk(
    tokens: Tokens, decays: Decays, errors: Float[Tensor, "b h c o"], memory: Memory, design: Design
) -> Float[Tensor, "b h c o"]:
    """Return the reads of the queries: from the weights after their own token's write, or from the chunk's start."""
    q, k = tokens.q, tokens.k
    if design.read == "chunk":
        return q @ memory.reference[0]
    # q_t W_t without forming W_t: the decayed start, minus linear attention over the errors written so far
    y = decays.kept[..., None] * (q @ memory.weight[0]) - ((q @ k.mT) * decays.written) @ errors
    return y if decays.momentum is None else y + decays.momentum.pushed[..., None] * (q @ memory.momentum[0])


def write_chunk(
    k: Float[Tensor, "b h c i"], decays: Decays, errors: Float[Tensor, "b h c o"], memory: Memory, design: Design
) -> Memory:
    """Return the memory after the last token."""
    # the last rows of the decays: what is left at the end of the start's weights and of each token's update
    reference, (weight,), momentum, position = memory
    weight_now = decays.kept[..., -1, None, None] * weight - (k * decays.written[..., -1, :, None]).mT @ errors
    if decays.momentum is not None:
        (speed,) = momentum
        weight_now = weight_now + decays.momentum.pushed[..., -1, None, None] * speed
        speed = decays.momentum.kept[..., None, None] * speed - (k * decays.momentum.written[..., None]).mT @ errors
        momentum = (speed,)
    position = (position + k.shape[2]) % design.chunk
    return Memory(reference if position else (weight_now,), (weight_now,), momentum, position)


def chunks(
    tokens: Tokens, memory: Memory, base: Weights | None, design: Design
) -> tuple[Float[Tensor, "b h n c o"], Memory]:
    """`chunk` for `n` whole chunks; everything that does not depend on the state is computed for all chunks together.

    The errors are linear in the state Z = [W; S] of the chunk's start, `E = A Z + B`. A and B are solved for before the
    loop over chunks, which is left with two products per chunk.
    """
    q, k = tokens.q, tokens.k
    decays = steps(design.backend).unroll(tokens.gates)
    # the base is [h i o]: one more dimension, to broadcast over chunks
    over_chunks = None if base is None else (base[0][..., None, :, :],)
    read_keys, constant = linear_errors(k, constant_errors(k, tokens.v, over_chunks, design), decays, design)
    # keys times what is left of their writes at the end of the chunk: the update of a chunk is -write_keys^T E
    write_keys = k * decays.written[..., -1, :, None]
    ends = decays.kept[..., -1, None, None]
    if decays.momentum is None:
        starts, errors, end = steps(design.backend).scan(read_keys, constant, write_keys, ends, memory.weight[0])
        queries = decays.kept[..., None] * q
        after = Memory((end,), (end,), (), 0)
    else:
        # the same scan over the stacked state [W; S], which has twice the rows of W
        extra = decays.momentum
        write_keys = torch.cat([write_keys, k * extra.written[..., None]], dim=-1)
        ends = torch.stack([ends, extra.pushed[..., -1, None, None], extra.kept[..., None, None]])
        start = torch.cat([memory.weight[0], memory.momentum[0]], dim=-2)
        starts, errors, end = steps(design.backend).scan_with_momentum(read_keys, constant, write_keys, ends, start)
        queries = torch.cat([decays.kept[..., None] * q, extra.pushed[..., None] * q], dim=-1)
        weight, momentum = end.chunk(2, dim=-2)
        after = Memory((weight,), (weight,), (momentum,), 0)
    if design.read == "chunk":
        # the first rows of [W; S] are W
        y = q @ starts[..., : q.shape[-1], :]
    else:
        y = queries @ starts - ((q @ k.mT) * decays.written) @ errors
    return y if over_chunks is None else y + q @ over_chunks[0], after


def linear_errors(
    k: Float[Tensor, "*n c i"], constant: Float[Tensor, "*n c o"], decays: Decays, design: Design
) -> tuple[Float[Tensor, "*n c z"] | None, Float[Tensor, "*n c o"]]:
    """Return A and B of the errors `A [W; S] + B`; A is None where the errors do not depend on the state."""
    n = design.num_erasures
    if design.num_reads == 0:
        return None, constant
    # a whole chunk starts at its reference, so that both kinds of reads are of W and their coefficients add up
    of_weight = (n * shifted(decays.kept, 1.0) + int(design.reads_chunk_start))[..., None] * k
    if decays.momentum is not None:
        of_momentum = n * shifted(decays.momentum.pushed, 0.0)[..., None] * k
        of_weight = torch.cat([of_weight, of_momentum], dim=-1)
    # one solve for A and B, concatenated as right-hand sides
    solved = solve_errors(k, decays.written, torch.cat([of_weight, constant], dim=-1), design)
    return solved.split([of_weight.shape[-1], constant.shape[-1]], dim=-1)
