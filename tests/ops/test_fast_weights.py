"""The chunked forms of matrix memories equal their token-by-token twins, in values and in every gradient."""

import pytest
import torch
from torch.nn import functional as F

from nested_learning.ops.fast_weights import Momentum, delta, delta_write, naive_delta, naive_titans, titans

CHUNK = 8
LENGTHS = [1, CHUNK - 1, CHUNK, CHUNK + 1, 63]


def make_inputs(t: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """q, k, v, rate, log decay, log momentum, weight, momentum: rates that reach 1.5, strong and weak decay."""
    generator = torch.Generator().manual_seed(t)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(2, 3, *shape, generator=generator, dtype=torch.float64)

    q, k, v = normal(t, 5), F.normalize(normal(t, 5), dim=-1), normal(t, 7)
    rate, decay, momentum = 1.5 * normal(t).sigmoid(), F.logsigmoid(normal(t) + 2), F.logsigmoid(normal(t) - 1)
    inputs = [q, k, v, rate, decay, momentum, normal(5, 7), normal(5, 7)]
    return [x.to(dtype).requires_grad_() for x in inputs]


def run_titans(rule, inputs, *chunk):
    y, state = rule(*inputs[:6], Momentum(*inputs[6:]), *chunk)
    return [y, *state]


def run_delta(rule, inputs):
    return list(rule(*inputs[:5], inputs[6]))


def with_gradients(outputs, inputs):
    loss = sum((output.sin() * (i + 1)).sum() for i, output in enumerate(outputs))
    return [*outputs, *(g for g in torch.autograd.grad(loss, inputs, allow_unused=True) if g is not None)]


def worst(left, right):
    assert len(left) == len(right)
    return max(((x - y).abs().max() / y.abs().max().clamp_min(1)).item() for x, y in zip(left, right, strict=True))


@pytest.mark.parametrize("t", LENGTHS)
def test_titans_in_chunks_equals_the_recurrence_in_values_and_gradients(t):
    fast, naive = make_inputs(t), make_inputs(t)
    fast_all = with_gradients(run_titans(titans, fast, CHUNK), fast)
    naive_all = with_gradients(run_titans(naive_titans, naive), naive)
    assert worst(fast_all, naive_all) < 1e-12


@pytest.mark.parametrize("t", LENGTHS)
def test_the_delta_rule_of_a_chunk_equals_the_recurrence_in_values_and_gradients(t):
    fast, naive = make_inputs(t), make_inputs(t)
    assert (
        worst(with_gradients(run_delta(delta, fast), fast), with_gradients(run_delta(naive_delta, naive), naive))
        < 1e-12
    )


def test_writing_without_reading_leaves_the_same_weights():
    q, k, v, rate, decay, _, weight, _ = make_inputs(CHUNK)
    _, expected = delta(q, k, v, rate, decay, weight)
    assert torch.allclose(delta_write(k, v, rate, decay, weight), expected, atol=1e-14)


def test_single_precision_stays_within_two_millionths_of_double():
    single = run_titans(titans, make_inputs(63, torch.float32), CHUNK)
    double = run_titans(naive_titans, make_inputs(63))
    assert worst([x.double() for x in single], double) < 2e-6


def test_a_written_pair_is_read_back_exactly_at_rate_one():
    k = F.normalize(torch.randn(1, 1, 1, 5, dtype=torch.float64), dim=-1)
    v = torch.randn(1, 1, 1, 7, dtype=torch.float64)
    one, zero = torch.ones(1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, dtype=torch.float64)
    y, _ = delta(k, k, v, one, zero, torch.randn(1, 1, 5, 7, dtype=torch.float64))
    assert torch.allclose(y, v)


def test_momentum_goes_on_writing_after_the_surprise():
    q, k, v, rate, decay, momentum, weight, _ = make_inputs(2)
    rate = torch.stack([torch.ones_like(rate[..., 0]), torch.zeros_like(rate[..., 0])], dim=-1)
    _, after_one = titans(*(x[:, :, :1] for x in (q, k, v, rate, 0 * decay, momentum)), Momentum(weight, 0 * weight), 4)
    _, after_two = titans(q, k, v, rate, 0 * decay, momentum, Momentum(weight, 0 * weight), 4)
    moved = after_two.weight - after_one.weight
    assert torch.allclose(moved, momentum[:, :, 1, None, None].exp() * after_one.momentum)
    assert moved.abs().max() > 1e-3
