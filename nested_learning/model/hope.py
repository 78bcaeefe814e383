"""`model=hope`: self-modifying Titans, then a continuum memory system; `model=self_modifying`: with one MLP instead."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.errors import ConfigError
from nested_learning.model.associative import MemoryModelConfig

if TYPE_CHECKING:
    from nested_learning.nn.language_model import LanguageModel

ADAPTIVE = ("key", "value", "gates", "query")


@dataclass(kw_only=True)
class HopeConfig(MemoryModelConfig):
    """HOPE (Nested Learning, arXiv 2512.24695, equations 94-97).

    `adaptive`: what memories generate, out of key, value, gates and query; the others are fixed projections.
    `generating_chunk`: the tokens that share what memories generate; `memory.chunk` is that of the memory that is read.
    """

    generating_chunk: int
    adaptive: list[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.generating_chunk < 1:
            raise ConfigError(f"model.generating_chunk={self.generating_chunk} must be at least 1 token")
        if not set(self.adaptive) <= set(ADAPTIVE) or len(set(self.adaptive)) < len(self.adaptive):
            raise ConfigError(f"model.adaptive={self.adaptive} must be a choice out of [{', '.join(ADAPTIVE)}]")
        if self.memory.norm:
            raise ConfigError("model.memory.norm=true: these memories have no norm; use model.memory.norm=false")

    @property
    def span(self) -> int:
        """Return the tokens after which the computation on a row repeats itself."""
        return math.lcm(super().span, self.generating_chunk)

    def build(self, vocab_size: int, seed: int) -> "LanguageModel":
        """Build the model with the initial weights of `seed`."""
        from nested_learning.nn.self_modifying import SelfModifyingMemory
        from nested_learning.ops.self_modifying import SelfDesign

        memory = self.memory
        design = SelfDesign(memory.design(self.generating_chunk), memory.design(memory.chunk), memory.kinds())
        adaptive = [name for name in ADAPTIVE if name in self.adaptive]
        return self.assemble(
            lambda: SelfModifyingMemory(
                self.dim, self.num_heads, self.conv_width, design, adaptive, memory.depth, self.hidden_dim
            ),
            vocab_size,
            seed,
        )
