"""Orthogonalisation by Newton-Schulz iterations: matrix products alone move all singular values towards 1."""

import torch

from nested_learning.shapes import Float, Tensor

# chosen for a steep slope at zero, which lifts small singular values fast; they settle near 1, not at 1
COEFFICIENTS = (3.4445, -4.775, 2.0315)
TINY = 1e-7


def newton_schulz(matrix: Float[Tensor, "*batch r c"], steps: int = 5) -> Float[Tensor, "*batch r c"]:
    """Replace the singular values of the last two dimensions by values in about (0.6, 1.2); zero stays zero.

    Computes in bfloat16 on CUDA and in float32 elsewhere (float64 stays float64); the result has the dtype of `matrix`.
    Source: Keller Jordan's Muon (https://kellerjordan.github.io/posts/muon/); the NS of Nested Learning, arXiv
    2512.24695, equation 52.
    """
    a, b, c = COEFFICIENTS
    rows, columns = matrix.shape[-2:]
    x = matrix.to(_working_dtype(matrix)).reshape(-1, rows, columns)
    # x xᵀ is square in the first dimension, so the shorter side goes first
    if rows > columns:
        x = x.mT
    # the iteration diverges for singular values well above 1; the Frobenius norm bounds the largest
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=TINY)
    for _ in range(steps):
        gram = x @ x.mT
        # a x + (b gram + c gram²) x; baddbmm adds in the kernel of the product
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    if rows > columns:
        x = x.mT
    return x.reshape(matrix.shape).to(matrix.dtype)


def _working_dtype(matrix: Tensor) -> torch.dtype:
    if matrix.dtype == torch.float64:
        return torch.float64
    return torch.bfloat16 if matrix.is_cuda else torch.float32
