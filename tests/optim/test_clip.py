"""Clipping bounds the norm of all gradients together and keeps their direction."""

import pytest
import torch

from nested_learning.optim.clip import clip_gradients


def parameters_with_gradients() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in [(3, 4), (5,), (2, 2, 2)]]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return [*parameters, torch.nn.Parameter(torch.zeros(7))]


def flat_gradient(parameters: list[torch.nn.Parameter]) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])


def test_a_norm_above_the_bound_is_scaled_down_to_it_in_the_same_direction():
    parameters = parameters_with_gradients()
    before = flat_gradient(parameters)
    norm = clip_gradients(parameters, 0.5)
    after = flat_gradient(parameters)
    torch.testing.assert_close(norm, before.norm())
    assert 0.5 * (1 - 1e-5) < after.norm() <= 0.5 * (1 + 1e-6)
    assert torch.cosine_similarity(before, after, dim=0) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("bound", [None, 100.0])
def test_without_a_bound_or_below_it_the_norm_is_measured_and_nothing_changes(bound):
    parameters = parameters_with_gradients()
    before = flat_gradient(parameters)
    torch.testing.assert_close(clip_gradients(parameters, bound), before.norm())
    assert torch.equal(flat_gradient(parameters), before)


def test_a_norm_that_is_not_finite_is_returned_to_the_caller():
    parameters = parameters_with_gradients()
    parameters[0].grad[0, 0] = torch.inf
    assert not clip_gradients(parameters, 1.0).isfinite()
