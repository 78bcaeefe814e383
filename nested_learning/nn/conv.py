"""Depthwise causal convolution over a few tokens, applied to queries, keys and values of memories."""

import functools

import torch
from torch import nn

from nested_learning.shapes import Float, Tensor


class ShortConv(nn.Module):
    """Depthwise causal convolution, `y_t = sum_j weight_j * x_{t-j}` (Titans, arXiv 2501.00663, section 4.4).

    Its state is the window of the last `width - 1` inputs, `[b w d]`, zeros before the first token. It starts as the
    identity.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, dim))
        self.weight.data[0] = 1.0

    def init_state(self, batch: int) -> Float[Tensor, "b w d"]:
        """Return the empty window, `[b width-1 d]`."""
        width, dim = self.weight.shape
        return self.weight.new_zeros(batch, width - 1, dim)

    def forward(
        self, x: Float[Tensor, "b t d"], state: Float[Tensor, "b w d"]
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b w d"]]:
        """Convolve `x`, continuing from the window `state`; return the outputs and the next window."""
        width, t = self.weight.shape[0], x.shape[1]
        seen = torch.cat([state.to(x.dtype), x], dim=1)
        parts = (self.weight[j] * seen[:, width - 1 - j : width - 1 - j + t] for j in range(width))
        y = functools.reduce(torch.add, parts)
        return y, seen[:, t:]
