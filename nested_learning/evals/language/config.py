"""Options of the packs on next-token prediction."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from nested_learning.data.source import DataConfig
from nested_learning.errors import ConfigError
from nested_learning.evals.config import EvalConfig
from nested_learning.typed import Count, Length, PathText

if TYPE_CHECKING:
    from nested_learning.evals.language.memory import MemoryPack
    from nested_learning.evals.language.perplexity import Perplexity
    from nested_learning.evals.language.translation import Translation
    from nested_learning.evals.language.validation import ValidationPack


@dataclass(kw_only=True)
class PerplexityConfig(EvalConfig):
    """Bits per byte, loss and perplexity by position, on `num_texts` texts, `batch_size` at once.

    `path`: documents (a file, folder, glob or data set), None for validation rows. `length_factor`: the length of texts
    in multiples of a training row; None: documents are read to their end.
    """

    memorizes_while_reading: ClassVar[bool] = True

    path: PathText | None
    length_factor: int | None
    num_texts: Count
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

    def require_inputs(self, data: DataConfig) -> None:
        """Raise DataError or ConfigError where the texts are missing."""
        if self.path is None:
            data.require_files()
        else:
            self.inputs("path")

    def build(self, data: DataConfig) -> "Perplexity":
        """Return the pack for `data`."""
        from nested_learning.evals.language.perplexity import Perplexity

        return Perplexity(self.path, self.length_factor, self.num_texts, self.batch_size)


@dataclass(kw_only=True)
class ValidationConfig(EvalConfig):
    """Loss, bits per byte and accuracy on the validation rows, as during training; there are no options."""

    memorizes_while_reading: ClassVar[bool] = True

    def require_inputs(self, data: DataConfig) -> None:
        """Raise DataError or ConfigError where files of the data are missing."""
        data.require_files()

    def build(self, data: DataConfig) -> "ValidationPack":
        """Return the pack for `data`."""
        from nested_learning.evals.language.validation import ValidationPack

        return ValidationPack(data.batch_size, resets=data.resets)


@dataclass(kw_only=True)
class MemoryPackConfig(EvalConfig):
    """Memory statistics along the context: norm, effective rank, surprise, retention, on `num_rows` rows.

    The rows are `length_factor` times as long as training rows; `batch_size` are read at once.
    """

    length_factor: int
    num_rows: Count
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "length_factor", "num_rows", "batch_size")

    def require_inputs(self, data: DataConfig) -> None:
        """Raise DataError or ConfigError where files of the data are missing."""
        data.require_files()

    def build(self, data: DataConfig) -> "MemoryPack":
        """Return the pack for `data`."""
        from nested_learning.evals.language.memory import MemoryPack

        return MemoryPack(self.length_factor, self.num_rows, self.batch_size)


@dataclass(kw_only=True)
class TranslationConfig(EvalConfig):
    """Sentences in the file `path`, each after a lesson in its language; `limit` of them, null for all.

    A translation is one line of at most `num_tokens` tokens; `batch_size` sentences are evaluated at once.
    """

    path: PathText | None
    limit: int | None
    num_tokens: Length
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_tokens", "batch_size", *(["limit"] if self.limit is not None else []))

    def require_inputs(self, data: DataConfig) -> None:
        """Raise DataError where there is no such file."""
        self._sentences()

    def build(self, data: DataConfig) -> "Translation":
        """Return the pack; raise DataError where there is no such file."""
        from nested_learning.evals.language.translation import Translation

        return Translation(self._sentences(), self.batch_size, self.limit, self.num_tokens)

    def _sentences(self) -> Path:
        return self.file(self.path, "a file such as bigbench_conlang_translation.jsonl")
