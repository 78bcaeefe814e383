"""`model=titans_lmm`: Titans' long-term memory alone as the sequence mixer, no attention."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.model.config import MemoryModelConfig

if TYPE_CHECKING:
    from nested_learning.nn.language_model import LanguageModel


@dataclass(kw_only=True)
class TitansLMMConfig(MemoryModelConfig):
    """Long-term memory (LMM), then one MLP, a layer (Titans, arXiv 2501.00663, section 4.3)."""

    def build(self, vocab_size: int, seed: int) -> "LanguageModel":
        """Build the model with the initial weights of `seed`."""
        from nested_learning.nn.titans import TitansMemory

        return self.assemble(
            lambda: TitansMemory(self.dim, self.num_heads, self.conv_width, self.chunk), vocab_size, seed
        )
