"""Kernels in Triton equal what they replace, in values and in every gradient: on a GPU, or by Triton's interpreter.

pip install triton
python -m pytest tests/ops/test_triton.py             # add -m '' for the one that compiles for GPUs, which needs none
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ops.test_memory import MATRICES, Inputs, make_design
from torch.nn import functional as F

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytest.importorskip("triton")

from nested_learning import tree  # noqa: E402
from nested_learning.ops import gates, steps  # noqa: E402
from nested_learning.ops.associative import associative  # noqa: E402
from nested_learning.ops.memory import naive_associative  # noqa: E402
from nested_learning.ops.triton import gates as gate_kernels  # noqa: E402
from nested_learning.ops.triton import scans, systems  # noqa: E402

# chunks, tokens of a chunk, key width, value width
SIZES = [(1, 16, 16, 16), (2, 1, 16, 24), (3, 7, 10, 10), (7, 20, 17, 33), (2, 33, 64, 16), (2, 9, 128, 128)]


class Given:
    """Random chunks, scaled so that the state neither dies nor grows."""

    def __init__(self, size: tuple[int, int, int, int], *, momentum: bool, read: bool, dtype: torch.dtype) -> None:
        n, c, i, o = size
        s, gates = (2 * i, (3,)) if momentum else (i, ())
        self.generator, self.dtype = torch.Generator().manual_seed(n), dtype
        self.name = "scan_with_momentum" if momentum else "scan"
        self.read_keys = self.normal(1, 2, n, c, s) * s**-0.5 if read else None
        self.constant, self.write_keys = self.normal(1, 2, n, c, o), self.normal(1, 2, n, c, s) * 0.3 * c**-0.5
        self.decays, self.state = self.normal(*gates, 1, 2, n, 1, 1).sigmoid(), self.normal(1, 2, s, o)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.generator).to(DEVICE)

    def run(self, module) -> list[torch.Tensor]:
        """Outputs, and the gradients of all inputs."""
        leaves, outputs, loss = self.compute(module)
        return [*outputs, *torch.autograd.grad(loss, leaves)]

    def differentiate_twice(self, module) -> list[torch.Tensor]:
        """The gradients of the gradients' size."""
        leaves, _, loss = self.compute(module)
        gradients = torch.autograd.grad(loss, leaves, create_graph=True)
        return list(torch.autograd.grad(sum(gradient.square().mean() for gradient in gradients), leaves))

    def compute(self, module) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
        """Inputs, outputs and something to differentiate."""
        given = (self.read_keys, self.constant, self.write_keys, self.decays, self.state)
        leaves = [None if x is None else x.to(self.dtype).requires_grad_() for x in given]
        outputs = vars(module)[self.name](*leaves)
        loss = sum((output.sin() * (i + 1)).mean() for i, output in enumerate(outputs))
        return [x for x in leaves if x is not None], list(outputs), loss


def worst(left, right):
    pairs = zip(left, right, strict=True)
    return max(((x.double() - y.double()).abs().max() / y.abs().max()).item() for x, y in pairs)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("momentum", [False, True], ids=["plain", "momentum"])
@pytest.mark.parametrize("read", [False, True], ids=["written", "read"])
def test_a_scan_over_chunks_equals_the_loop_in_values_and_gradients(size, momentum, read):
    given = Given(size, momentum=momentum, read=read, dtype=torch.float32)
    single = given.run(scans)
    given.dtype = torch.float64
    assert worst(single, given.run(steps)) < 2e-6


def test_products_have_the_precision_that_torch_is_set_to():
    given = Given((3, 20, 32, 32), momentum=True, read=True, dtype=torch.float32)
    exact = given.run(steps)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        rounded = given.run(scans)
    finally:
        torch.set_float32_matmul_precision(before)
    # half of the last of the 8 bits of bfloat16 is 2e-3
    assert 1e-4 < worst(rounded, exact) < 2e-2


@pytest.mark.parametrize("momentum", [False, True], ids=["plain", "momentum"])
def test_gradients_can_be_differentiated(momentum):
    given = Given((3, 5, 16, 16), momentum=momentum, read=True, dtype=torch.float32)
    assert worst(given.differentiate_twice(scans), given.differentiate_twice(steps)) < 2e-6


