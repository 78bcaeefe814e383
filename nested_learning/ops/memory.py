"""Associative memories: what a memory is, and how it learns while tokens are read.

A memory `M` maps keys to values. Its weights are the state: every row of the batch and every head has its own. It is a
matrix, `M(x) = x W`, or an MLP of several layers, `M(x) = x + gelu(x W_1) W_2`. A token is a row vector.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional as F

from nested_learning.ops.gates import Gates
from nested_learning.shapes import Float, Tensor

# one matrix `[b h in out]` per layer
Weights = tuple[Tensor, ...]

# the largest norm of a token's gradient in one layer of a deep memory. One that follows its targets, which are unit
# vectors, has gradients of norm 1 and less
MAX_GRADIENT = 4.0


class Tokens(NamedTuple):
    """Queries, keys and values of `t` tokens, split into heads, and the gates that they are written with.

    In closed forms over whole chunks, `t` becomes two dimensions: `n` chunks of `c` tokens.
    """

    q: Float[Tensor, "b h *t i"]
    k: Float[Tensor, "b h *t i"]
    v: Float[Tensor, "b h *t o"]
    gates: Gates


@dataclass(frozen=True)
class Design:
    """How a memory learns: the choices of Nested Learning (arXiv 2512.24695, section 3) and Miras (arXiv 2504.13173).

    `objective`: the inner loss, "l2", `1/2 |M(k) - v|^2`, or "dot", `-<M(k), v>`. `erase`: whether a write also removes
    what the first layer returns for the key; True is delta gradient descent (DGD), False gradient descent. `gradient`:
    taken at the weights just before each "token", or at the weights of the start of its "chunk". `read`: from the
    weights just after each "token", or from those of the start of its "chunk". `residual`: whether M adds its input to
    its output; `norm`: whether the output is normalised before that. `chunk`: tokens per chunk; if `gradient` and
    `read` are both "token" it does not change the result. `backend`: the implementation, "eager" (torch) or another of
    ops/backend.py; results are the same to rounding. `recompute`: whether the backward pass of a matrix memory
    recomputes spans of chunks instead of storing them ("cpp" always does).
    """

    objective: str
    erase: bool
    gradient: str
    read: str
    residual: bool
    norm: bool
    chunk: int
    backend: str = "eager"
    recompute: bool = False

    @property
    def reads_chunk_start(self) -> bool:
        """Say whether the error of a write holds `k W` at the weights of the chunk's start."""
        return self.objective == "l2" and self.gradient == "chunk"

    @property
    def num_reads(self) -> int:
        """Count the terms `k W` in the error of a write: one for the l2 loss, one for the erasure of DGD."""
        return (self.objective == "l2") + self.erase

    @property
    def num_erasures(self) -> int:
        """Count those of `num_reads` that use the weights just before the token, and so erase what they hold."""
        return self.num_reads - self.reads_chunk_start


class Memory(NamedTuple):
    """The state of a memory, per row and head.

    `reference`: the weights at the start of the current chunk; `weight`: the weights now, `position` tokens later;
    `momentum`: that of every layer, or an empty tuple.
    """

    reference: Weights
    weight: Weights
    momentum: Weights
    position: int


def init_memory(weight: Weights, *, momentum: bool) -> Memory:
    """Return a memory with these weights that has not read anything."""
    return Memory(weight, weight, tuple(torch.zeros_like(w) for w in weight) if momentum else (), 0)


def end_context(memory: Memory) -> Memory:
    """Return `memory` for the next document: the weights stay, and the document begins with a new chunk."""
    return memory._replace(reference=memory.weight, position=0)


def full_weights(base: Weights | None, written: Weights) -> Weights:
    """Return the weights that a memory computes with: `base + written`, or `written` alone where there is no base."""
    return written if base is None else tuple(b + w for b, w in zip(base, written, strict=True))


