"""The hidden units of a gated MLP, and the gradient of the MLP's matrices in closed form."""

import torch
from torch.nn import functional as F

from nested_learning.shapes import Float, Tensor


def swiglu(below: Float[Tensor, "*n u"]) -> Float[Tensor, "*n f"]:
    """Return `silu(gate) * value`, where `below = [gate, value]` (SwiGLU, arXiv 2002.05202, equation 6)."""
    gate, value = below.chunk(2, dim=-1)
    return F.silu(gate) * value


def swiglu_gradient(
    z: Float[Tensor, "b t d"],
    below: Float[Tensor, "b t u"],
    hidden: Float[Tensor, "b t f"],
    down: Float[Tensor, "*b d f"],
    error: Float[Tensor, "b t d"],
) -> tuple[Float[Tensor, "b u d"], Float[Tensor, "b d f"]]:
    """Return the gradients of `up` and `down` in `swiglu(z upᵀ) downᵀ`, for each row, summed over its tokens.

    `below = z upᵀ`, `hidden = swiglu(below)`; `down` is one for each row or shared; `error` is the gradient at the
    output. Autograd is not used: the result can be differentiated again, and needs no graph of the forward pass.
    """
    gate, value = below.chunk(2, dim=-1)
    sigmoid, d_hidden = gate.sigmoid(), error @ down
    # silu(g) = g sigmoid(g), with the derivative sigmoid(g) (1 + g (1 - sigmoid(g)))
    d_gate = d_hidden * value * sigmoid * (1 + gate * (1 - sigmoid))
    d_value = d_hidden * gate * sigmoid
    return torch.cat([d_gate, d_value], dim=-1).mT @ z, error.mT @ hidden
