"""The momenta beyond the heavy ball: preconditioned, delta, deep, and M3, each against its formula."""

import pytest
import torch

from nested_learning.ops.orthogonal import newton_schulz
from nested_learning.ops.rules.deep_momentum import WIDTH, deep_momentum, init_deep_momentum
from nested_learning.ops.rules.delta_momentum import delta_momentum, init_delta_momentum
from nested_learning.ops.rules.m3 import init_m3, m3
from nested_learning.ops.rules.momentum import MomentumState, init_momentum, momentum
from nested_learning.ops.rules.preconditioned_momentum import init_preconditioned_momentum, preconditioned_momentum


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


PRECONDITIONED = {"lr": 0.1, "weight_decay": 0.0, "beta": 0.95, "eps": 1e-8}


def test_preconditioned_momentum_with_momentum_zero_is_the_adam_of_torch_with_beta1_zero():
    w, theirs = random(5, 3, seed=0), torch.nn.Parameter(random(5, 3, seed=0))
    optimizer, state = torch.optim.Adam([theirs], lr=0.1, betas=(0.0, 0.95)), init_preconditioned_momentum(w)
    for step in range(5):
        theirs.grad = random(5, 3, seed=step + 1)
        w, state = preconditioned_momentum(w, theirs.grad, state, momentum=0.0, **PRECONDITIONED)
        optimizer.step()
    torch.testing.assert_close(w, theirs.detach(), atol=1e-12, rtol=0)


def test_preconditioned_momentum_is_momentum_of_rescaled_gradients():
    w, state = random(5, 3, seed=0), init_preconditioned_momentum(random(5, 3, seed=0))
    reference, reference_state, square = w, init_momentum(w), torch.zeros_like(w)
    for step in range(1, 6):
        g = random(5, 3, seed=step)
        w, state = preconditioned_momentum(w, g, state, momentum=0.9, **PRECONDITIONED)
        square = 0.95 * square + 0.05 * g**2
        rescaled = g / ((square / (1 - 0.95**step)).sqrt() + 1e-8)
        reference, reference_state = momentum(
            reference, rescaled, reference_state, lr=0.1, weight_decay=0.0, momentum=0.9
        )
    torch.testing.assert_close(w, reference, atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [1e-4, 1.0])
def test_delta_momentum_is_the_formula_of_the_paper_where_gradients_are_small_and_saturates(size):
    w, old, g = random(4, 6, seed=0), random(4, 6, seed=1), size * random(4, 6, seed=2)
    rate = 1.0 if size < 1 else 1 / (1 + g.norm() ** 2)
    step = old @ (0.9 * torch.eye(6, dtype=torch.float64) - rate * g.mT @ g) - 0.1 * g
    actual, state = delta_momentum(w, g, MomentumState(old), lr=0.1, weight_decay=0.0, momentum=0.9, erase=1.0)
    torch.testing.assert_close(state.momentum, step, atol=1e-13, rtol=0)
    torch.testing.assert_close(actual, w + step, atol=1e-13, rtol=0)


def test_delta_momentum_with_erase_zero_is_momentum():
    w, old, g = random(4, 6, seed=0), MomentumState(random(4, 6, seed=1)), random(4, 6, seed=2)
    actual, _ = delta_momentum(w, g, old, lr=0.1, weight_decay=0.1, momentum=0.9, erase=0.0)
    expected, _ = momentum(w, g, old, lr=0.1, weight_decay=0.1, momentum=0.9)
    torch.testing.assert_close(actual, expected, atol=1e-15, rtol=0)


def test_delta_momentum_replaces_the_last_gradient_of_the_same_direction():
    g, across = torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    g[0, 0], across[0, 1] = 2.0, 3.0
    w, state = torch.zeros_like(g), init_delta_momentum(g)
    for gradient in (across, g, -g):
        w, state = delta_momentum(w, gradient, state, lr=0.1, weight_decay=0.0, momentum=1.0, erase=1e12)
    # along g nothing is left of the first g; what was learned across stays
    torch.testing.assert_close(state.momentum, -0.1 * (across - g))


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_delta_momentum_stays_bounded_for_gradients_of_any_size(size):
    w, state = random(4, 6, seed=0), init_delta_momentum(random(4, 6, seed=0))
    for step in range(200):
        g = random(4, 6, seed=step)
        g = size * g / g.norm()
        w, state = delta_momentum(w, g, state, lr=1.0, weight_decay=0.0, momentum=0.9, erase=1.0)
        assert state.momentum.norm() <= size / (1 - 0.9)


DEEP = {"lr": 1.0, "weight_decay": 0.0, "memory_lr": 0.5, "retention": 0.9}


