"""What two processes run for `test_processes.py`: train, replicated and sharded, and compare with one process.

A case is a rule; the suffix `_flatten` flattens the matrices, `_slow` sets a period of two steps.
"""

import torch
from optim.shipped import group, optim
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from nested_learning.optim.build import build_optimizer
from nested_learning.optim.optimizer import Optimizer
from nested_learning.optim.processes import ALONE, Processes
from nested_learning.world.config import WorldConfig
from nested_learning.world.joining import open_world
from nested_learning.world.world import World

KEYS = {
    "momentum": {"momentum": 0.9},
    "preconditioned_momentum": {"momentum": 0.9, "beta": 0.9, "eps": 1e-3},
    "delta_momentum": {"momentum": 0.9, "erase": 1.0, "matrix": "batch"},
    "deep_momentum": {"memory_lr": 0.5, "retention": 0.99, "matrix": "batch"},
    "dgd": {"input_decay": 0.5},
    "m3": {"slow_weight": 0.5, "slow_every": 2, "eps": 0.1, "matrix": "batch"},
}
STEPS, STOP, ROWS = 6, 3, 8


def make_model() -> nn.Module:
    """Make a model with first dimensions that two processes cannot split evenly; of one, a process has no rows."""
    torch.manual_seed(0)
    parts = nn.Conv1d(4, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(24, 5), nn.Tanh(), nn.Linear(5, 1)
    return nn.Sequential(*parts).double()


def make_optimizer(case: str, model: nn.Module, processes: Processes) -> Optimizer:
    """Make the optimizer of `case` for all weights; AdamW has the biases."""
    rule = case.removesuffix("_slow").removesuffix("_flatten")
    keys = KEYS.get(rule, {}) | {"period": 200 if case.endswith("_slow") else None}
    if case.endswith("_flatten"):
        keys["matrix"] = "flatten"
    # the convolution is no linear layer
    match = r"[35]\.weight" if rule == "dgd" else "weight"
    config = optim(group("matrices", match, rule=rule, weight_decay=0.1, **keys), group("rest"))
    config.ema = 0.9
    optimizer = build_optimizer(config, list(model.named_parameters()), [], 100, STEPS, processes)
    optimizer.record_inputs(model)
    return optimizer


def train(replica: nn.Module, optimizer: Optimizer, steps: range, rank: int = 0, size: int = 1) -> None:
    """Train on this process's rows; the mean of the gradients over processes is the gradient of all rows."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(ROWS, 4, 6, generator=generator, dtype=torch.float64).chunk(size)[rank]
        (replica(x).square().sum() * size / ROWS).backward()
        optimizer.step(step)
        optimizer.zero_grad()


def weights(model: nn.Module, world: World) -> dict[str, torch.Tensor]:
    """Return the whole parameters."""
    return {name: world.whole(parameter.detach()).clone() for name, parameter in model.named_parameters()}


def difference(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Return the largest absolute difference of two elements."""
    assert actual.keys() == expected.keys()
    return max(float((actual[key].double() - expected[key].double()).abs().max()) for key in expected)


def compare(case: str, kind: str, world: World) -> dict[str, float]:
    """Train in one process and in two, sharded ones with a saved state in between; return the differences."""
    alone, model = make_model(), make_model()
    reference = make_optimizer(case, alone, ALONE)
    train(alone, reference, range(STEPS))
    before = weights(model, world)
    replica = world.reduction(model).module if kind == "ddp" else fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    optimizer = make_optimizer(case, model, world)
    train(replica, optimizer, range(STOP), world.rank, world.size)
    if kind == "fsdp":
        saved = optimizer.state_dict()
        optimizer = make_optimizer(case, model, world)
        optimizer.load_state_dict(saved)
    train(replica, optimizer, range(STOP, STEPS), world.rank, world.size)
    return {
        "moved": difference(weights(model, world), before),
        "weights": difference(weights(model, world), weights(alone, world)),
        "state": difference(optimizer.state_dict(), reference.state_dict()),
        "sharded": sum(world.is_sharded(value) for value in optimizer._slots().values()),
    }


def compare_all(cases: list[str]) -> dict[str, dict[str, float]]:
    """Compare every case, replicated and sharded."""
    with open_world("cpu", WorldConfig(backend="gloo")) as world:
        return {f"{kind}/{case}": compare(case, kind, world) for case in cases for kind in ("ddp", "fsdp")}
