"""`evals=validation`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.data.source import DataConfig
from nested_learning.evals.options.option import EvalConfig

if TYPE_CHECKING:
    from nested_learning.evals.validation_pack import ValidationPack


@dataclass(kw_only=True)
class ValidationConfig(EvalConfig):
    """Loss, bits per byte and accuracy on the validation rows, as during training; there is nothing to set."""

    def build(self, data: DataConfig) -> "ValidationPack":
        """Return the pack for `data`."""
        from nested_learning.evals.validation_pack import ValidationPack

        return ValidationPack(data.batch_size, resets=data.resets)
