"""`model=lstm`: an LSTM as the sequence mixer, a baseline for the memories."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.model.config import ModelConfig

if TYPE_CHECKING:
    from nested_learning.nn.language_model import LanguageModel


@dataclass(kw_only=True)
class LSTMConfig(ModelConfig):
    """Layers of an LSTM and an MLP. An LSTM has no heads: `num_heads` is not used."""

    def build(self, vocab_size: int, seed: int) -> "LanguageModel":
        """Build the model with the initial weights of `seed`."""
        from nested_learning.nn.lstm import LSTM

        return self.assemble(lambda: LSTM(self.dim), vocab_size, seed)
