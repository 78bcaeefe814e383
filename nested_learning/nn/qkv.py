"""Projections of the input to queries, keys and values, with short convolutions."""

from typing import NamedTuple

from einops import rearrange
from torch import nn
from torch.nn import functional as F

from nested_learning.nn.conv import ShortConv
from nested_learning.shapes import Float, Tensor


class Windows(NamedTuple):
    """Per row: the last inputs of the three convolutions."""

    query: Float[Tensor, "b w d"]
    key: Float[Tensor, "b w d"]
    value: Float[Tensor, "b w d"]


class QKVProjections(nn.Module):
    """`silu(conv(x W))` for queries, keys and values, split into heads (Titans, arXiv 2501.00663, equation 11).

    The convolutions are those of section 4.4. Arguments: width, heads, and the width of the convolutions.
    """

    def __init__(self, dim: int, num_heads: int, conv_width: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.query_conv = ShortConv(dim, conv_width)
        self.key_conv = ShortConv(dim, conv_width)
        self.value_conv = ShortConv(dim, conv_width)

    def init_state(self, batch: int) -> Windows:
        """Return the empty windows."""
        convs = (self.query_conv, self.key_conv, self.value_conv)
        query, key, value = (conv.init_state(batch) for conv in convs)
        return Windows(query, key, value)

    def forward(
        self, x: Float[Tensor, "b t d"], state: Windows
    ) -> tuple[Float[Tensor, "b h t k"], Float[Tensor, "b h t k"], Float[Tensor, "b h t k"], Windows]:
        """Return queries, keys and values of `x`, and the windows after it."""
        q, query = self.queries(x, state.query)
        k, key = self.key_conv(self.key(x), state.key)
        v, value = self.value_conv(self.value(x), state.value)
        return q, self._heads(k), self._heads(v), Windows(query, key, value)

    def queries(
        self, x: Float[Tensor, "b t d"], window: Float[Tensor, "b w d"]
    ) -> tuple[Float[Tensor, "b h t k"], Float[Tensor, "b w d"]]:
        """Return the queries of `x` alone, and the window after it."""
        q, window = self.query_conv(self.query(x), window)
        return self._heads(q), window

    def _heads(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b h t k"]:
        return rearrange(F.silu(z), "b t (h k) -> b h t k", h=self.num_heads)
