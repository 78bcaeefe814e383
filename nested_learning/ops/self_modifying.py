"""Memories that generate what they write: keys, values, rates, retentions and targets come out of themselves.

A head's memories are the columns of one matrix `[k v]`, `v = 3 k + 4`: those that generate keys (k columns), values (k)
and gates (4), then the one that is read (k). Its meta-learned part is `meta`; what a row wrote on it is the state. The
gates are a rate and a retention for the memories that generate, and a rate and a retention for the one that is read.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from nested_learning.ops.fast_weights import delta, delta_write
from nested_learning.shapes import Float, Tensor

# The delta rule goes towards half of a target (see `self_modifying`): at norm 2 that half is the memory's answer to a
# unit vector, which rewriting a memory again and again cannot make grow.
VALUE_NORM = 2.0
NUM_GATES = 4


class Written(NamedTuple):
    """What was written on the meta-learned weights: at the start of the chunk, and up to now, `place` tokens later."""

    start: Float[Tensor, "b h k v"]
    now: Float[Tensor, "b h k v"]
    place: int


class Gates(NamedTuple):
    """How strongly tokens write, in (0, 1), and the logarithm of how much they keep."""

    rate: Float[Tensor, "b h c"]
    log_retention: Float[Tensor, "b h c"]


class Generated(NamedTuple):
    """What tokens write: keys, targets for all memories, and gates for those that generate and for the one read."""

    key: Float[Tensor, "b h c k"]
    target: Float[Tensor, "b h c v"]
    generating: Gates
    read: Gates


def generate(
    x_key: Float[Tensor, "b h c k"],
    x_value: Float[Tensor, "b h c k"],
    weight: Float[Tensor, "b h k v"],
    gate_bias: Float[Tensor, "h 4"],
) -> Generated:
    """Generate what the tokens write (Nested Learning, arXiv 2512.24695, equations 83-84 and 86-87).

    `x_key` is the tokens' view for keys and gates, `x_value` the one for values. Keys are normalised, as in the paper;
    so are the values that generate targets, to `VALUE_NORM` (ours).
    """
    dim = x_key.shape[-1]
    key_weight, value_weight, gate_weight, _ = weight.split([dim, dim, NUM_GATES, dim], dim=-1)
    k, v = x_key @ key_weight, x_value @ value_weight
    gates = (x_key @ gate_weight + gate_bias[:, None]).unbind(-1)
    generating, read = (Gates(rate.sigmoid(), F.logsigmoid(keep)) for rate, keep in (gates[:2], gates[2:]))
    return Generated(F.normalize(k, dim=-1), VALUE_NORM * F.normalize(v, dim=-1) @ weight, generating, read)


def naive_self_modifying(
    x_key: Float[Tensor, "b h t k"],
    x_value: Float[Tensor, "b h t k"],
    q: Float[Tensor, "b h t k"],
    meta: Float[Tensor, "h k v"],
    gate_bias: Float[Tensor, "h 4"],
    state: Written,
    chunk: int,
) -> tuple[Float[Tensor, "b h t k"], Written]:
    """`W_t = W_{t-1} (a_t - eta_t k_t k_t^T) - eta_t grad |W_{t-1} k_t - target_t|^2 / 2`, `y_t = W_t q_t`.

    Source: Nested Learning, equation 88 for matrix memories (93), what is written generated at the chunk's start (90);
    here tokens are rows. Ours: the retention `a_t` draws back to `meta`, not to zero, so that what a row forgets is
    what it wrote, never the projections; and the memories that generate have gates of their own.
    """
    start, now, place = state
    dim = q.shape[-1]
    outputs = []
    for t in range(q.shape[2]):
        token = slice(t, t + 1)
        k, target, generating, read = generate(x_key[:, :, token], x_value[:, :, token], meta + start, gate_bias)
        eta = per_column(generating.rate, read.rate, dim)
        retention = per_column(generating.log_retention.exp(), read.log_retention.exp(), dim)
        answer = k @ (meta + now)
        now = retention * now - k.mT @ (eta * answer) - k.mT @ (eta * (answer - target))
        outputs.append(q[:, :, token] @ (meta + now)[..., -dim:])
        place += 1
        if place == chunk:
            start, place = now, 0
    return torch.cat(outputs, dim=2), Written(start, now, place)


def chunk_sizes(num_tokens: int, chunk: int, place: int) -> list[int]:
    """Cut `num_tokens` where chunks end, `place` tokens of the first having been read before."""
    first = min(chunk - place, num_tokens)
    whole, rest = divmod(num_tokens - first, chunk)
    return [first] + [chunk] * whole + [rest] * (rest > 0)


def per_column(generating: Float[Tensor, "b h 1"], read: Float[Tensor, "b h 1"], dim: int) -> Float[Tensor, "b h 1 v"]:
    """Lay a token's two gates out over the columns of the memories."""
    return torch.cat([generating.expand(-1, -1, 2 * dim + NUM_GATES), read.expand(-1, -1, dim)], dim=-1)[:, :, None]


def self_modifying(
    x_key: Float[Tensor, "b h t k"],
    x_value: Float[Tensor, "b h t k"],
    q: Float[Tensor, "b h t k"],
    meta: Float[Tensor, "h k v"],
    gate_bias: Float[Tensor, "h 4"],
    state: Written,
    chunk: int,
) -> tuple[Float[Tensor, "b h t k"], Written]:
    """`naive_self_modifying`, a chunk at a time, exact to rounding; an earlier call may have begun the first chunk.

    Delta gradient descent and the gradient step are together the delta rule of rate `2 eta` towards `target / 2`;
    for `W - meta`, the target loses what the meta-learned weights already answer. Source: ours.
    """
    start, now, place = state
    columns = [meta.shape[-1] - q.shape[-1], q.shape[-1]]
    read_meta = meta[..., -q.shape[-1] :]
    outputs = []
    # split at once: the gradient of slicing chunk by chunk would fill the whole sequence with zeros for each chunk
    sizes = chunk_sizes(q.shape[2], chunk, place)
    for piece_key, piece_value, query in zip(*(x.split(sizes, dim=2) for x in (x_key, x_value, q)), strict=True):
        k, target, generating, read = generate(piece_key, piece_value, meta + start, gate_bias)
        generating_target, read_target = (target / 2 - k @ meta).split(columns, dim=-1)
        generating_now, read_now = now.split(columns, dim=-1)
        generating_now = delta_write(
            k, generating_target, 2 * generating.rate, generating.log_retention, generating_now
        )
        y, read_now = delta(query, k, read_target, 2 * read.rate, read.log_retention, read_now)
        outputs.append(query @ read_meta + y)
        now = torch.cat([generating_now, read_now], dim=-1)
        place += query.shape[2]
        if place == chunk:
            start, place = now, 0
    return torch.cat(outputs, dim=2), Written(start, now, place)