def test_chunks_may_be_strided_views():
    given = Given((3, 8, 16, 16), momentum=False, read=True, dtype=torch.float32)
    packed = scans.scan(given.read_keys, given.constant, given.write_keys, given.decays, given.state)
    read_keys, constant = torch.cat([given.read_keys, given.constant], dim=-1).split([16, 16], dim=-1)
    strided = scans.scan(read_keys, constant, given.write_keys.mT.contiguous().mT, given.decays, given.state)
    assert worst(strided, packed) == 0


@pytest.mark.parametrize("size", [1, 16, 37])
def test_gates_are_unrolled_in_values_and_gradients(size):
    generator = torch.Generator().manual_seed(size)
    logits = [torch.randn(1, 2, 1, size, generator=generator).to(DEVICE) for _ in range(3)]
    results = []
    for module, dtype in ((gate_kernels, torch.float32), (gates, torch.float64)):
        leaves = [x.to(dtype).requires_grad_() for x in logits]
        given = gates.Gates(leaves[0].sigmoid(), F.logsigmoid(leaves[1] + 3), F.logsigmoid(leaves[2] + 1))
        decays = tree.leaves(module.unroll(given))
        loss = sum((x.sin() * (i + 1)).sum() for i, x in enumerate(decays))
        once = torch.autograd.grad(loss, leaves, retain_graph=True)
        with_graph = torch.autograd.grad(loss, leaves, create_graph=True)
        results.append([*decays, *once, *torch.autograd.grad(sum(x.square().sum() for x in with_graph), leaves)])
    assert worst(*results) < 2e-6


def test_gates_that_underflow_give_zero_and_not_nan():
    log_gates = torch.full((1, 1, 16), -200.0, device=DEVICE, requires_grad=True)
    given = gates.Gates(torch.ones(1, 1, 16, device=DEVICE), log_gates, log_gates)
    decays = gate_kernels.unroll(given)
    assert torch.equal(decays.written[0, 0], torch.eye(16, device=DEVICE))
    (gradient,) = torch.autograd.grad(decays.written.sum(), log_gates)
    assert not gradient.any()


@pytest.mark.parametrize("size, width", [(1, 5), (16, 16), (37, 3), (20, 80)])
def test_triangular_systems_are_solved_in_values_and_gradients(size, width):
    generator = torch.Generator().manual_seed(size)
    given = [torch.randn(1, 2, size, columns, generator=generator).to(DEVICE) for columns in (size, width)]
    given[0] = given[0].tril(-1) * 0.3 * size**-0.5
    results = []
    for form, dtype in ((systems.solve, torch.float32), (steps.solve, torch.float64)):
        leaves = [x.to(dtype).requires_grad_() for x in given]
        solution = form(*leaves)
        once = torch.autograd.grad(solution.sin().sum(), leaves, create_graph=True)
        twice = torch.autograd.grad(sum(x.square().sum() for x in once), leaves)
        results.append([solution, *once, *twice])
    assert worst(*([x for x in result if x.any()] for result in results)) < 2e-6


# each choice of every key, four designs of all
@pytest.mark.parametrize("choice", MATRICES[::5], ids=lambda choice: "-".join(map(str, choice)))
def test_memories_equal_the_token_loop_in_values_and_gradients(choice):
    design = make_design(*choice)
    naive = Inputs(27, 1, True, True, 3, torch.float64).run(naive_associative, design)
    single = Inputs(27, 1, True, True, 3, torch.float32).run(associative, replace(design, backend="triton"))
    assert worst(single, naive) < 2e-6


def test_deep_memories_equal_the_token_loop_in_values_and_gradients():
    design = make_design("l2", "dgd", "chunk", "token", 2, True)
    naive = Inputs(13, 2, True, False, 0, torch.float64).run(naive_associative, design)
    single = Inputs(13, 2, True, False, 0, torch.float32).run(associative, replace(design, backend="triton"))
    assert worst(single, naive) < 5e-6


@pytest.mark.slow
def test_kernels_compile_for_gpus_within_their_registers_and_shared_memory():
    script = Path(__file__).with_name("compile_kernels.py")
    environment = os.environ | {"TRITON_INTERPRET": "0", "PYTHONPATH": str(script.parents[2])}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
