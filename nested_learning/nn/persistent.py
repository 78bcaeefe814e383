"""Persistent memory: learned tokens before the first token, independent of the input."""

from torch import nn
from torch.nn import functional as F

from nested_learning.shapes import Float, Tensor


class PersistentTokens(nn.Module):
    """Tokens that a layer reads before its input (Titans, arXiv 2501.00663, equation 19). Arguments: number, width.

    They are learned embeddings, normalised like those of tokens.
    """

    def __init__(self, num_tokens: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_tokens, dim)

    def forward(self) -> Float[Tensor, "1 p d"]:
        """Return the tokens, as one row."""
        weight = self.embedding.weight
        return F.rms_norm(weight, weight.shape[-1:])[None]
