"""Root-mean-square normalisation, in the precision of its scale."""

import torch
from torch import nn
from torch.nn import functional as F

from nested_learning.shapes import Float, Tensor


class RMSNorm(nn.Module):
    """`x / rms(x) * scale` over the last dimension (arXiv 1910.07467, equation 4).

    Under autocast it computes in the precision of its scale and returns that of `x`.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Normalise `x`, of any shape that ends in `dim`."""
        return F.rms_norm(x.to(self.scale.dtype), self.scale.shape, self.scale).to(x.dtype)
