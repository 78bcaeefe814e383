"""Every design of a memory, computed in chunks, equals its token loop, in values and in every gradient."""

from itertools import pairwise, product

import pytest
import torch
from torch.nn import functional as F

from nested_learning import tree
from nested_learning.ops.associative import associative
from nested_learning.ops.gates import GateKinds, Gates
from nested_learning.ops.memory import Design, Memory, Tokens, init_memory, naive_associative

CHUNK, BATCH, HEADS, DIM, HIDDEN = 8, 2, 3, 10, 7
LENGTHS = [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3]

# objective, rule, gradient, read, depth, norm
MATRICES = [
    (*choice, 1, False) for choice in product(("l2", "dot"), ("gd", "dgd"), ("token", "chunk"), ("token", "chunk"))
]
DEEP = [
    (objective, rule, "chunk", read, depth, norm)
    for objective, rule, read in product(("l2", "dot"), ("gd", "dgd"), ("token", "chunk"))
    for depth, norm in ((1, True), (2, False), (2, True), (3, False))
]


def make_design(objective: str, rule: str, gradient: str, read: str, depth: int, norm: bool) -> Design:
    return Design(objective, rule == "dgd", gradient, read, depth > 1 or norm, norm, CHUNK)


class Inputs:
    """Random tokens, gates and weights; a state in the middle of a chunk where `position` is not 0."""

    def __init__(self, t: int, depth: int, momentum: bool, on_base: bool, position: int, dtype: torch.dtype) -> None:
        self.generator, self.dtype, self.leaves, self.position = torch.Generator().manual_seed(t), dtype, [], position
        self.q = self.leaf(F.normalize(self.normal(BATCH, HEADS, t, DIM), dim=-1))
        self.k = self.leaf(F.normalize(self.normal(BATCH, HEADS, t, DIM), dim=-1))
        self.v = self.leaf(self.normal(BATCH, HEADS, t, DIM))
        self.logits = [self.leaf(self.normal(BATCH, HEADS, t)) for _ in range(2 + momentum)]
        dims = [DIM, *[HIDDEN] * (depth - 1), DIM]
        self.shapes = list(pairwise(dims))
        self.weight = self.weights(BATCH)
        self.reference = self.weights(BATCH) if position else self.weight
        self.momentum = self.weights(BATCH) if momentum else ()
        self.base = self.weights() if on_base else None

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def leaf(self, x: torch.Tensor) -> torch.Tensor:
        self.leaves.append(x.to(self.dtype).requires_grad_())
        return self.leaves[-1]

    def weights(self, *rows: int) -> tuple[torch.Tensor, ...]:
        return tuple(self.leaf(self.normal(*rows, HEADS, *shape) * shape[0] ** -0.5) for shape in self.shapes)

    def run(self, form, design: Design, create_graph: bool = False) -> list[torch.Tensor]:
        """Outputs, states and the gradients of all inputs."""
        # a norm magnifies rounding from chunk to chunk, the more the higher the rates
        largest = 0.005 if design.norm else 0.05
        rate, retention = largest * self.logits[0].sigmoid(), F.logsigmoid(self.logits[1] + 2)
        gates = Gates(rate, retention, F.logsigmoid(self.logits[2] - 1) if self.momentum else None)
        memory = Memory(self.reference, self.weight, self.momentum, self.position)
        y, after = form(Tokens(self.q, self.k, self.v, gates), memory, self.base, design)
        assert after.position == (self.position + self.q.shape[2]) % design.chunk
        outputs = [y, *tree.leaves(after)]
        loss = sum((output.sin() * (i + 1)).sum() for i, output in enumerate(outputs))
        options = {"allow_unused": True, "materialize_grads": True, "create_graph": create_graph}
        return [*outputs, *torch.autograd.grad(loss, self.leaves, **options)]


def worst(left, right):
    pairs = zip(left, right, strict=True)
    return max(((x.double() - y).abs().max() / y.abs().max().clamp_min(1)).item() for x, y in pairs)