def limits_gradients(weights: Weights, design: Design) -> bool:
    """Say whether the gradient of each token is limited: in a memory of several layers whose output has no norm.

    Its layers multiply each other: where the writes of a chunk go past their target, so does each layer's gradient, and
    more in each chunk. A norm bounds the error itself.
    """
    return len(weights) > 1 and not design.norm


def gradient_limit(norm: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return the factor that makes gradients of this `norm` at most `MAX_GRADIENT` long; 1 for most of them."""
    return MAX_GRADIENT / norm.clamp(min=MAX_GRADIENT)


def apply_memory(x: Float[Tensor, "*n i"], weights: Weights, design: Design) -> Float[Tensor, "*n o"]:
    """Return `M(x)`. Source: Nested Learning, arXiv 2512.24695, equation 89; the norm is that of TTT, 2407.04620."""
    z = x @ weights[0]
    for weight in weights[1:]:
        z = F.gelu(z) @ weight
    if design.norm:
        z = F.layer_norm(z, z.shape[-1:])
    return x + z if design.residual else z


def loss(weights: Weights, k: Float[Tensor, "*n i"], v: Float[Tensor, "*n o"], design: Design) -> Float[Tensor, ""]:
    """Return the inner loss of storing `v` at `k`, summed over all tokens (Nested Learning, section 3.1)."""
    if design.objective == "dot":
        return -(apply_memory(k, weights, design) * v).sum()
    return (apply_memory(k, weights, design) - v).square().sum() / 2


def naive_associative(
    tokens: Tokens, memory: Memory, base: Weights | None, design: Design
) -> tuple[Float[Tensor, "b h t o"], Memory]:
    """`S_t = m_t S_{t-1} - r_t (grad loss [+ k_t^T k_t W_{t-1}])`, `W_t = a_t W_{t-1} + S_t`, `y_t = M(q_t; W_t)`.

    Source: Titans (arXiv 2501.00663, equations 13-15), with `a = 1 - alpha`; the term in brackets is delta gradient
    descent (Nested Learning, arXiv 2512.24695, equations 56-57 and 88), of the first layer. Without momentum S is the
    update alone. Retention multiplies the state only: with a `base`, what was written on it; without, all the weights.
    In a deep memory each layer's gradient of a token is at most `MAX_GRADIENT` long (ours).
    """
    reference, weight, momentum, position = memory
    gates, outputs = tokens.gates, []
    for t in range(tokens.q.shape[2]):
        q, k, v = (x[:, :, t, None] for x in tokens[:3])
        rate, retention = gates.rate[:, :, t, None, None], gates.log_retention[:, :, t, None, None].exp()
        point = full_weights(base, reference if design.gradient == "chunk" else weight)
        updates = list(torch.func.grad(loss)(point, k, v, design))
        if limits_gradients(point, design):
            updates = [u * gradient_limit(u.norm(dim=(-2, -1), keepdim=True)) for u in updates]
        if design.erase:
            updates[0] = updates[0] + k.mT @ (k @ full_weights(base, weight)[0])
        steps = tuple(-rate * update for update in updates)
        if gates.log_momentum is not None:
            keep = gates.log_momentum[:, :, t, None, None].exp()
            steps = momentum = tuple(keep * s + step for s, step in zip(momentum, steps, strict=True))
        weight = tuple(retention * w + step for w, step in zip(weight, steps, strict=True))
        outputs.append(apply_memory(q, full_weights(base, reference if design.read == "chunk" else weight), design))
        position += 1
        if position == design.chunk:
            reference, position = weight, 0
    return torch.cat(outputs, dim=2), Memory(reference, weight, momentum, position)


def chunk_sizes(num_tokens: int, chunk: int, position: int) -> list[int]:
    """Split `num_tokens` where chunks end; the first chunk already holds `position` tokens of earlier calls."""
    first = min(chunk - position, num_tokens)
    whole, last = divmod(num_tokens - first, chunk)
    return [first] + [chunk] * whole + [last] * (last > 0)
