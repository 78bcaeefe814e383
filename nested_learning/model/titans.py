"""`model=titans_mac`, `titans_mag`, `titans_mal`: the three variants of Titans with attention."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.errors import ConfigError
from nested_learning.model.associative import AssociativeConfig
from nested_learning.model.config import windowed

if TYPE_CHECKING:
    from nested_learning.nn.hybrid import Hybrid
    from nested_learning.nn.language_model import LanguageModel


@dataclass(kw_only=True)
class TitansHybridConfig(AssociativeConfig):
    """The keys of a memory with attention; `num_persistent`: learned tokens that every layer reads before the text."""

    num_persistent: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_persistent < 0:
            raise ConfigError(f"model.num_persistent={self.num_persistent} must be at least 0, for none")


@dataclass(kw_only=True)
class TitansMACConfig(TitansHybridConfig):
    """Memory as context (Titans, arXiv 2501.00663, section 4.1); `segment`: tokens that attention sees at once."""

    segment: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.segment < 1:
            raise ConfigError(f"model.segment={self.segment} must be at least 1 token")

    @property
    def span(self) -> int:
        """Return the number of tokens after which the computation on a row repeats."""
        return math.lcm(super().span, self.segment)

    def attended(self, seq_len: int) -> tuple[float, float]:
        """Return `ModelConfig.attended`: the persistent tokens, and two keys for each token of the segment."""
        whole, last = divmod(seq_len, self.segment)
        in_segment = (whole * self.segment**2 + last**2) / seq_len
        # causal: half of the two keys per token, and the token's own two, are visible in the mean
        return self.num_persistent + 2 * in_segment, self.num_persistent + in_segment + 1

    def build(self, vocab_size: int, seed: int) -> "LanguageModel":
        """Build the model with the initial weights of `seed`."""
        from nested_learning.nn.associative import MemoryHeads
        from nested_learning.nn.attention import AttentionHeads
        from nested_learning.nn.context import MemoryAsContext

        return self.assemble(
            lambda: MemoryAsContext(
                self.dim,
                AttentionHeads(self.dim, self.num_heads),
                self.make_memory(MemoryHeads),
                self.num_persistent,
                self.segment,
            ),
            vocab_size,
            seed,
        )


@dataclass(kw_only=True)
class TitansWindowConfig(TitansHybridConfig):
    """The keys of a memory with sliding-window attention; `window`: tokens that attention sees."""

    window: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 2:
            raise ConfigError(f"model.window={self.window} must be at least 2 tokens")

    def attended(self, seq_len: int) -> tuple[float, float]:
        """Return `ModelConfig.attended`: the persistent tokens and those of the window."""
        in_window, visible = windowed(seq_len, self.window)
        return self.num_persistent + in_window, self.num_persistent + visible

    def assemble_hybrid(self, kind: "type[Hybrid]", vocab_size: int, seed: int) -> "LanguageModel":
        """Build the model whose mixers are of this kind."""
        from nested_learning.nn.associative import MemoryHeads
        from nested_learning.nn.attention import AttentionHeads

        return self.assemble(
            lambda: kind(
                self.dim,
                AttentionHeads(self.dim, self.num_heads, self.window),
                self.make_memory(MemoryHeads),
                self.num_persistent,
            ),
            vocab_size,
            seed,
        )


@dataclass(kw_only=True)
class TitansMAGConfig(TitansWindowConfig):
    """Memory as a gate (Titans, arXiv 2501.00663, section 4.2)."""

    def build(self, vocab_size: int, seed: int) -> "LanguageModel":
        """Build the model with the initial weights of `seed`."""
        from nested_learning.nn.hybrid import MemoryAsGate

        return self.assemble_hybrid(MemoryAsGate, vocab_size, seed)


@dataclass(kw_only=True)
class TitansMALConfig(TitansWindowConfig):
    """Memory as a layer (Titans, arXiv 2501.00663, section 4.3)."""

    def build(self, vocab_size: int, seed: int) -> "LanguageModel":
        """Build the model with the initial weights of `seed`."""
        from nested_learning.nn.hybrid import MemoryAsLayer

        return self.assemble_hybrid(MemoryAsLayer, vocab_size, seed)
