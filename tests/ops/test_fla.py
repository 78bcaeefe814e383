"""A memory without momentum equals the gated delta rule of flash-linear-attention."""

import importlib.util
import sys
from itertools import product
from types import ModuleType

import pytest
import torch
from torch.nn import functional as F

from nested_learning import tree
from nested_learning.errors import ConfigError
from nested_learning.ops import fla, matrix
from nested_learning.ops.gates import Gates
from nested_learning.ops.memory import Design, Tokens, init_memory, naive_associative

MEMORIES = [choice for choice in product(("l2", "dot"), ("gd", "dgd"), (False, True)) if choice[:2] != ("dot", "gd")]


def design_of(objective: str, rule: str, gradient: str = "token", read: str = "token") -> Design:
    return Design(objective, rule == "dgd", gradient, read, False, False, 4)


class Given:
    """Random tokens, gates, weights and, with `on_base`, a base."""

    def __init__(self, t: int, dim: int, on_base: bool, dtype: torch.dtype, device: str) -> None:
        generator = torch.Generator().manual_seed(t)

        def leaf(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device, dtype)

        q, k, v = leaf(2, 3, t, dim), leaf(2, 3, t, dim), leaf(2, 3, t, dim)
        gates = Gates(leaf(2, 3, t).sigmoid(), F.logsigmoid(leaf(2, 3, t) + 2), None)
        self.tokens = Tokens(F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, gates)
        self.memory = init_memory((leaf(2, 3, dim, dim) * dim**-0.5,), momentum=False)
        self.base = (leaf(3, dim, dim) * dim**-0.5,) if on_base else None
        self.leaves = [*self.tokens[:3], *gates[:2], *self.memory.weight, *(self.base or ())]
        for x in self.leaves:
            x.requires_grad_()

    def in_chunks(self, chunk: int) -> tuple:
        return tree.map(lambda x: x.unflatten(2, (-1, chunk)), self.tokens), self.memory, self.base


def gated_delta_rule(q, k, delta, state):
    """Equation 10 of Gated DeltaNet, token by token, as fla documents it."""
    outputs = []
    for t in range(q.shape[2]):
        qt, kt, vt = (x[:, :, t, None] for x in (q, k, delta.value))
        state = delta.log_retention[:, :, t, None, None].exp() * state
        state = state + delta.beta[:, :, t, None, None] * kt.mT @ (vt - kt @ state)
        outputs.append(qt @ state)
    return torch.cat(outputs, dim=2), state


@pytest.mark.parametrize("objective, rule, on_base", MEMORIES)
def test_a_memory_without_momentum_is_the_gated_delta_rule(objective, rule, on_base):
    given, design = Given(11, 6, on_base, torch.float64, "cpu"), design_of(objective, rule)
    delta = fla.as_gated_delta(given.tokens, given.base, design)
    y, end = gated_delta_rule(given.tokens.q, given.tokens.k, delta, given.memory.weight[0])
    y = y if given.base is None else y + given.tokens.q @ given.base[0]
    expected, after = naive_associative(given.tokens, given.memory, given.base, design)
    assert (y - expected).abs().max() < 1e-12
    assert (end - after.weight[0]).abs().max() < 1e-12


def in_the_layout_of_fla(q, k, v, g, beta, *, scale, initial_state, output_final_state):
    """`chunk_gated_delta_rule` as fla documents it: `[b t h d]` tokens, `[b t h]` gates."""
    assert scale == 1.0
    assert output_final_state
    q, k, v, g, beta = (x.transpose(1, 2) for x in (q, k, v, g, beta))
    y, end = gated_delta_rule(q, k, fla.GatedDelta(v, g, beta), initial_state)
    return y.transpose(1, 2), end


@pytest.mark.parametrize("objective, rule, on_base", MEMORIES)
def test_chunks_are_passed_to_fla_in_its_layout(objective, rule, on_base, monkeypatch):
    for name in ("fla", "fla.ops", "fla.ops.gated_delta_rule"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["fla.ops.gated_delta_rule"].chunk_gated_delta_rule = in_the_layout_of_fla
    given, design = Given(12, 6, on_base, torch.float64, "cpu"), design_of(objective, rule)
    y, after = fla.chunks(*given.in_chunks(4), design)
    expected, expected_after = matrix.chunks(*given.in_chunks(4), design)
    assert (y - expected).abs().max() < 1e-12
    assert (after.weight[0] - expected_after.weight[0]).abs().max() < 1e-12
    assert after.reference[0] is after.weight[0]


@pytest.mark.parametrize(
    "design, momentum, word",
    [
        (design_of("l2", "gd"), True, "momentum"),
        (design_of("dot", "gd"), False, "objective"),
        (design_of("l2", "gd", gradient="chunk"), False, "gradient"),
        (design_of("l2", "gd", read="chunk"), False, "read"),
    ],
)
def test_a_memory_that_fla_has_no_kernel_for_is_refused(design, momentum, word):
    tokens, memory, base = Given(8, 4, False, torch.float32, "cpu").in_chunks(4)
    if momentum:
        tokens = tokens._replace(gates=tokens.gates._replace(log_momentum=tokens.gates.log_retention))
    with pytest.raises(ConfigError, match=f"backend=fla has no kernel for memories with {word}"):
        fla.chunks(tokens, memory, base, design)


@pytest.mark.skipif(
    not torch.cuda.is_available() or importlib.util.find_spec("fla") is None, reason="no GPU, or no fla"
)
@pytest.mark.parametrize("objective, rule, on_base", MEMORIES)
def test_kernels_of_fla_equal_the_memory_in_values_and_gradients(objective, rule, on_base):
    results = []
    for form, dtype in ((fla.chunks, torch.float32), (matrix.chunks, torch.float64)):
        given = Given(192, 64, on_base, dtype, "cuda")
        y, after = form(*given.in_chunks(64), design_of(objective, rule))
        loss = y.sin().mean() + after.weight[0].sin().mean()
        results.append([y, *after.weight, *torch.autograd.grad(loss, given.leaves)])
    for kernel, exact in zip(*results, strict=True):
        # products are TF32
        assert (kernel - exact).abs().max() < 5e-3 * exact.abs().max()