@pytest.mark.parametrize("choice", [*MATRICES, *DEEP], ids=lambda choice: "-".join(map(str, choice)))
@pytest.mark.parametrize("momentum", [False, True], ids=["plain", "momentum"])
def test_chunks_equal_the_token_loop_in_values_and_gradients(choice, momentum):
    design, depth = make_design(*choice), choice[4]
    for t, on_base, position in [*((t, False, 0) for t in LENGTHS), (27, True, 3)]:
        fast, naive = (
            Inputs(t, depth, momentum, on_base, position, torch.float64).run(form, design)
            for form in (associative, naive_associative)
        )
        assert worst(fast, naive) < 1e-12, (t, on_base, position)


@pytest.mark.parametrize("choice", [("l2", "gd", "token", "token", 1, False), ("l2", "gd", "chunk", "token", 2, False)])
def test_single_precision_stays_within_two_millionths_of_double(choice):
    design = make_design(*choice)
    single = Inputs(63, choice[4], True, False, 0, torch.float32).run(associative, design)
    double = Inputs(63, choice[4], True, False, 0, torch.float64).run(naive_associative, design)
    assert worst(single, double) < 2e-6


def test_in_chunks_of_one_token_gradients_at_the_chunk_start_are_token_gradients():
    inputs = Inputs(9, 1, True, False, 0, torch.float64)
    token = inputs.run(associative, Design("l2", False, "token", "token", False, False, 1))
    chunk = inputs.run(associative, Design("l2", False, "chunk", "token", False, False, 1))
    assert worst(chunk, token) < 1e-12


def test_with_gradients_and_reads_per_token_the_chunk_size_has_no_effect():
    inputs = Inputs(21, 1, True, False, 0, torch.float64)
    results = [inputs.run(associative, Design("l2", True, "token", "token", False, False, c)) for c in (1, 4, 64)]
    # the reference, second of the outputs, is the weights of the chunk's start and differs
    assert worst([results[0][0], *results[0][2:4]], [results[2][0], *results[2][2:4]]) < 1e-12
    assert worst([results[1][0], *results[1][2:4]], [results[2][0], *results[2][2:4]]) < 1e-12


def test_a_written_pair_is_read_back_exactly_at_rate_one():
    k = F.normalize(torch.randn(1, 1, 1, 5, dtype=torch.float64), dim=-1)
    v = torch.randn(1, 1, 1, 7, dtype=torch.float64)
    gates = Gates(torch.ones(1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, dtype=torch.float64), None)
    memory = init_memory((torch.randn(1, 1, 5, 7, dtype=torch.float64),), momentum=False)
    y, _ = associative(Tokens(k, k, v, gates), memory, None, Design("l2", False, "token", "token", False, False, 4))
    assert torch.allclose(y, v)


def test_linear_attention_is_the_sum_of_values_weighted_by_keys():
    inputs = Inputs(19, 1, False, False, 0, torch.float64)
    gates = GateKinds("one", "none", "none", 1.0).open(torch.zeros(BATCH, HEADS, 19, 0, dtype=torch.float64))
    memory = init_memory((torch.zeros(BATCH, HEADS, DIM, DIM, dtype=torch.float64),), momentum=False)
    design = make_design("dot", "gd", "token", "token", 1, False)
    y, _ = associative(Tokens(inputs.q, inputs.k, inputs.v, gates), memory, None, design)
    assert torch.allclose(y, (inputs.q @ inputs.k.mT).tril() @ inputs.v)


def test_a_fixed_retention_is_that_of_retnet():
    gates = GateKinds("one", "fixed", "none", 1.0).open(torch.zeros(1, 3, 2, 0, dtype=torch.float64))
    expected = torch.tensor([1 - 2.0**-5, 1 - 2.0**-6, 1 - 2.0**-7], dtype=torch.float64)
    assert torch.allclose(gates.log_retention[0, :, 0].exp(), expected)


def test_delta_gradient_descent_on_a_dot_product_is_the_delta_rule():
    inputs = Inputs(19, 1, False, False, 0, torch.float64)
    dgd = inputs.run(associative, make_design("dot", "dgd", "token", "token", 1, False))
    delta = inputs.run(associative, make_design("l2", "gd", "token", "token", 1, False))
    assert worst(dgd, delta) < 1e-14
