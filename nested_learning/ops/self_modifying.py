"""Memories that generate what they write: keys, values, rates, retentions and targets come out of themselves.

A head's five memories are the columns of one matrix `[k v]`, `v = 3 k + 2`: keys (k columns), values (k), rate (1),
retention (1), and the memory that is read (k). `meta` is its meta-learned part, the state what a row wrote on it.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from nested_learning.ops.fast_weights import delta
from nested_learning.shapes import Float, Tensor

# The delta rule goes towards half of a target (see `self_modifying`): at norm 2 that half is the memory's answer to a
# unit vector, which rewriting a memory again and again cannot make grow.
VALUE_NORM = 2.0


class Written(NamedTuple):
    """What was written on the meta-learned weights: at the start of the chunk, and up to now, `place` tokens later."""

    start: Float[Tensor, "b h k v"]
    now: Float[Tensor, "b h k v"]
    place: int


class Generated(NamedTuple):
    """What tokens write: keys, rates in (0, 1), log retentions, and a target for each of the five memories."""

    key: Float[Tensor, "b h c k"]
    rate: Float[Tensor, "b h c"]
    log_retention: Float[Tensor, "b h c"]
    target: Float[Tensor, "b h c v"]


def generate(
    x_key: Float[Tensor, "b h c k"],
    x_value: Float[Tensor, "b h c k"],
    weight: Float[Tensor, "b h k v"],
    gate_bias: Float[Tensor, "h 2"],
) -> Generated:
    """Generate what the tokens write (Nested Learning, arXiv 2512.24695, equations 83-84 and 86-87).

    `x_key` is the tokens' view for keys and gates, `x_value` the one for values. Keys are normalised, as in the paper;
    so are the values that generate targets, to `VALUE_NORM` (ours).
    """
    dim = x_key.shape[-1]
    key_weight, value_weight, gate_weight, _ = weight.split([dim, dim, 2, dim], dim=-1)
    k, v = x_key @ key_weight, x_value @ value_weight
    rate, retention = (x_key @ gate_weight + gate_bias[:, None]).unbind(-1)
    target = VALUE_NORM * F.normalize(v, dim=-1) @ weight
    return Generated(F.normalize(k, dim=-1), rate.sigmoid(), F.logsigmoid(retention), target)


def naive_self_modifying(
    x_key: Float[Tensor, "b h t k"],
    x_value: Float[Tensor, "b h t k"],
    q: Float[Tensor, "b h t k"],
    meta: Float[Tensor, "h k v"],
    gate_bias: Float[Tensor, "h 2"],
    state: Written,
    chunk: int,
) -> tuple[Float[Tensor, "b h t k"], Written]:
    """`W_t = W_{t-1} (a_t - eta_t k_t k_t^T) - eta_t grad |W_{t-1} k_t - target_t|^2 / 2`, `y_t = W_t q_t`.

    Source: Nested Learning, equation 88 for matrix memories (93), what is written generated at the chunk's start (90);
    here tokens are rows, and the retention `a_t` draws back to `meta`, not to zero (ours: what a row forgets is what
    it wrote, never the projections).
    """
    start, now, place = state
    outputs = []
    for t in range(q.shape[2]):
        token = slice(t, t + 1)
        k, rate, log_retention, target = generate(x_key[:, :, token], x_value[:, :, token], meta + start, gate_bias)
        eta, retention = rate[..., None], log_retention.exp()[..., None]
        answer = k @ (meta + now)
        now = retention * now - eta * k.mT @ answer - eta * k.mT @ (answer - target)
        outputs.append(q[:, :, token] @ (meta + now)[..., -q.shape[-1] :])
        place += 1
        if place == chunk:
            start, place = now, 0
    return torch.cat(outputs, dim=2), Written(start, now, place)


def self_modifying(
    x_key: Float[Tensor, "b h t k"],
    x_value: Float[Tensor, "b h t k"],
    q: Float[Tensor, "b h t k"],
    meta: Float[Tensor, "h k v"],
    gate_bias: Float[Tensor, "h 2"],
    state: Written,
    chunk: int,
) -> tuple[Float[Tensor, "b h t k"], Written]:
    """`naive_self_modifying`, a chunk at a time, exact to rounding; an earlier call may have begun the first chunk.

    Delta gradient descent and the gradient step are together the delta rule of rate `2 eta` towards `target / 2`;
    for `W - meta`, the target loses what the meta-learned weights already answer. Source: ours.
    """
    start, now, place = state
    memory = slice(-q.shape[-1], None)
    outputs, t = [], 0
    while t < q.shape[2]:
        stop = min(t + chunk - place, q.shape[2])
        views = (x_key[:, :, t:stop], x_value[:, :, t:stop])
        query = q[:, :, t:stop]
        k, rate, log_retention, target = generate(*views, meta + start, gate_bias)
        y, now = delta(query, k, target / 2 - k @ meta, 2 * rate, log_retention, now)
        outputs.append(query @ meta[..., memory] + y[..., memory])
        place, t = place + stop - t, stop
        if place == chunk:
            start, place = now, 0
    return torch.cat(outputs, dim=2), Written(start, now, place)
