"""The options of `objective=`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nested_learning.objective.next_token import NextToken


@dataclass(kw_only=True)
class NextTokenConfig:
    """Predict each next token in one parallel pass over the row; there is nothing to set."""

    name: str

    def build(self) -> "NextToken":
        """Return the objective."""
        from nested_learning.objective.next_token import NextToken

        return NextToken()
