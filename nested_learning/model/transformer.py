"""`model=transformer`: the baseline with softmax attention."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.errors import ConfigError
from nested_learning.model.config import ModelConfig, windowed

if TYPE_CHECKING:
    from nested_learning.nn.language_model import LanguageModel


@dataclass(kw_only=True)
class TransformerConfig(ModelConfig):
    """Pre-norm Transformer: RMSNorm, RoPE, QK-norm, SwiGLU. `window`: tokens that attention sees (null: all)."""

    window: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None and self.window < 2:
            raise ConfigError(f"model.window={self.window} must be at least 2 tokens, or null for all the past")

    def attended(self, seq_len: int) -> tuple[float, float]:
        """Return `ModelConfig.attended`: all tokens, or those of the window."""
        return windowed(seq_len, seq_len if self.window is None else self.window)

    def build(self, vocab_size: int, seed: int) -> "LanguageModel":
        """Build the model with the initial weights of `seed`."""
        from nested_learning.nn.attention import Attention

        return self.assemble(lambda: Attention(self.dim, self.num_heads, self.window), vocab_size, seed)
