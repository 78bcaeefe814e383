"""The readable rules agree with torch's optimizers, and their scale is the same at every width."""

import inspect

import pytest
import torch

from nested_learning.ops.rules import RULES
from nested_learning.ops.rules.adamw import adamw, init_adamw
from nested_learning.ops.rules.dgd import DGDState, dgd
from nested_learning.ops.rules.functions import FUNCTIONS
from nested_learning.ops.rules.gd import GDState, gd
from nested_learning.ops.rules.momentum import init_momentum, momentum
from nested_learning.ops.rules.muon import init_muon, muon

ADAMW = {"lr": 0.01, "weight_decay": 0.1, "betas": [0.9, 0.95], "eps": 1e-8}
MUON = {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.95}


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_gd_is_the_sgd_of_torch():
    w, theirs = random(5, 3, seed=0), torch.nn.Parameter(random(5, 3, seed=0))
    optimizer = torch.optim.SGD([theirs], lr=0.1)
    for step in range(3):
        theirs.grad = random(5, 3, seed=step + 1)
        w, _ = gd(w, theirs.grad, GDState(), lr=0.1, weight_decay=0.0)
        optimizer.step()
    torch.testing.assert_close(w, theirs.detach(), atol=1e-14, rtol=0)


def test_momentum_is_that_of_the_sgd_of_torch():
    w, theirs = random(5, 3, seed=0), torch.nn.Parameter(random(5, 3, seed=0))
    optimizer, state = torch.optim.SGD([theirs], lr=0.1, momentum=0.9), init_momentum(w)
    for step in range(5):
        theirs.grad = random(5, 3, seed=step + 1)
        w, state = momentum(w, theirs.grad, state, lr=0.1, weight_decay=0.0, momentum=0.9)
        optimizer.step()
    torch.testing.assert_close(w, theirs.detach(), atol=1e-13, rtol=0)


@pytest.mark.parametrize("num_inputs", [1, 2, 5, 20])
def test_dgd_solves_its_proximal_problem(num_inputs):
    lr, w, x, error = 0.3, random(4, 6, seed=0), random(num_inputs, 6, seed=1), random(num_inputs, 4, seed=2)
    actual, _ = dgd(w, error.mT @ x, DGDState(), lr=lr, weight_decay=0.0, input_decay=1.0, x=x)
    # where the derivative of ½ Σ ‖w' x - u‖² + ‖w' - w‖² / (2 lr) is zero, with u = -error
    system = torch.eye(6, dtype=torch.float64) / lr + x.mT @ x
    expected = torch.linalg.solve(system, w / lr - error.mT @ x, left=False)
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)


def test_dgd_on_one_input_is_the_formula_of_the_paper_for_inputs_of_any_length():
    lr, w, x, error = 0.3, random(4, 6, seed=0), 3 * random(6, seed=1), random(4, seed=2)
    rate = lr / (1 + lr * x.square().sum())
    expected = w @ (torch.eye(6, dtype=torch.float64) - rate * x.outer(x)) - rate * error.outer(x)
    actual, _ = dgd(w, error.outer(x), DGDState(), lr=lr, weight_decay=0.0, input_decay=1.0, x=x[None])
    torch.testing.assert_close(actual, expected, atol=1e-13, rtol=0)


def test_dgd_on_one_input_keeps_the_gradient_and_decays_the_weight_along_the_input_only():
    # taking the input's direction out of the gradient, which lies along the input, would leave nothing to learn from
    w, x, error = random(4, 6, seed=0), random(6, seed=1), random(4, seed=2)
    keywords = {"lr": 0.3, "weight_decay": 0.0, "input_decay": 1.0, "x": x[None]}
    from_zero, _ = dgd(torch.zeros_like(w), error.outer(x), DGDState(), **keywords)
    assert from_zero.norm() > 0.1 * error.norm()
    across = random(6, seed=3) - x * (random(6, seed=3) @ x) / (x @ x)
    moved, _ = dgd(w, error.outer(x), DGDState(), **keywords)
    torch.testing.assert_close(moved @ across, w @ across, atol=1e-13, rtol=0)
    decayed, _ = dgd(w, torch.zeros_like(w), DGDState(), **keywords)
    assert (decayed @ x).norm() < 0.9 * (w @ x).norm()


def test_dgd_without_input_decay_is_gd():
    w, g, x = random(4, 6, seed=0), random(4, 6, seed=1), random(3, 6, seed=2)
    actual, _ = dgd(w, g, DGDState(), lr=0.1, weight_decay=0.1, input_decay=0.0, x=x)
    expected, _ = gd(w, g, GDState(), lr=0.1, weight_decay=0.1)
    torch.testing.assert_close(actual, expected, atol=1e-15, rtol=0)


def test_adamw_is_the_adamw_of_torch():
    w, theirs = random(5, 3, seed=0), torch.nn.Parameter(random(5, 3, seed=0))
    optimizer, state = (
        torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1),
        init_adamw(w),
    )
    for step in range(5):
        theirs.grad = random(5, 3, seed=step + 1)
        w, state = adamw(w, theirs.grad, state, **ADAMW)
        optimizer.step()
    torch.testing.assert_close(w, theirs.detach(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_muon_is_the_muon_of_torch_within_bfloat16(shape):
    start = random(*shape, seed=0, dtype=torch.float32)
    w, theirs, state = start, torch.nn.Parameter(start.clone()), init_muon(start)
    optimizer = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        theirs.grad = random(*shape, seed=step + 1, dtype=torch.float32)
        w, state = muon(w, theirs.grad, state, **MUON)
        optimizer.step()
    moved, theirs_moved = w - start, theirs.detach() - start
    assert (moved - theirs_moved).norm() < 0.05 * theirs_moved.norm()
    torch.testing.assert_close(state.momentum, optimizer.state[theirs]["momentum_buffer"])


def test_muon_takes_the_last_two_dimensions_as_the_matrix():
    w, g = random(2, 9, 6, 4, seed=0), random(2, 9, 6, 4, seed=1)
    together, _ = muon(w, g, init_muon(w), **MUON)
    alone, _ = muon(w[1, 2], g[1, 2], init_muon(w[1, 2]), **MUON)
    torch.testing.assert_close(together[1, 2], alone)


@pytest.mark.parametrize("shape", [(16, 16), (64, 16), (16, 256)])
def test_a_muon_step_has_the_root_mean_square_of_an_adamw_step_at_any_width(shape):
    w = torch.zeros(shape, dtype=torch.float64)
    moved, _ = muon(w, random(*shape, seed=0), init_muon(w), lr=1.0, weight_decay=0.0, momentum=0.95)
    assert 0.13 < moved.square().mean().sqrt() < 0.24


def test_the_keys_in_the_table_are_those_that_the_rules_read():
    for name, rule in RULES.items():
        keywords = tuple(inspect.signature(FUNCTIONS[name].update).parameters)[3:]
        assert keywords == ("lr", "weight_decay", *rule.keys, *(("x",) if rule.reads_inputs else ())), name
