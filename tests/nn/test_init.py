"""Initial weights are a function of (seed, parameter name), and of nothing else."""

import torch
from laws.models import make_config

from nested_learning.nn.init import initialise


def make_weights(seed: int, draws_before: int = 0) -> dict[str, torch.Tensor]:
    torch.rand(draws_before)
    memory = make_config("model=titans_deep", "model.start=learned").build(19, seed).blocks[0].mixer
    initialise(memory, num_layers=2, seed=seed)
    return {name: parameter.detach().clone() for name, parameter in memory.named_parameters()}


def test_the_seed_fixes_every_weight_for_any_state_of_the_global_generator():
    first, second = make_weights(7), make_weights(7, draws_before=3)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_seed_gives_other_matrices():
    first, second = make_weights(7), make_weights(8)
    assert not torch.equal(first["views.query.weight"], second["views.query.weight"])


def test_equal_shapes_with_different_names_differ():
    weights = make_weights(7)
    assert not torch.equal(weights["views.query.weight"], weights["views.key.weight"])


def test_biases_and_convolutions_keep_the_constants_of_their_modules():
    weights = make_weights(7)
    assert weights["gates.bias"].tolist() == [-1.0, -1.0, 5.0, 5.0, -1.0, -1.0]
    assert torch.equal(weights["views.query_conv.weight"], torch.eye(4, 1).expand(4, 12))
    assert weights["initial.layers.1"].abs().max() == 0
    assert weights["gates.weight"].abs().max() == 0
