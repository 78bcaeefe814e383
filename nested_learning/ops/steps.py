"""The inner steps of the closed forms that have two implementations: torch, and kernels in Triton.

Everything else in the closed forms is products and sums, for which torch has fast kernels.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from nested_learning.ops.gates import unroll
from nested_learning.shapes import Float, Tensor


class Steps(NamedTuple):
    """The functions that unroll gates, solve triangular systems, and scan over chunks, without and with momentum."""

    unroll: Callable
    solve: Callable
    scan: Callable
    scan_with_momentum: Callable


def steps(backend: str) -> Steps:
    """Return the steps of `backend`: Triton's for "triton", torch's for the others."""
    if backend == "triton":
        # the triton package exists only on machines with CUDA
        from nested_learning.ops.triton import gates, scans, systems

        return Steps(gates.unroll, systems.solve, scans.scan, scans.scan_with_momentum)
    return Steps(unroll, solve, scan, scan_with_momentum)


def solve(system: Float[Tensor, "*n c c"], right: Float[Tensor, "*n c m"]) -> Float[Tensor, "*n c m"]:
    """Solve `(I + X) E = R`, where X is the part of `system` below its diagonal; the rest of it is not read."""
    return torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)


def scan(
    read_keys: Float[Tensor, "b h n c i"] | None,
    constant: Float[Tensor, "b h n c o"],
    write_keys: Float[Tensor, "b h n c i"],
    decays: Float[Tensor, "b h n 1 1"],
    weight: Float[Tensor, "b h i o"],
) -> tuple[Float[Tensor, "b h n i o"], Float[Tensor, "b h n c o"], Float[Tensor, "b h i o"]]:
    """Scan over chunks: `E = A W + B`, `W <- decay W - Y^T E`, with A `read_keys`, B `constant` and Y `write_keys`.

    Returns W at the start of every chunk, E of every chunk, and the last W. `read_keys` None: the errors do not depend
    on the state.
    """
    starts, errors = [], []
    # unbound at once: the gradient of indexing one chunk is a full-length tensor of zeros for every chunk
    reads = [None] * constant.shape[2] if read_keys is None else read_keys.unbind(2)
    chunks = zip(reads, constant.unbind(2), write_keys.mT.unbind(2), decays.unbind(2), strict=True)
    for a, b, y, decay in chunks:
        error = b if a is None else b + a @ weight
        starts.append(weight)
        errors.append(error)
        weight = decay * weight - y @ error
    return torch.stack(starts, dim=2), torch.stack(errors, dim=2), weight


def scan_with_momentum(
    read_keys: Float[Tensor, "b h n c s"] | None,
    constant: Float[Tensor, "b h n c o"],
    write_keys: Float[Tensor, "b h n c s"],
    decays: Float[Tensor, "3 b h n 1 1"],
    state: Float[Tensor, "b h s o"],
) -> tuple[Float[Tensor, "b h n s o"], Float[Tensor, "b h n c o"], Float[Tensor, "b h s o"]]:
    """`scan` for the state [W; S]: `W <- kept W + pushed S - ...`, `S <- momentum_kept S - ...`."""
    starts, errors = [], []
    reads = [None] * constant.shape[2] if read_keys is None else read_keys.unbind(2)
    chunks = zip(reads, constant.unbind(2), write_keys.mT.unbind(2), decays.unbind(3), strict=True)
    for a, b, y, (kept, pushed, momentum_kept) in chunks:
        error = b if a is None else b + a @ state
        starts.append(state)
        errors.append(error)
        weight, momentum = state.chunk(2, dim=-2)
        state = torch.cat([kept * weight + pushed * momentum, momentum_kept * momentum], dim=-2) - y @ error
    return torch.stack(starts, dim=2), torch.stack(errors, dim=2), state
