"""`evals=perplexity`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.data.source import DataConfig
from nested_learning.errors import ConfigError
from nested_learning.evals.options.option import EvalConfig

if TYPE_CHECKING:
    from nested_learning.evals.perplexity import Perplexity


@dataclass(kw_only=True)
class PerplexityConfig(EvalConfig):
    """Bits per byte, loss and perplexity by position, on `num_texts` texts, `batch_size` at once.

    `path`: documents (a file, folder, glob or data set), None for validation rows. `length_factor`: how long texts are,
    in rows of training; None: documents are read to their end.
    """

    path: str | None
    length_factor: int | None
    num_texts: int
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_texts", "batch_size")
        if self.length_factor is not None:
            self.at_least(1, "length_factor")
        elif self.path is None:
            raise ConfigError(
                "evals.perplexity.length_factor=null: reads documents to their end; "
                "give evals.perplexity.path=<text>, or evals.perplexity.length_factor=4 for validation rows"
            )

    def build(self, data: DataConfig) -> "Perplexity":
        """Return the pack for `data`."""
        from nested_learning.evals.perplexity import Perplexity

        return Perplexity(self.path, self.length_factor, self.num_texts, self.batch_size)
