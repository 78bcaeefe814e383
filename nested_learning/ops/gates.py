"""The gates of a chunk, unrolled: how much of the start and of each token's write remains at each token.

Every weight matrix of a memory follows `S_t = m_t S_{t-1} - r_t u_t`, `W_t = a_t W_{t-1} + S_t`, with its own updates
`u_t` and the same gates. Unrolled from the chunk's start (weights W, momentum S):

    W_t = kept_t W + pushed_t S - sum_{i<=t} written[t, i] u_i
    S_c = kept_by_momentum S - sum_i written_in_momentum_i u_i
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional as F

from nested_learning.shapes import Float, Tensor


class Gates(NamedTuple):
    """The gates of each token: the rate `r`, and the logarithms of retention `a` and of momentum `m` (None: none)."""

    rate: Float[Tensor, "*n c"]
    log_retention: Float[Tensor, "*n c"]
    log_momentum: Float[Tensor, "*n c"] | None


@dataclass(frozen=True)
class GateKinds:
    """Which gates are functions of the token ("gate"), and the values of the others.

    `rate`: "gate", in (0, `max_rate`), or "one", `max_rate` itself. `retention`: "gate", "none" (everything is kept) or
    "fixed": `1 - 2^(-5 - head)`, as in RetNet (arXiv 2307.08621, equation 8). `momentum`: "gate" or "none".
    """

    rate: str
    retention: str
    momentum: str
    max_rate: float

    @property
    def learned(self) -> tuple[str, ...]:
        """Name the gates that are functions of the token, in the order of their logits."""
        return tuple(name for name in ("rate", "retention", "momentum") if vars(self)[name] == "gate")

    def open(self, logits: Float[Tensor, "b h t g"]) -> Gates:
        """Turn the `g` logits of each token, one for every name in `learned`, into gates."""
        given = dict(zip(self.learned, logits.unbind(-1), strict=True))
        zeros = logits.new_zeros(logits.shape[:-1])
        rate = given["rate"].sigmoid() if self.rate == "gate" else zeros + 1.0
        log_retention = zeros
        if self.retention == "gate":
            log_retention = F.logsigmoid(given["retention"])
        elif self.retention == "fixed":
            heads = torch.arange(logits.shape[1], device=logits.device, dtype=logits.dtype)
            log_retention = zeros + torch.log1p(-(2.0 ** (-5 - heads)))[:, None]
        momentum = F.logsigmoid(given["momentum"]) if self.momentum == "gate" else None
        return Gates(self.max_rate * rate, log_retention, momentum)


class MomentumDecays(NamedTuple):
    """The momentum's part: `pushed`, its start in the weights at each token; `kept` and `written`, what it ends as."""

    pushed: Float[Tensor, "*n c"]
    kept: Float[Tensor, "*n"]
    written: Float[Tensor, "*n c"]


class Decays(NamedTuple):
    """The factors at token t of the start's weights, `kept`, and of token i's update, `written[t, i]` (0 for i > t)."""

    kept: Float[Tensor, "*n c"]
    written: Float[Tensor, "*n c c"]
    momentum: MomentumDecays | None


def unroll(gates: Gates) -> Decays:
    """Multiply out the gates of a chunk. Source: Titans (arXiv 2501.00663, equations 13-14), unrolled."""
    rate, log_retention, log_momentum = gates
    kept = log_retention.cumsum(-1).exp()
    decay = decay_between(log_retention)
    if log_momentum is None:
        return Decays(kept, decay * rate[..., None, :], None)
    keep = decay_between(log_momentum)
    total = log_momentum.cumsum(-1).exp()
    pushed = (decay @ total[..., None]).squeeze(-1)
    momentum = MomentumDecays(pushed, total[..., -1], keep[..., -1, :] * rate)
    return Decays(kept, decay @ keep * rate[..., None, :], momentum)


def decay_between(log_gate: Float[Tensor, "*n c"]) -> Float[Tensor, "*n c c"]:
    """Return `[t, s] = prod_{s < j <= t} gate_j` for `s <= t`, else 0: how much of a write at s remains at t."""
    total = log_gate.cumsum(-1)
    # a difference of logarithms: the product itself would underflow in the numerator and the denominator
    difference = total[..., :, None] - total[..., None, :]
    future = torch.ones(difference.shape[-2:], dtype=torch.bool, device=difference.device).triu(1)
    return difference.masked_fill(future, -torch.inf).exp()


def shifted(decays: Float[Tensor, "*n c"], first: float) -> Float[Tensor, "*n c"]:
    """Shift by one token: token t gets the factor just before its own write, that of t-1; the first gets `first`."""
    return F.pad(decays[..., :-1], (1, 0), value=first)


def shifted_rows(written: Float[Tensor, "*n c c"]) -> Float[Tensor, "*n c c"]:
    """Shift the rows by one token: row t becomes the factors of all writes just before token t; the first is zero."""
    return F.pad(written[..., :-1, :], (0, 0, 1, 0))
