"""Two processes, with whole or sharded parameters, learn what one process learns, by every rule, over gloo."""

import pytest
import torch
from optim.train_in_processes import compare_all
from together import together

from nested_learning.optim.processes import ALONE, Processes
from nested_learning.world.world import World

RULES = [
    *("gd", "momentum", "preconditioned_momentum", "delta_momentum", "deep_momentum", "dgd", "adamw", "muon", "m3"),
    *("muon_flatten", "m3_slow", "dgd_slow"),
]


@pytest.fixture(scope="module")
def results():
    """Train by every rule in two processes, once for all tests; return the differences to one process."""
    return together(compare_all, 2, RULES)[0]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("rule", RULES)
def test_two_processes_learn_what_one_learns(rule, kind, results):
    result = results[f"{kind}/{rule}"]
    assert result["moved"] > 1e-3
    assert result["weights"] < 1e-9
    assert result["state"] < 1e-9


@pytest.mark.parametrize("rule", ["momentum", "adamw", "muon", "m3", "muon_flatten"])
def test_the_state_of_a_sharded_parameter_is_sharded_too(rule, results):
    assert results[f"fsdp/{rule}"]["sharded"] >= 3
    assert results[f"ddp/{rule}"]["sharded"] == 0


def test_a_world_implements_the_interface_that_optimizers_use():
    world = World(0, 1, 0, torch.device("cpu"), "gloo")
    assert isinstance(world, Processes) and isinstance(ALONE, Processes)
    tensor = torch.ones(2, 3)
    for processes in (world, ALONE):
        assert not processes.is_sharded(tensor)
        assert processes.whole(tensor) is tensor
        assert processes.shard_like(tensor, torch.zeros(2, 3)) is tensor
        assert processes.total(tensor) is tensor
