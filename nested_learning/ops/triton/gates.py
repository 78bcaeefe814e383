"""The gates of a chunk unrolled on a GPU: `ops/gates.py:unroll` with momentum, row by row instead of by a product.

    N_t = m_t N_{t-1} + r_t e_t,    L_t = a_t L_{t-1} + N_t

where L_t is row t of the matrix `written`, e_t the unit row of token t, and the last N is the momentum's `written`: two
multiplications per entry, no power of a decay. The start of the chunk follows the same two lines, as `kept` and
`pushed`. The backward pass goes from the last token to the first. It recomputes N_{t-1} from the decays: dividing by
m_t would undo the recursion too, but m_t may underflow to 0.
"""

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl

from nested_learning.ops import gates as eager
from nested_learning.ops.gates import Decays, Gates, MomentumDecays
from nested_learning.shapes import Tensor

# gates `[n c]`; decays: kept `[n c]`, pushed `[n c]`, written `[n c c]`, of the momentum kept `[n]`, written `[n c]`
Three = tuple[Tensor, Tensor, Tensor]
Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@triton.jit
@no_type_check
def _kernel(gates, decays, size, block: tl.constexpr):
    rates, log_retentions, log_momenta = gates
    kept_at, pushed_at, written_at, momentum_kept_at, momentum_written_at = decays
    start = tl.program_id(0).to(tl.int64) * size
    i = tl.arange(0, block)
    kept, pushed, total = 1.0, 0.0, 1.0
    in_momentum = tl.zeros([block], tl.float32)
    written = tl.zeros([block], tl.float32)
    for t in range(size):
        retention, momentum = tl.exp(tl.load(log_retentions + start + t)), tl.exp(tl.load(log_momenta + start + t))
        kept *= retention
        total *= momentum
        pushed = retention * pushed + total
        in_momentum = momentum * in_momentum + tl.where(i == t, tl.load(rates + start + t), 0.0)
        written = retention * written + in_momentum
        tl.store(kept_at + start + t, kept)
        tl.store(pushed_at + start + t, pushed)
        tl.store(written_at + (start + t) * size + i, written, mask=i < size)
    tl.store(momentum_kept_at + tl.program_id(0), total)
    tl.store(momentum_written_at + start + i, in_momentum, mask=i < size)


@triton.jit
@no_type_check
def _backward(gates, decays, d_decays, d_gates, size, block: tl.constexpr):
    rates, log_retentions, log_momenta, totals = gates
    kept_at, pushed_at, written_at = decays
    d_kept_at, d_pushed_at, d_written_at, d_momentum_kept_at, d_momentum_written_at = d_decays
    start = tl.program_id(0).to(tl.int64) * size
    i = tl.arange(0, block)
    rate = tl.load(rates + start + i, mask=i < size, other=0.0)
    pushed = tl.load(pushed_at + start + i, mask=i < size, other=0.0)
    log_totals = tl.load(totals + start + i, mask=i < size, other=0.0)
    d_kept, d_pushed, d_total = 0.0, 0.0, tl.load(d_momentum_kept_at + tl.program_id(0))
    d_in_momentum = tl.load(d_momentum_written_at + start + i, mask=i < size, other=0.0)
    d_written = tl.zeros([block], tl.float32)
    for step in range(size):
        t = size - 1 - step
        retention, momentum = tl.exp(tl.load(log_retentions + start + t)), tl.exp(tl.load(log_momenta + start + t))
        log_total = tl.load(totals + start + t)
        d_kept += tl.load(d_kept_at + start + t)
        d_pushed += tl.load(d_pushed_at + start + t)
        d_total += d_pushed
        d_written += tl.load(d_written_at + (start + t) * size + i, mask=i < size, other=0.0)
        d_in_momentum += d_written
        # the rows that the gates of token t multiplied: row t-1 of `written`, and row t-1 of N
        prev_written = tl.load(written_at + (start + t - 1) * size + i, mask=i < t, other=0.0)
        prev_in_momentum = tl.exp(tl.where(i < t, log_total - log_totals, -float("inf"))) * rate
        d_retention = tl.sum(d_written * prev_written + tl.where(i == t - 1, d_pushed * pushed, 0.0), axis=0)
        d_momentum = tl.sum(d_in_momentum * prev_in_momentum, axis=0) + d_total * tl.exp(log_total)
        tl.store(d_gates[0] + start + t, tl.sum(tl.where(i == t, d_in_momentum, 0.0), axis=0))
        tl.store(d_gates[1] + start + t, retention * d_retention + d_kept * tl.load(kept_at + start + t))
        tl.store(d_gates[2] + start + t, d_momentum)
        d_kept *= retention
        d_pushed *= retention
        d_written *= retention
        d_total *= momentum
        d_in_momentum *= momentum


class _Unroll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *gates: Tensor) -> Five:
        """Run the kernel."""
        rate, log_retention, log_momentum = (gate.contiguous() for gate in gates)
        assert rate.dtype == torch.float32, "the kernel computes in float32"
        number, size = rate.shape
        new = rate.new_empty
        decays = (new(number, size), new(number, size), new(number, size, size), new(number), new(number, size))
        with torch.cuda.device_of(rate):
            block = triton.next_power_of_2(size)
            _kernel[number,]((rate, log_retention, log_momentum), decays, size=size, block=block, num_warps=1)
        ctx.save_for_backward(rate, log_retention, log_momentum, *decays[:3])
        return decays

    @staticmethod
    def backward(ctx: Any, *d_decays: Tensor) -> tuple[Tensor, ...]:
        """Run the backward kernel; where the gradient must be differentiable itself, compute it in torch."""
        rate, log_retention, log_momentum, *decays = ctx.saved_tensors
        if torch.is_grad_enabled():
            return differentiable_gradients((rate, log_retention, log_momentum), d_decays)
        number, size = rate.shape
        d_gates = (torch.empty_like(rate), torch.empty_like(rate), torch.empty_like(rate))
        given = (rate, log_retention, log_momentum, log_momentum.cumsum(-1))
        gradients = tuple(x.contiguous() for x in d_decays)
        with torch.cuda.device_of(rate):
            block = triton.next_power_of_2(size)
            _backward[number,](given, tuple(decays), gradients, d_gates, size=size, block=block, num_warps=1)
        return d_gates


def differentiable_gradients(gates: Three, d_decays: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the gradients of the gates computed by the eager form, with a graph."""
    # views: where one gate was computed from another, each still gets its own gradient only
    own = tuple(gate.view_as(gate) for gate in gates)
    decays = eager.unroll(Gates(*own))
    assert decays.momentum is not None
    outputs = (decays.kept, decays.momentum.pushed, decays.written, decays.momentum.kept, decays.momentum.written)
    return torch.autograd.grad(outputs, own, d_decays, create_graph=True)


def unroll(gates: Gates) -> Decays:
    """Compute `ops/gates.py:unroll`: with momentum in one kernel; without, in torch, which needs no product then."""
    if gates.log_momentum is None:
        return eager.unroll(gates)
    leading = gates.rate.shape[:-1]
    decays = _Unroll.apply(*(gate.flatten(0, -2) for gate in (gates.rate, gates.log_retention, gates.log_momentum)))
    kept, pushed, written, momentum_kept, momentum_written = (x.unflatten(0, leading) for x in decays)
    return Decays(kept, written, MomentumDecays(pushed, momentum_kept, momentum_written))