def test_the_memory_of_deep_momentum_follows_the_gradient_of_its_objective():
    g, state = random(4, 6, seed=0), init_deep_momentum(random(4, 6, seed=1))
    state = state._replace(values=random(WIDTH, 6, seed=2))
    keys, values = (tensor.clone().requires_grad_() for tensor in state)
    unit, weight = g / g.norm(dim=1, keepdim=True), g.norm(dim=1) ** 2 / g.norm() ** 2
    objective = (weight * (torch.tanh(unit @ keys) @ values + unit).square().sum(1) / 2).sum()
    keys_gradient, values_gradient = torch.autograd.grad(objective, (keys, values))
    _, new = deep_momentum(torch.zeros_like(g), g, state, **DEEP)
    torch.testing.assert_close(new.keys, 0.9 * state.keys - 0.5 * keys_gradient, atol=1e-12, rtol=0)
    torch.testing.assert_close(new.values, 0.9 * state.values - 0.5 * values_gradient, atol=1e-12, rtol=0)


def test_deep_momentum_returns_learned_directions_and_little_of_new_ones():
    known, state = random(3, 64, seed=0), init_deep_momentum(random(8, 64, seed=1))
    for step in range(200):
        g = random(8, 3, seed=step + 10) @ known
        _, state = deep_momentum(torch.zeros_like(g), g, state, **DEEP | {"retention": 1.0})
    old, new = random(8, 3, seed=5) @ known, random(8, 64, seed=6)
    recalled = [
        -(deep_momentum(torch.zeros_like(g), g, state, **DEEP | {"memory_lr": 0.0, "retention": 1.0})[0] * g).sum()
        / g.square().sum()
        for g in (old, new)
    ]
    assert recalled[0] > 0.8
    assert recalled[1] < 0.2


def test_deep_momentum_is_linear_in_the_length_of_the_gradient():
    g, state = random(4, 6, seed=0), init_deep_momentum(random(4, 6, seed=1))
    once, _ = deep_momentum(torch.zeros_like(g), g, state, **DEEP)
    twice, _ = deep_momentum(torch.zeros_like(g), 2 * g, state, **DEEP)
    torch.testing.assert_close(twice, 2 * once, atol=1e-13, rtol=0)


def algorithm_1(w: torch.Tensor, gradients: list[torch.Tensor], lr: float, betas, alpha: float, f: int, eps: float):
    """Algorithm 1 of the paper, line by line; its sum over the last f gradients is that of the round before."""
    m1, m2, v, t = torch.zeros_like(w), torch.zeros_like(w), torch.zeros_like(w), 0
    for k in range(len(gradients) // f):
        m2 = m2 + betas[2] * sum(gradients[(k - 1) * f : k * f] if k else [torch.zeros_like(w)])
        o2 = newton_schulz(m2)
        for g in gradients[k * f : (k + 1) * f]:
            m1 = m1 + betas[0] * g
            v = v + betas[1] * g**2
            w = w - lr * (newton_schulz(m1) + alpha * o2) / (v.sqrt() + eps)
            t += 1
    assert t == len(gradients)
    return w


@pytest.mark.parametrize("shape", [(4, 4), (3, 8), (8, 3)], ids=["square", "wide", "tall"])
def test_m3_is_algorithm_1_of_the_paper_for_any_factors(shape):
    start, gradients, betas = random(*shape, seed=0), [random(*shape, seed=s + 1) for s in range(12)], (0.9, 0.3, 0.7)
    w, state = start, init_m3(start)
    # β2 is part of lr and eps; β1 and β3 scale what is then orthogonalised, which has no scale
    keywords = {"lr": 0.1 / 0.3**0.5, "eps": 0.2 / 0.3**0.5, "weight_decay": 0.0, "slow_weight": 0.5, "slow_every": 4}
    for g in gradients:
        w, state = m3(w, g, state, **keywords)
    torch.testing.assert_close(w, algorithm_1(start, gradients, 0.1, betas, 0.5, 4, 0.2), atol=1e-6, rtol=0)


def test_the_slow_momentum_of_m3_changes_once_per_period_by_all_gradients_since():
    w, gradients = random(3, 5, seed=0), [random(3, 5, seed=step + 1) for step in range(7)]
    state, slow = init_m3(w), []
    for g in gradients:
        w, state = m3(w, g, state, lr=0.1, weight_decay=0.0, slow_weight=0.5, slow_every=3, eps=1e-3)
        slow.append(state.slow)
    assert [step for step in range(1, 7) if not torch.equal(slow[step], slow[step - 1])] == [3, 6]
    torch.testing.assert_close(slow[3], sum(gradients[:3]))
    torch.testing.assert_close(slow[6], sum(gradients[:6]))


def test_m3_decays_weights_apart_from_the_gradient():
    w, g = random(3, 5, seed=0), random(3, 5, seed=1)
    keywords = {"lr": 0.1, "slow_weight": 0.5, "slow_every": 3, "eps": 1e-3}
    without, _ = m3(w, g, init_m3(w), weight_decay=0.0, **keywords)
    decayed, _ = m3(w, g, init_m3(w), weight_decay=0.5, **keywords)
    torch.testing.assert_close(decayed, without - 0.1 * 0.5 * w, atol=1e-14, rtol=0)
