"""The self-modifying memories in chunks equal their token loop, in values and in every gradient."""

import pytest
import torch
from torch.nn import functional as F

from nested_learning.ops.self_modifying import Written, generate, naive_self_modifying, self_modifying

CHUNK, DIM, HEADS, BATCH = 8, 5, 2, 3


def make_inputs(t):
    generator = torch.Generator().manual_seed(t)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x_key, x_value, q = (
        normal(BATCH, HEADS, t, DIM),
        normal(BATCH, HEADS, t, DIM),
        F.normalize(normal(BATCH, HEADS, t, DIM), dim=-1),
    )
    meta, bias = normal(HEADS, DIM, 3 * DIM + 4) * DIM**-0.5, normal(HEADS, 4) + torch.tensor([-3.0, 3.0, -2.0, 3.0])
    start, now = (0.3 * normal(BATCH, HEADS, DIM, 3 * DIM + 4) for _ in range(2))
    return [z.requires_grad_() for z in (x_key, x_value, q, meta, bias, start, now)]


@pytest.mark.parametrize("t", [1, CHUNK - 1, CHUNK, CHUNK + 1, 63])
@pytest.mark.parametrize("place", [0, 3])
def test_chunks_equal_the_token_loop_in_values_and_gradients(t, place):
    results = []
    for read in (self_modifying, naive_self_modifying):
        inputs = make_inputs(t)
        y, state = read(*inputs[:5], Written(*inputs[5:], place), CHUNK)
        outputs = [y, state.start, state.now]
        loss = sum((output.sin() * (i + 1)).sum() for i, output in enumerate(outputs))
        results.append([*outputs, *torch.autograd.grad(loss, inputs)])
        assert state.place == (place + t) % CHUNK
    pairs = zip(*results, strict=True)
    assert max(((a - b).abs().max() / b.abs().max().clamp_min(1)).item() for a, b in pairs) < 1e-12


def test_the_memories_rewrite_the_projections_that_generate_keys_and_rates():
    x, y, q, meta, bias, start, _ = make_inputs(2 * CHUNK)
    _, state = self_modifying(x, y, q, meta, bias, Written(0 * start, 0 * start, 0), CHUNK)
    before, after = generate(x, y, meta + 0 * start, bias), generate(x, y, meta + state.now, bias)
    assert (before.key - after.key).abs().max() > 0.01
    assert (before.read.rate - after.read.rate).abs().max() > 0.01


def test_forgetting_everything_returns_to_the_meta_learned_weights():
    x, v, q, meta, _bias, start, now = make_inputs(1)
    silent = torch.tensor([-1000.0] * 4, dtype=torch.float64).repeat(HEADS, 1)
    y, state = self_modifying(x, v, q, meta, silent, Written(start, now, 0), CHUNK)
    assert state.now.abs().max() < 1e-12
    assert torch.allclose(y, q @ meta[..., -DIM:])
