"""Matrix memories written token by token, computed chunk by chunk: exact, with decay and momentum.

Row convention: a token is a row, a memory `W` is `[k v]`, a read is `q W`. The inner loss is `1/2 |k W - v|^2`, so its
gradient is `k^T (k W - v)`. All weights are per row and per head.
"""

from typing import NamedTuple

import torch

from nested_learning.shapes import Float, Tensor


class Momentum(NamedTuple):
    """A memory's weights and the momentum of their updates, both `[b h k v]`."""

    weight: Float[Tensor, "b h k v"]
    momentum: Float[Tensor, "b h k v"]


def naive_delta(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t v"],
    rate: Float[Tensor, "b h t"],
    log_decay: Float[Tensor, "b h t"],
    weight: Float[Tensor, "b h k v"],
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """`W_t = a_t W_{t-1} - r_t k_t^T (k_t W_{t-1} - v_t)`, `y_t = q_t W_t`, one token after the other.

    Source: the gated delta rule (arXiv 2412.06464, equation 10); with `r = 2 eta` and `v / 2` for `v` the
    self-modifying memory of Nested Learning (arXiv 2512.24695, equations 88 and 93).
    """
    outputs = []
    for t in range(q.shape[2]):
        kt = k[:, :, t, None]
        error = kt @ weight - v[:, :, t, None]
        decay, step = log_decay[:, :, t, None, None].exp(), rate[:, :, t, None, None]
        weight = decay * weight - step * kt.mT @ error
        outputs.append(q[:, :, t, None] @ weight)
    return torch.cat(outputs, dim=2), weight


def naive_titans(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t v"],
    rate: Float[Tensor, "b h t"],
    log_decay: Float[Tensor, "b h t"],
    log_momentum: Float[Tensor, "b h t"],
    state: Momentum,
) -> tuple[Float[Tensor, "b h t v"], Momentum]:
    """`S_t = m_t S_{t-1} - r_t k_t^T (k_t W_{t-1} - v_t)`, `W_t = a_t W_{t-1} + S_t`, `y_t = q_t W_t`.

    Source: Titans (arXiv 2501.00663, equations 13-14) with a matrix memory; `a = 1 - alpha`.
    """
    weight, momentum = state
    outputs = []
    for t in range(q.shape[2]):
        kt = k[:, :, t, None]
        surprise = kt.mT @ (kt @ weight - v[:, :, t, None])
        gates = (x[:, :, t, None, None] for x in (log_momentum.exp(), rate, log_decay.exp()))
        keep, step, decay = gates
        momentum = keep * momentum - step * surprise
        weight = decay * weight + momentum
        outputs.append(q[:, :, t, None] @ weight)
    return torch.cat(outputs, dim=2), Momentum(weight, momentum)


def decay_between(log_gate: Float[Tensor, "*n c"]) -> Float[Tensor, "*n c c"]:
    """Return `[t, s] = prod_{s < j <= t} gate_j` for `s <= t`, else 0: what is left at t of what was written at s."""
    total = log_gate.cumsum(-1)
    difference = total[..., :, None] - total[..., None, :]
    future = torch.ones(difference.shape[-2:], dtype=torch.bool, device=difference.device).triu(1)
    return difference.masked_fill(future, -torch.inf).exp()


def chunks(x: Float[Tensor, "b h t *d"], chunk: int) -> Float[Tensor, "b h n c *d"]:
    """Cut the tokens of `x` into chunks of `chunk`."""
    return x.unflatten(2, (-1, chunk))


def delta(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t v"],
    rate: Float[Tensor, "b h t"],
    log_decay: Float[Tensor, "b h t"],
    weight: Float[Tensor, "b h k v"],
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """`naive_delta` of one chunk at once. Source: the WY form of DeltaNet (arXiv 2406.06484) with decay.

    The errors `e_t = k_t W_{t-1} - v_t` of the chunk solve one unit-lower-triangular system,
    `(I + X) E = diag(decay before t) K W - V`, and everything else follows from them by matrix products.
    """
    written, errors = delta_errors(k, v, rate, log_decay, weight)
    kept = log_decay.cumsum(-1).exp()
    y = kept[..., None] * (q @ weight) - ((q @ k.mT) * written) @ errors
    return y, kept[..., -1, None, None] * weight - (k * written[..., -1, :, None]).mT @ errors


def delta_write(
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t v"],
    rate: Float[Tensor, "b h t"],
    log_decay: Float[Tensor, "b h t"],
    weight: Float[Tensor, "b h k v"],
) -> Float[Tensor, "b h k v"]:
    """Return the weights after `delta`, for a memory that nobody reads before the end of the chunk."""
    written, errors = delta_errors(k, v, rate, log_decay, weight)
    return log_decay.sum(-1).exp()[..., None, None] * weight - (k * written[..., -1, :, None]).mT @ errors


def delta_errors(
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t v"],
    rate: Float[Tensor, "b h t"],
    log_decay: Float[Tensor, "b h t"],
    weight: Float[Tensor, "b h k v"],
) -> tuple[Float[Tensor, "b h t t"], Float[Tensor, "b h t v"]]:
    """Return what is left at t of the write at s, `[t, s]`, and the errors `e_t = k_t W_{t-1} - v_t` of a chunk."""
    written = decay_between(log_decay) * rate[..., None, :]
    before = (log_decay.cumsum(-1) - log_decay).exp()[..., None]
    system = (k @ k.mT) * shift_down(written)
    right = before * (k @ weight) - v
    return written, torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)


def shift_down(x: Float[Tensor, "*n c c"]) -> Float[Tensor, "*n c c"]:
    """Move every row of a lower-triangular matrix one down: what token t finds is what token t-1 left."""
    return torch.nn.functional.pad(x[..., :-1, :], (0, 0, 1, 0))


def titans(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b h t k"],
    v: Float[Tensor, "b h t v"],
    rate: Float[Tensor, "b h t"],
    log_decay: Float[Tensor, "b h t"],
    log_momentum: Float[Tensor, "b h t"],
    state: Momentum,
    chunk: int,
) -> tuple[Float[Tensor, "b h t v"], Momentum]:
    """`naive_titans` in chunks of `chunk` tokens, exact to rounding. Source: ours, the WY form with decay and momentum.

    Unrolled over a chunk, `W_t = b_t W + f_t S - sum_{i<=t} G[t, i] k_i^T e_i`, `S_c = m_c S - sum_i n_i k_i^T e_i`.
    The errors solve one triangular system whose right-hand side is linear in (W, S), so the system of every chunk is
    solved before the loop over chunks, which is left with four products a chunk.
    """
    whole = q.shape[2] // chunk * chunk
    outputs = []
    for start, stop, size in ((0, whole, chunk), (whole, q.shape[2], q.shape[2] - whole)):
        if stop > start:
            tokens = (q, k, v, rate, log_decay, log_momentum)
            qs, ks, vs, rates, decays, momenta = (chunks(x[:, :, start:stop], size) for x in tokens)
            y, state = titans_chunks(qs, ks, vs, rates, decays, momenta, state)
            outputs.append(y.flatten(2, 3))
    return torch.cat(outputs, dim=2), state


def titans_chunks(
    q: Float[Tensor, "b h n c k"],
    k: Float[Tensor, "b h n c k"],
    v: Float[Tensor, "b h n c v"],
    rate: Float[Tensor, "b h n c"],
    log_decay: Float[Tensor, "b h n c"],
    log_momentum: Float[Tensor, "b h n c"],
    state: Momentum,
) -> tuple[Float[Tensor, "b h n c v"], Momentum]:
    """`titans` on tokens already cut into `n` chunks."""
    b = log_decay.cumsum(-1).exp()
    m = log_momentum.cumsum(-1).exp()
    decay, keep = decay_between(log_decay), decay_between(log_momentum)
    g = decay @ keep * rate[..., None, :]
    f = (decay @ m[..., None]).squeeze(-1)
    n = keep[..., -1, :] * rate

    b_before = torch.nn.functional.pad(b[..., :-1], (1, 0), value=1.0)
    f_before = torch.nn.functional.pad(f[..., :-1], (1, 0))
    right = torch.cat([b_before[..., None] * k, f_before[..., None] * k, v], dim=-1)
    system = (k @ k.mT) * shift_down(g)
    solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    from_state, from_values = solved.split([2 * k.shape[-1], v.shape[-1]], dim=-1)
    into_weight, into_momentum = (k * g[..., -1, :, None]).mT, (k * n[..., None]).mT

    weight, momentum = state
    starts, errors = [], []
    # unbound at once: the gradient of indexing chunk by chunk would fill the whole sequence with zeros for each chunk
    ends = torch.stack([b[..., -1], f[..., -1], m[..., -1]])[..., None, None].unbind(3)
    pieces = zip(*(x.unbind(2) for x in (from_state, from_values, into_weight, into_momentum)), ends, strict=True)
    for of_state, of_values, to_weight, to_momentum, (b_end, f_end, m_end) in pieces:
        start = torch.cat([weight, momentum], dim=-2)
        error = of_state @ start - of_values
        weight, momentum = (
            b_end * weight + f_end * momentum - to_weight @ error,
            m_end * momentum - to_momentum @ error,
        )
        starts.append(start)
        errors.append(error)
    query = torch.cat([b[..., None] * q, f[..., None] * q], dim=-1)
    y = query @ torch.stack(starts, dim=2) - ((q @ k.mT) * g) @ torch.stack(errors, dim=2)
    return y, Momentum(weight, momentum)
