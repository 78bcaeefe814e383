"""Rules that read inputs get those of their layers; a model without such a rule has no hooks."""

import pytest
import torch
from optim.shipped import SHIPPED, group, optim
from tiny import tiny
from torch import nn

from nested_learning.errors import ConfigError
from nested_learning.ops.rules.dgd import DGDState, dgd
from nested_learning.optim.build import build_optimizer
from nested_learning.optim.optimizer import Optimizer
from nested_learning.phase.train import build, run
from nested_learning.world.world import World

ALONE = World(0, 1, 0, torch.device("cpu"), "gloo")


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) for module in model.modules())


def layer_and_optimizer(**keys) -> tuple[nn.Linear, Optimizer]:
    torch.manual_seed(0)
    layer = nn.Linear(6, 4, bias=False).double()
    optimizer = build_optimizer(optim(group(rule="dgd", lr=0.1, **keys)), list(layer.named_parameters()), [], 100, 10)
    optimizer.record_inputs(layer)
    return layer, optimizer


def backward(layer: nn.Linear, x: torch.Tensor, num_inputs: int) -> None:
    """Add the gradient of a mean loss over `num_inputs` inputs, of which `x` are some."""
    (layer(x).square().sum() / 2 / num_inputs).backward()


def inputs(number: int, seed: int) -> torch.Tensor:
    return torch.randn(number, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(w: torch.Tensor, x: torch.Tensor, lr: float = 0.1) -> torch.Tensor:
    """One DGD update from `w` on a mean loss over the inputs x."""
    g = (x @ w.mT).mT @ x / len(x)
    return dgd(w, g, DGDState(), lr=lr, weight_decay=0.0, input_decay=0.5, x=x / len(x) ** 0.5)[0]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_model_is_hooked_only_for_rules_that_read_inputs(name, tmp_path):
    parts = build(tiny(tmp_path, optim=name), ALONE)
    assert hooks(parts.model) == len(parts.optimizer.inputs)
    assert bool(parts.optimizer.inputs) == (name in ("dgd", "nl_l2_precond"))


def test_the_optimizer_makes_the_update_of_the_rule_on_the_inputs_of_the_layer():
    layer, optimizer = layer_and_optimizer(input_decay=0.5)
    w, x = layer.weight.detach().clone(), inputs(7, seed=1)
    backward(layer, x, 7)
    optimizer.step(0)
    torch.testing.assert_close(layer.weight.detach(), by_hand(w, x), atol=1e-12, rtol=0)


def test_gradients_accumulated_over_micro_batches_read_the_inputs_of_all_of_them():
    layer, optimizer = layer_and_optimizer(input_decay=0.5)
    w, x = layer.weight.detach().clone(), inputs(8, seed=1)
    for micro_batch in x.split(2):
        backward(layer, micro_batch, 8)
    optimizer.step(0)
    torch.testing.assert_close(layer.weight.detach(), by_hand(w, x), atol=1e-12, rtol=0)


def test_every_update_reads_its_own_inputs_only():
    layer, optimizer = layer_and_optimizer(input_decay=0.5)
    w = layer.weight.detach().clone()
    for step in range(3):
        optimizer.zero_grad()
        backward(layer, inputs(5, seed=step), 5)
        optimizer.step(step)
        w = by_hand(w, inputs(5, seed=step))
    torch.testing.assert_close(layer.weight.detach(), w, atol=1e-12, rtol=0)


def test_a_slow_group_reads_the_inputs_of_its_whole_period_also_across_a_saved_state():
    layer, optimizer = layer_and_optimizer(input_decay=0.5, period=300)
    w = layer.weight.detach().clone()
    for step in range(3):
        optimizer.zero_grad()
        backward(layer, inputs(5, seed=step), 5)
        optimizer.step(step)
        if step == 1:
            saved = {key: tensor.clone() for key, tensor in optimizer.state_dict().items()}
            weights = layer.state_dict()
            layer, optimizer = layer_and_optimizer(input_decay=0.5, period=300)
            layer.load_state_dict(weights)
            optimizer.load_state_dict(saved)
    expected = by_hand(w, torch.cat([inputs(5, seed=step) for step in range(3)]))
    torch.testing.assert_close(layer.weight.detach(), expected, atol=1e-12, rtol=0)


def test_inputs_of_a_pass_without_gradients_are_not_recorded():
    layer, optimizer = layer_and_optimizer(input_decay=0.5)
    w, x = layer.weight.detach().clone(), inputs(7, seed=1)
    with torch.no_grad():
        layer(inputs(7, seed=2))
    backward(layer, x, 7)
    with torch.inference_mode():
        layer(inputs(7, seed=3))
    optimizer.step(0)
    torch.testing.assert_close(layer.weight.detach(), by_hand(w, x), atol=1e-12, rtol=0)


def test_inputs_are_multiplied_in_full_precision_under_autocast():
    layer = nn.Linear(6, 4, bias=False)
    optimizer = build_optimizer(optim(group(rule="dgd", input_decay=0.5)), list(layer.named_parameters()), [], 100, 10)
    optimizer.record_inputs(layer)
    x = inputs(7, seed=1).float()
    with torch.autocast("cpu", torch.bfloat16):
        layer(x)
    seen = optimizer.inputs["weight"]
    seen.all_reduce(optimizer.processes)
    torch.testing.assert_close(seen.mean(), x.mT @ x / 7)


def test_a_weight_of_another_kind_of_layer_is_refused():
    convolution = nn.Conv1d(3, 4, 2, bias=False)
    optimizer = build_optimizer(
        optim(group(rule="dgd", input_decay=0.5)), list(convolution.named_parameters()), [], 100, 10
    )
    with pytest.raises(ConfigError, match="weight is not the weight of a linear layer"):
        optimizer.record_inputs(convolution)


def test_a_layer_without_recorded_inputs_is_named_in_the_error():
    layer, optimizer = layer_and_optimizer(input_decay=0.5)
    layer.weight.grad = torch.ones_like(layer.weight)
    with pytest.raises(ConfigError, match="the layer of weight has read none"):
        optimizer.step(0)


def test_a_rule_that_reads_inputs_refuses_a_compiled_model(tmp_path):
    with pytest.raises(ConfigError, match="try compile=off"):
        run(tiny(tmp_path, optim="dgd", compile="full"))
