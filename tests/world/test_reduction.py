"""Sums that do not depend on the number of processes: gradients in a fixed tree, metrics rounded once."""

import math
import random

import pytest
import torch
from together import together
from torch import nn
from world.members import gradients_of_pieces

from nested_learning.world.reduction import FixedTree, Node, folded, grown, messages
from nested_learning.world.world import exact_sum, in_parts


def tree_of(micro_batches: list[torch.Tensor], num_ranks: int) -> torch.Tensor:
    """Add up micro-batches as so many processes do."""
    each = len(micro_batches) // num_ranks
    nodes: list[Node] = []
    for rank in range(num_ranks):
        own: list[Node] = []
        for micro_batch in micro_batches[rank * each : (rank + 1) * each]:
            own = grown(own, Node(1, [micro_batch.clone()]))
        nodes = own if num_ranks == 1 else grown(nodes, *own)
    return folded(nodes).gradients[0]


@pytest.mark.parametrize("number", [1, 2, 3, 4, 6, 8, 12, 24])
def test_any_number_of_processes_adds_the_same_two_terms_at_each_node_of_the_tree(number):
    generator = torch.Generator().manual_seed(number)
    micro_batches = list(torch.randn(number, 1000, generator=generator))
    alone = tree_of(micro_batches, 1)
    assert torch.allclose(alone, torch.stack(micro_batches).sum(0), atol=1e-5)
    sizes = [size for size in range(2, number + 1) if number % size == 0 and (number // size).bit_count() == 1]
    for size in sizes:
        assert torch.equal(tree_of(micro_batches, size), alone), size
    if number > 4:
        in_order = sum(micro_batches[1:], micro_batches[0])
        assert not torch.equal(in_order, alone)


def test_a_tree_keeps_one_copy_for_each_of_its_levels():
    nodes, most = [], 0
    for number in range(1, 65):
        nodes = grown(nodes, Node(1, [torch.ones(1)]))
        most = max(most, len(nodes))
        assert sum(node.size for node in nodes) == number
    assert most == 6 and folded(nodes).gradients[0] == 64


def test_one_process_leaves_the_sum_in_grad_and_none_for_an_unused_parameter():
    model = nn.ModuleDict({"read": nn.Linear(3, 1, bias=False), "idle": nn.Linear(3, 1)})
    tree = FixedTree(model, 1)
    model["idle"].weight.grad = torch.ones(1, 3)
    for number in range(3):
        with tree.micro_batch(is_last=number == 2):
            tree.module["read"](torch.full((1, 3), 2.0**number)).sum().backward()
            assert model["read"].weight.grad.eq(2.0**number).all()
    tree.finish()
    assert model["read"].weight.grad.eq(7).all()
    assert model["idle"].weight.grad is None and model["idle"].bias.grad is None


def test_processes_send_nodes_and_keep_every_bit_of_them():
    alone = gradients_of_pieces(None)
    for found in together(gradients_of_pieces, 4, 4):
        assert found == alone
    # one is read by no process, one by the last micro-batch only, whose -0.0 stays what it is
    assert alone["idle"] is None and alone["late"] == (-0.0).hex()


def test_messages_have_one_type_and_a_size():
    tensors = [torch.zeros(n, dtype=dtype) for n, dtype in ((3, torch.float32), (2, torch.float32), (9, torch.float64))]
    tensors += [torch.zeros(1), torch.zeros(5), torch.zeros(20), torch.zeros(1)]
    cut = [[len(tensor) for tensor in message] for message in messages(tensors, 6)]
    assert cut == [[3, 2], [9], [1, 5], [20], [1]]


def test_a_sum_does_not_depend_on_which_process_has_which_terms():
    pick = random.Random(0)
    for _ in range(50):
        terms = [pick.gauss(0, 1) * 10.0 ** pick.randint(-12, 12) for _ in range(40)]
        cuts = sorted(pick.sample(range(41), 3))
        hands = [terms[:cuts[0]], terms[cuts[0]:cuts[1]], terms[cuts[1]:cuts[2]], terms[cuts[2]:]]  # fmt: skip
        pick.shuffle(hands)
        assert exact_sum([part for hand in hands for part in in_parts(hand)]) == math.fsum(terms)


def test_what_is_not_finite_stays_so_in_a_sum():
    for terms, expected in (
        ([1.0, math.inf], math.inf),
        ([math.nan, 1.0], math.nan),
        ([math.inf, -math.inf], math.nan),
    ):
        found = exact_sum([part for term in terms for part in in_parts([term])])
        assert found == expected or (math.isnan(found) and math.isnan(expected))
    assert in_parts([]) == [0.0, 0.0, 0.0]
