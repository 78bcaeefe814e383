"""Deep memories in closed form: the dual form of an MLP that learns with gradients at the start of its chunk.

In every layer the gradient of a token has rank one, `h^T d`: the layer's input times the error at its output. With the
inputs H and errors D of a chunk as matrices, a read needs no weights of single tokens:
`x W_t = kept x W + pushed x S - ((x H^T) * written) D`.
"""

import torch
from torch.nn import functional as F

from nested_learning.ops.gates import Decays, shifted
from nested_learning.ops.matrix import solve_errors
from nested_learning.ops.memory import (
    Design,
    Memory,
    Tokens,
    Weights,
    apply_memory,
    full_weights,
    gradient_limit,
    limits_gradients,
)
from nested_learning.ops.steps import steps
from nested_learning.shapes import Float, Tensor

EPS = 1e-5


def chunk(
    tokens: Tokens, memory: Memory, base: Weights | None, design: Design
) -> tuple[Float[Tensor, "b h c o"], Memory]:
    """`naive_associative` with `gradient="chunk"` for tokens of one chunk, at once.

    Source: the dual form of TTT (arXiv 2407.04620, section 2.5); gates, momentum, decay and depth are ours.
    """
    decays = steps(design.backend).unroll(tokens.gates)
    inputs, errors = learn(tokens, decays, memory, base, design)
    if design.read == "chunk":
        y = apply_memory(tokens.q, full_weights(base, memory.reference), design)
    else:
        y = read_chunk(tokens.q, inputs, errors, decays, memory, base, design)
    return y, write_chunk(inputs, errors, decays, memory, design)


def chunk_update(tokens: Tokens, memory: Memory, base: Weights | None, design: Design) -> Memory:
    """Return the memory after the tokens of one chunk, like `chunk`; queries are not read."""
    decays = steps(design.backend).unroll(tokens.gates)
    return write_chunk(*learn(tokens, decays, memory, base, design), decays, memory, design)


def learn(
    tokens: Tokens, decays: Decays, memory: Memory, base: Weights | None, design: Design
) -> tuple[Weights, Weights]:
    """Return the input `h` and the error `d` of every layer: its update is `W_t = a_t W_{t-1} - r_t h_t^T d_t`."""
    inputs, errors = backpropagate(tokens.k, tokens.v, full_weights(base, memory.reference), design)
    if limits_gradients(memory.weight, design):
        # the gradient h^T d has the product of their norms
        errors = tuple(
            d * gradient_limit(h.norm(dim=-1, keepdim=True) * d.norm(dim=-1, keepdim=True))
            for h, d in zip(inputs, errors, strict=True)
        )
    if design.erase:
        errors = (erase(tokens.k, errors[0], decays, memory, base, design), *errors[1:])
    return inputs, errors


def backpropagate(
    k: Float[Tensor, "b h c i"], v: Float[Tensor, "b h c o"], weights: Weights, design: Design
) -> tuple[Weights, Weights]:
    """Return the input `h` of every layer and the error `d` at its output; the layer's gradient is `h^T d`."""
    # `gradient="chunk"`: all tokens use the weights of the chunk's start, so that this is one ordinary forward pass
    inputs, outputs = [k], [k @ weights[0]]
    for weight in weights[1:]:
        inputs.append(F.gelu(outputs[-1]))
        outputs.append(inputs[-1] @ weight)
    last = outputs[-1]
    if design.objective == "dot":
        d = -v
    else:
        d = (F.layer_norm(last, last.shape[-1:], eps=EPS) if design.norm else last) - v
        # M(k) = k + z: the input is part of the output, and so of the error
        d = d + k if design.residual else d
    if design.norm:
        d = norm_backward(d, last)
    errors = [d]
    # not by autograd, which would return sums over tokens, and whose graph would have to be differentiated again
    for weight, output in zip(weights[:0:-1], outputs[-2::-1], strict=True):
        errors.append(torch.ops.aten.gelu_backward(errors[-1] @ weight.mT, output))
    return tuple(inputs), tuple(reversed(errors))


def norm_backward(gradient: Float[Tensor, "*n d"], x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """Return the gradient at the input of a layer norm, from that at its output."""
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + EPS).rsqrt()
    z = centred * scale
    return scale * (gradient - gradient.mean(-1, keepdim=True) - z * (gradient * z).mean(-1, keepdim=True))


def erase(
    k: Float[Tensor, "b h c i"],
    d: Float[Tensor, "b h c o"],
    decays: Decays,
    memory: Memory,
    base: Weights | None,
    design: Design,
) -> Float[Tensor, "b h c o"]:
    """Return `k_t W_{t-1} + d_t`: delta gradient descent also removes what the first layer returns for the key."""
    # d comes from the chunk's start, the erasure from the weights just before each token: a triangular system, as in
    # ops/matrix.py
    right = d + shifted(decays.kept, 1.0)[..., None] * (k @ memory.weight[0])
    if decays.momentum is not None:
        right = right + shifted(decays.momentum.pushed, 0.0)[..., None] * (k @ memory.momentum[0])
    if base is not None:
        right = right + k @ base[0]
    return solve_errors(k, decays.written, right, design)


def read_chunk(
    q: Float[Tensor, "b h c i"],
    inputs: Weights,
    errors: Weights,
    decays: Decays,
    memory: Memory,
    base: Weights | None,
    design: Design,
) -> Float[Tensor, "b h c o"]:
    """Return the memory's output for each query, from the weights just after the query's own token."""
    z = q
    for layer, (h, d, weight) in enumerate(zip(inputs, errors, memory.weight, strict=True)):
        x = F.gelu(z) if layer else q
        # each query passes through the weights of its own token: the decayed start minus the updates up to it
        z = decays.kept[..., None] * (x @ weight) - ((x @ h.mT) * decays.written) @ d
        if decays.momentum is not None:
            z = z + decays.momentum.pushed[..., None] * (x @ memory.momentum[layer])
        if base is not None:
            z = z + x @ base[layer]
    if design.norm:
        z = F.layer_norm(z, z.shape[-1:], eps=EPS)
    return q + z if design.residual else z


def write_chunk(inputs: Weights, errors: Weights, decays: Decays, memory: Memory, design: Design) -> Memory:
    """Return the memory after the last token."""
    reference, weight, momentum, position = memory
    kept, written = decays.kept[..., -1, None, None], decays.written[..., -1, :, None]
    now = [kept * w - (h * written).mT @ d for w, h, d in zip(weight, inputs, errors, strict=True)]
    if decays.momentum is not None:
        pushed = decays.momentum.pushed[..., -1, None, None]
        now = [w + pushed * s for w, s in zip(now, momentum, strict=True)]
        kept, written = decays.momentum.kept[..., None, None], decays.momentum.written[..., None]
        momentum = tuple(kept * s - (h * written).mT @ d for s, h, d in zip(momentum, inputs, errors, strict=True))
    # at the end of a chunk the next one begins: gradients are then taken at the new weights
    position = (position + errors[0].shape[2]) % design.chunk
    return Memory(reference if position else tuple(now), tuple(now), momentum, position)
