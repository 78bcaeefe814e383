"""The initial weights of a layer's memories: meta-learned, shared by all rows, one set per head."""

from itertools import pairwise

import torch
from einops import repeat
from torch import nn

from nested_learning.ops.memory import Weights


class MemoryWeights(nn.Module):
    """The weights `[h in out]` of each of the `depth` layers of a memory from `num_inputs` to `num_outputs`.

    `start` is the map it is initialized to: "identity" (for a deep memory, by its residual) or "zero". With several
    layers the last is zero and the others are random. "drawn" makes all random: a norm has no gradient at zero.
    """

    def __init__(
        self, num_heads: int, num_inputs: int, num_outputs: int, depth: int, hidden_dim: int, start: str
    ) -> None:
        super().__init__()
        self.start = start
        widths = [num_inputs, *[hidden_dim] * (depth - 1), num_outputs]
        self.layers = nn.ParameterList(torch.zeros(num_heads, inputs, outputs) for inputs, outputs in pairwise(widths))
        if depth == 1 and start == "identity":
            self.layers[0].data.copy_(torch.eye(num_inputs))

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """Draw the random layers in place, with standard deviation 1 / sqrt(inputs); constant ones do not change."""
        for layer in self.layers if self.start == "drawn" else self.layers[:-1]:
            layer.copy_(torch.randn(layer.shape, generator=generator) * layer.shape[-2] ** -0.5)

    def weights(self) -> Weights:
        """Return the weights of every layer."""
        return tuple(self.layers)

    def of_rows(self, batch: int) -> Weights:
        """Return the weights once for each of `batch` rows."""
        return tuple(repeat(layer, "h i o -> b h i o", b=batch) for layer in self.layers)
