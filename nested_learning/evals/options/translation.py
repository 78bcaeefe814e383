"""`evals=translation`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.data.source import DataConfig
from nested_learning.evals.options.option import EvalConfig

if TYPE_CHECKING:
    from nested_learning.evals.translation import Translation


@dataclass(kw_only=True)
class TranslationConfig(EvalConfig):
    """Sentences of the file `path`, each after a lesson in its language; `limit` of them, null for all.

    A translation is `num_tokens` tokens of a line at most; `batch_size` sentences are answered at once.
    """

    path: str | None
    limit: int | None
    num_tokens: int
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_tokens", "batch_size", *(["limit"] if self.limit is not None else []))

    def build(self, data: DataConfig) -> "Translation":
        """Return the pack; raise DataError where there is no such file."""
        from nested_learning.evals.translation import Translation

        path = self.file(self.path, "a file such as bigbench_conlang_translation.jsonl")
        return Translation(path, self.batch_size, self.limit, self.num_tokens)
