"""The keys that the configurations of all models share."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.errors import ConfigError
from nested_learning.model.levels import LevelConfig, check_levels
from nested_learning.typed import LayerCount

if TYPE_CHECKING:
    from nested_learning.nn.language_model import LanguageModel
    from nested_learning.nn.memory import MemoryModule


def windowed(seq_len: int, window: int) -> tuple[float, float]:
    """Return `ModelConfig.attended` for attention in which a token sees `window` tokens up to itself."""
    window = min(window, seq_len)
    return float(window), window - window * (window - 1) / (2 * seq_len)


@dataclass(kw_only=True)
class ModelConfig(ABC):
    """The keys every model has.

    `dim` is the width, `levels` the levels of the continuum memory (one level is the MLP of a Transformer), `cms` how
    they are connected (sequential, independent, nested), `expansion` the hidden width of each level as a multiple of
    `dim`, `tie_embedding` whether the head shares the embedding's weights, `dropout` the fraction that is dropped in
    training of what the embedding, a mixer or a level adds to the residual stream, `softcap` a smooth bound on the
    logits (null: none).
    """

    name: str
    dim: int
    num_layers: LayerCount
    num_heads: int
    expansion: float
    levels: list[LevelConfig]
    tie_embedding: bool
    cms: str = "sequential"
    dropout: float = 0.0
    softcap: float | None = None

    def refuse_divergence(self) -> None:  # noqa: B027 (most models stay finite at any setting)
        """Raise ConfigError for settings at which the numbers of a memory need not stay finite.

        Only training asks for it, so that a model that was trained with them still opens.
        """

    def __post_init__(self) -> None:
        for key in ("dim", "num_layers", "num_heads"):
            if vars(self)[key] < 1:
                raise ConfigError(f"model.{key}={vars(self)[key]} must be at least 1")
        # rotary positions rotate pairs of features, so that a head needs an even width
        if self.dim % self.num_heads or self.dim // self.num_heads % 2:
            raise ConfigError(
                f"model.dim={self.dim} must be an even multiple of model.num_heads={self.num_heads}; "
                f"try model.dim={2 * self.num_heads * max(1, round(self.dim / self.num_heads / 2))}"
            )
        if not 8 <= self.expansion * self.dim < 2**31:
            raise ConfigError(
                f"model.expansion={self.expansion} must give 8 to 2^31 hidden units; try model.expansion=2"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout={self.dropout} must be at least 0 and below 1; try model.dropout=0.1")
        if self.softcap is not None and not 0 < self.softcap < math.inf:
            raise ConfigError(
                f"model.softcap={self.softcap} must be more than 0, such as model.softcap=30; null is no bound"
            )
        check_levels(self.cms, self.levels)

    @abstractmethod
    def build(self, vocab_size: int, seed: int) -> "LanguageModel":
        """Build the model with the initial weights of `seed`."""

    @property
    def span(self) -> int:
        """Return the number of tokens after which the computation on a row repeats: whole chunks and periods."""
        return math.lcm(*(level.period for level in self.levels if level.context is not None))

    def attended(self, seq_len: int) -> tuple[float, float]:
        """Return how many tokens softmax attention compares a token with, as means over a row of `seq_len` tokens.

        The first number counts all tokens of a window, the second those among them that exist and are not in the
        future. Both are 0 for a model without attention.
        """
        return 0.0, 0.0

    def assemble(self, mixer: Callable[[], "MemoryModule"], vocab_size: int, seed: int) -> "LanguageModel":
        """Build the model whose blocks each have a mixer made by `mixer`; the seed fixes the initial weights."""
        from nested_learning.nn.cms import ContinuumMemory
        from nested_learning.nn.language_model import Block, LanguageModel

        # a multiple of 8: tensor cores are slower for other widths
        hidden_dim = round(self.expansion * self.dim / 8) * 8
        levels = [level.build() for level in self.levels]
        blocks = [
            Block(
                self.dim,
                mixer(),
                ContinuumMemory(self.dim, levels, hidden_dim, self.cms, self.dropout),
                self.dropout,
            )
            for _ in range(self.num_layers)
        ]
        return LanguageModel(vocab_size, self.dim, blocks, levels, self.tie_embedding, seed, self.dropout, self.softcap)
