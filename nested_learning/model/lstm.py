"""`model=lstm`: an LSTM as the sequence mixer, a baseline for the memories."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.model.config import ModelConfig

if TYPE_CHECKING:
    from nested_learning.nn.language_model import LanguageModel


@dataclass(kw_only=True)
class LSTMConfig(ModelConfig):
    """An LSTM, then one MLP, a layer. An LSTM has one state: `num_heads` changes nothing."""

    def build(self, vocab_size: int, seed: int) -> "LanguageModel":
        """Build the model with the initial weights of `seed`."""
        from nested_learning.nn.lstm import LSTM

        return self.assemble(lambda: LSTM(self.dim), vocab_size, seed)
