"""Associative memories: what one is, and how it learns while it reads, as the equations say it.

A memory `M` maps keys to values by its weights, one private set per row and head. It is a matrix, `M(x) = x W`, or an
MLP of several layers, `M(x) = x + gelu(x W_1) W_2`. Row convention: a token is a row, a read is `q W`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional as F

from nested_learning.ops.gates import Gates
from nested_learning.shapes import Float, Tensor

# one matrix `[b h in out]` a layer
Weights = tuple[Tensor, ...]


@dataclass(frozen=True)
class Design:
    """How a memory learns (Nested Learning, arXiv 2512.24695, section 3, and Miras, arXiv 2504.13173: four choices).

    `objective`: "l2", `1/2 |M(k) - v|^2`, or "dot", `-<M(k), v>`. `rule`: "gd", gradient descent, or "dgd", delta
    gradient descent, which also erases what the first layer holds along the key. `gradient`: taken at the weights that
    each "token" finds, or at those of the start of its "chunk". `read`: from the weights that each "token" leaves, or
    from those of the start of its "chunk". `residual`: whether M adds its input to its output; `norm`: whether the
    output is normalised before that. `chunk`: its tokens; with "token" twice it has no effect on the result. `backend`:
    what computes it, the same to rounding: "eager" (torch), or one of ops/backend.py. `recompute`: whether the backward
    pass of a matrix computes stretches of chunks again instead of keeping them (where "cpp" does not do so anyway).
    """

    objective: str
    rule: str
    gradient: str
    read: str
    residual: bool
    norm: bool
    chunk: int
    backend: str = "eager"
    recompute: bool = False

    @property
    def erasures(self) -> int:
        """Count how many times a write takes away what a matrix memory answers to its key just before it."""
        return (self.rule == "dgd") + (self.objective == "l2" and self.gradient == "token")


class Memory(NamedTuple):
    """A memory's weights at the start of the chunk, and now, `place` tokens later; its momentum, if it has any."""

    reference: Weights
    weight: Weights
    momentum: Weights
    place: int


def fresh(weight: Weights, *, momentum: bool) -> Memory:
    """Return a memory of these weights that has not read anything."""
    return Memory(weight, weight, tuple(torch.zeros_like(w) for w in weight) if momentum else (), 0)


def rest(memory: Memory) -> Memory:
    """Return `memory` as another text finds it: what is written stays, and the text begins with a chunk."""
    return memory._replace(reference=memory.weight, place=0)


def add(base: Weights | None, written: Weights) -> Weights:
    """Return the weights of a memory whose state is what was written on `base` (None: the weights themselves)."""
    return written if base is None else tuple(b + w for b, w in zip(base, written, strict=True))


def answer(x: Float[Tensor, "*n i"], weights: Weights, design: Design) -> Float[Tensor, "*n o"]:
    """Return `M(x)`. Source: Nested Learning, arXiv 2512.24695, equation 89; the norm is that of TTT, 2407.04620."""
    z = x @ weights[0]
    for weight in weights[1:]:
        z = F.gelu(z) @ weight
    if design.norm:
        z = F.layer_norm(z, z.shape[-1:])
    return x + z if design.residual else z


def loss(weights: Weights, k: Float[Tensor, "*n i"], v: Float[Tensor, "*n o"], design: Design) -> Float[Tensor, ""]:
    """Return the inner loss of writing `v` at `k`, summed over everything (Nested Learning, section 3.1)."""
    if design.objective == "dot":
        return -(answer(k, weights, design) * v).sum()
    return (answer(k, weights, design) - v).square().sum() / 2


def naive_associative(
    q: Float[Tensor, "b h t i"],
    k: Float[Tensor, "b h t i"],
    v: Float[Tensor, "b h t o"],
    gates: Gates,
    memory: Memory,
    base: Weights | None,
    design: Design,
) -> tuple[Float[Tensor, "b h t o"], Memory]:
    """`S_t = m_t S_{t-1} - r_t (grad loss [+ k_t^T k_t W_{t-1}])`, `W_t = a_t W_{t-1} + S_t`, `y_t = M(q_t; W_t)`.

    Source: Titans (arXiv 2501.00663, equations 13-15), with `a = 1 - alpha`; the term in brackets is delta gradient
    descent (Nested Learning, arXiv 2512.24695, equations 56-57 and 88), of the first layer. Without momentum S is the
    update alone. What retention multiplies is the state, which stands on `base`: all the weights where there is none.
    """
    reference, weight, momentum, place = memory
    outputs = []
    for t in range(q.shape[2]):
        qt, kt, vt = (x[:, :, t, None] for x in (q, k, v))
        rate, retention = gates.rate[:, :, t, None, None], gates.log_retention[:, :, t, None, None].exp()
        learnt_at = add(base, reference if design.gradient == "chunk" else weight)
        updates = list(torch.func.grad(loss)(learnt_at, kt, vt, design))
        if design.rule == "dgd":
            updates[0] = updates[0] + kt.mT @ (kt @ add(base, weight)[0])
        steps = tuple(-rate * update for update in updates)
        if gates.log_momentum is not None:
            keep = gates.log_momentum[:, :, t, None, None].exp()
            steps = momentum = tuple(keep * s + step for s, step in zip(momentum, steps, strict=True))
        weight = tuple(retention * w + step for w, step in zip(weight, steps, strict=True))
        outputs.append(answer(qt, add(base, reference if design.read == "chunk" else weight), design))
        place += 1
        if place == design.chunk:
            reference, place = weight, 0
    return torch.cat(outputs, dim=2), Memory(reference, weight, momentum, place)


def chunk_sizes(num_tokens: int, chunk: int, place: int) -> list[int]:
    """Cut `num_tokens` where chunks end, `place` tokens of the first having been read before."""
    first = min(chunk - place, num_tokens)
    whole, rest = divmod(num_tokens - first, chunk)
    return [first] + [chunk] * whole + [rest] * (rest > 0)
