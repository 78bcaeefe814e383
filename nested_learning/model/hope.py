"""`model=hope`: self-modifying Titans, then a continuum memory system."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.model.config import MemoryModelConfig

if TYPE_CHECKING:
    from nested_learning.nn.language_model import LanguageModel


@dataclass(kw_only=True)
class HopeConfig(MemoryModelConfig):
    """HOPE (Nested Learning, arXiv 2512.24695, equations 94-97)."""

    def build(self, vocab_size: int, seed: int) -> "LanguageModel":
        """Build the model with the initial weights of `seed`."""
        from nested_learning.nn.self_modifying import SelfModifyingMemory

        return self.assemble(
            lambda: SelfModifyingMemory(self.dim, self.num_heads, self.conv_width, self.chunk), vocab_size, seed
        )
