"""Many small unit-lower-triangular systems on a GPU, by forward substitution: they give the errors of a chunk.

One program solves one system for a block of right-hand sides, which stay in registers, token by token. The backward
pass solves the transposed system, from the last token to the first. cuBLAS is slow for systems of this size.
"""

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl

from nested_learning.ops.triton.tiles import SMALLEST, load, store
from nested_learning.shapes import Float, Tensor

# numbers that a program holds in registers, and the most right-hand sides it solves for
TILE, COLUMNS = 4096, 64


@triton.jit
@no_type_check
def _solve(system, right, solution, size, width, blocks: tl.constexpr, back: tl.constexpr):
    one = tl.program_id(0).to(tl.int64)
    rows, columns = tl.arange(0, blocks[0]), tl.program_id(1) * blocks[1] + tl.arange(0, blocks[1])
    solved = load(right + one * size * width, rows, columns, size, width, width)
    for step in range(1, size):
        row = size - 1 - step if back else step
        at = system + one * size * size
        # row `row` of the system, masked to the tokens that are solved already: those before, or, transposed, after
        if back:
            weights = tl.load(at + rows * size + row, mask=(rows < size) & (rows > row), other=0.0)
        else:
            weights = tl.load(at + row * size + rows, mask=rows < row, other=0.0)
        known = tl.sum(weights[:, None] * solved, axis=0)
        solved = tl.where((rows == row)[:, None], solved - known[None, :], solved)
    store(solution + one * size * width, solved, rows, columns, size, width, width)


def launch(system: Float[Tensor, "n c c"], right: Float[Tensor, "n c m"], *, back: bool) -> Float[Tensor, "n c m"]:
    """Solve `(I + X) E = R`, or `(I + X)^T E = R`; X is the part of `system` below its diagonal."""
    assert system.dtype == right.dtype == torch.float32, "the kernel computes in float32"
    number, size, width = right.shape
    solution = torch.empty_like(right)
    rows = max(SMALLEST, triton.next_power_of_2(size))
    columns = max(1, min(COLUMNS, TILE // rows, triton.next_power_of_2(width)))
    with torch.cuda.device_of(right):
        _solve[number, triton.cdiv(width, columns)](
            system, right, solution, size=size, width=width, blocks=(rows, columns), back=back
        )
    return solution


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, back: bool, system: Tensor, right: Tensor) -> Tensor:
        """Run the kernel."""
        system = system.contiguous()
        solution = launch(system, right.contiguous(), back=back)
        ctx.back = back
        ctx.save_for_backward(system, solution)
        return solution

    @staticmethod
    def backward(ctx: Any, d_solution: Tensor) -> tuple[None, Tensor, Tensor]:
        """Solve the transposed system."""
        system, solution = ctx.saved_tensors
        d_right = _Solve.apply(not ctx.back, system, d_solution)
        d_system = solution @ d_right.mT if ctx.back else d_right @ solution.mT
        return None, -d_system.tril(-1), d_right


def solve(system: Float[Tensor, "*n c c"], right: Float[Tensor, "*n c m"]) -> Float[Tensor, "*n c m"]:
    """Compute `torch.linalg.solve_triangular(..., upper=False, unitriangular=True)` in one kernel."""
    leading = right.shape[:-2]
    solution: Tensor = _Solve.apply(False, system.flatten(0, -3), right.flatten(0, -3))
    return solution.unflatten(0, leading)
