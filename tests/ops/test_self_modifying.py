"""The self-modifying memories in chunks equal their token loop, in values and in every gradient."""

from itertools import pairwise, product

import pytest
import torch

from nested_learning import tree
from nested_learning.ops.gates import GateKinds
from nested_learning.ops.memory import Design, full_weights, init_memory
from nested_learning.ops.self_modifying import (
    NUM_GATE_SETS,
    QKV,
    READ,
    SelfDesign,
    chunk_start_weights,
    generate,
    naive_self_modifying,
    self_modifying,
)

CHUNK, DIM, HEADS, BATCH, HIDDEN = 8, 6, 2, 3, 7
LENGTHS = [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3]
ALL = ("key", "value", "gates")
SOME = ((), ("value",), (*ALL, "query"))
# adaptive, depth, rule, gradient, momentum, read
CASES = [
    *((ALL, 1, *choice, "token") for choice in product(("dgd", "gd"), ("token", "chunk"), ("none", "gate"))),
    *((ALL, depth, "dgd", "chunk", "gate", read) for depth, read in product((2, 3), ("token", "chunk"))),
    *((adaptive, depth, "dgd", "chunk", "none", "token") for adaptive in SOME for depth in (1, 2)),
]


def make_design(rule="dgd", gradient="token", momentum="none", read="token", residual=False, chunks=(CHUNK, CHUNK)):
    generating, reading = (Design("l2", rule == "dgd", gradient, read, residual, False, chunk) for chunk in chunks)
    return SelfDesign(generating, reading, GateKinds("gate", "gate", momentum, 0.1))


def make_inputs(t, design, adaptive=ALL, depth=1):
    generator = torch.Generator().manual_seed(t)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    num_gates = NUM_GATE_SETS * len(design.kinds.learned)
    base = {}
    for name in (*adaptive, READ):
        dims = [DIM, *[HIDDEN] * (depth - 1), num_gates if name == "gates" else DIM]
        base[name] = tuple((normal(HEADS, i, o) * i**-0.5).requires_grad_() for i, o in pairwise(dims))
    qkv = QKV(*(normal(BATCH, HEADS, t, width).requires_grad_() for width in (DIM, DIM, DIM, num_gates)))
    state = {
        name: init_memory(
            tuple(torch.zeros(BATCH, *layer.shape, dtype=torch.float64) for layer in layers),
            momentum=design.kinds.momentum == "gate",
        )
        for name, layers in base.items()
    }
    return qkv, base, state


def assert_equal_to_the_loop(design, adaptive, depth, t):
    results = []
    for form in (self_modifying, naive_self_modifying):
        qkv, base, state = make_inputs(t, design, adaptive, depth)
        y, after = form(qkv, base, state, design)
        outputs = [y, *tree.leaves(after)]
        loss = sum((output.sin() * (i + 1)).sum() for i, output in enumerate(outputs))
        leaves = [*qkv, *tree.leaves(base)]
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        results.append([*outputs, *gradients])
    pairs = zip(*results, strict=True)
    assert max(((a - b).abs().max() / b.abs().max().clamp_min(1)).item() for a, b in pairs) < 1e-12


@pytest.mark.parametrize("adaptive,depth,rule,gradient,momentum,read", CASES)
def test_chunks_equal_the_token_loop_in_values_and_gradients(adaptive, depth, rule, gradient, momentum, read):
    for t in LENGTHS:
        design = make_design(rule, gradient, momentum, read, residual=depth > 1)
        assert_equal_to_the_loop(design, adaptive, depth, t)


@pytest.mark.parametrize("chunks", [(4, 8), (8, 4), (3, 7), (1, 5)])
@pytest.mark.parametrize("depth", [1, 2])
def test_the_two_chunk_sizes_are_independent(chunks, depth):
    design = make_design(gradient="chunk" if depth > 1 else "token", residual=depth > 1, chunks=chunks)
    assert_equal_to_the_loop(design, ALL, depth, 30)


def test_the_memories_rewrite_the_projections_that_generate_keys_and_rates():
    design = make_design()
    qkv, base, state = make_inputs(2 * CHUNK, design)
    _, after = self_modifying(qkv, base, state, design)
    before, now = (generate(qkv, chunk_start_weights(base, s), design) for s in (state, after))
    assert (before.key - now.key).abs().max() > 0.01
    assert (before.read.rate - now.read.rate).abs().max() > 1e-3


def test_generated_projections_change_only_at_the_ends_of_their_own_chunks():
    design = make_design(chunks=(5, 64))
    qkv, base, state = make_inputs(4, design)
    _, after = self_modifying(qkv, base, state, design)
    assert all(
        torch.equal(x, y)
        for x, y in zip(*(tree.leaves(chunk_start_weights(base, s)) for s in (state, after)), strict=True)
    )
    assert not torch.equal(after["key"].weight[0], state["key"].weight[0])


def test_a_retention_of_zero_returns_to_the_meta_learned_weights():
    design = make_design()
    qkv, base, state = make_inputs(1, design)
    state = tree.map(lambda x: torch.ones_like(x), state)
    base["gates"] = (torch.zeros_like(base["gates"][0]),)
    state["gates"] = init_memory((torch.zeros_like(state["gates"].weight[0]),), momentum=False)
    y, after = self_modifying(qkv._replace(gates=torch.full_like(qkv.gates, -1000.0)), base, state, design)
    assert after[READ].weight[0].abs().max() < 1e-12
    query = torch.nn.functional.normalize(qkv.query, dim=-1)
    assert torch.allclose(y, query @ full_weights(base[READ], after[READ].weight)[0])
