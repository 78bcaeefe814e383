"""`evals=passkey`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.data.needle_tasks import PASSKEY
from nested_learning.data.source import DataConfig
from nested_learning.evals.options.niah import HaystackConfig

if TYPE_CHECKING:
    from nested_learning.evals.niah import NiahPack


@dataclass(kw_only=True)
class PasskeyConfig(HaystackConfig):
    """The pass key, hidden in noise."""

    def build(self, data: DataConfig) -> "NiahPack":
        """Return the pack."""
        return self.pack([PASSKEY], [])
