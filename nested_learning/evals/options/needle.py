"""`evals=needle`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.data.facts import NAMES, THINGS, VALUES
from nested_learning.data.source import DataConfig
from nested_learning.errors import ConfigError
from nested_learning.evals.options.option import EvalConfig

if TYPE_CHECKING:
    from nested_learning.evals.needle import NeedlePack


@dataclass(kw_only=True)
class NeedleConfig(EvalConfig):
    """Contexts of `num_facts` facts, and a question about one of them, asked without its context.

    `num_examples` of them, each with `num_candidates` answers; `batch_size` are asked at once.
    """

    num_examples: int
    num_facts: int
    num_candidates: int
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_examples", "num_facts", "batch_size")
        self.at_least(2, "num_candidates")
        # the context of somebody else tells as many
        for key, most in (("num_facts", len(THINGS) * len(NAMES) // 2), ("num_candidates", len(VALUES))):
            if vars(self)[key] > most:
                raise ConfigError(f"evals.needle.{key}={vars(self)[key]} must be at most {most}")

    def build(self, data: DataConfig) -> "NeedlePack":
        """Return the pack."""
        from nested_learning.evals.needle import NeedlePack

        return NeedlePack(self.num_examples, self.num_facts, self.num_candidates, self.batch_size)
