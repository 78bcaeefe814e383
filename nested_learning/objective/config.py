"""The options of `objective=`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.errors import ConfigError
from nested_learning.model.levels import LevelConfig

if TYPE_CHECKING:
    from nested_learning.objective.loss import TokenLoss
    from nested_learning.objective.next_token import NextToken
    from nested_learning.objective.online import Online
    from nested_learning.objective.reconstruct import Reconstruct


@dataclass(kw_only=True)
class LossConfig:
    """Regularizers of the cross-entropy, and the number of logits in memory at a time.

    `z_loss`: the weight of the squared logarithm of the softmax's denominator, which keeps logits from drifting;
    `label_smoothing`: the fraction of a target that is spread over all tokens; `chunk`: the number of tokens whose
    logits are computed at once, null for all. Metrics are of the plain cross-entropy. Raises ConfigError.
    """

    name: str
    z_loss: float = 0.0
    label_smoothing: float = 0.0
    chunk: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.z_loss < math.inf:
            raise ConfigError(f"objective.z_loss={self.z_loss} must be at least 0, such as objective.z_loss=1e-4")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(
                f"objective.label_smoothing={self.label_smoothing} must be at least 0 and below 1; "
                "try objective.label_smoothing=0.1"
            )
        if self.chunk is not None and self.chunk < 1:
            raise ConfigError(
                f"objective.chunk={self.chunk} must be at least 1 token, such as 4096, or null for all at once"
            )

    def loss(self) -> "TokenLoss":
        """Return the loss per token."""
        from nested_learning.objective.loss import TokenLoss

        return TokenLoss(self.z_loss, self.label_smoothing, self.chunk)


@dataclass(kw_only=True)
class NextTokenConfig(LossConfig):
    """Predict each next token in one parallel pass over the row."""

    def build(self) -> "NextToken":
        """Return the objective."""
        from nested_learning.objective.next_token import NextToken

        return NextToken(self.loss())

    def check(self, levels: Sequence[LevelConfig]) -> None:
        """Raise ConfigError for a model whose levels wait for the task's error, which this objective never brings."""
        refuse_taught(self.name, levels)


@dataclass(kw_only=True)
class ReconstructConfig:
    """Predict every token of a row from the output at its last token; there are no settings."""

    name: str

    def build(self) -> "Reconstruct":
        """Return the objective."""
        from nested_learning.objective.reconstruct import Reconstruct

        return Reconstruct()

    def check(self, levels: Sequence[LevelConfig]) -> None:
        """Raise ConfigError for a model whose levels wait for the task's error, which this objective never brings."""
        refuse_taught(self.name, levels)


@dataclass(kw_only=True)
class OnlineConfig(LossConfig):
    """Predict each next token, segment by segment: the loss of a segment updates the levels with signal=teach.

    `segment`: the largest number of tokens read at once; null: as many as periods allow. It changes no result.
    """

    segment: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.segment is not None and self.segment < 1:
            raise ConfigError(
                f"objective.segment={self.segment} must be at least 1 token, or null for as many as periods allow"
            )

    def build(self) -> "Online":
        """Return the objective."""
        from nested_learning.objective.online import Online

        return Online(self.segment, self.loss())

    def check(self, levels: Sequence[LevelConfig]) -> None:
        """Raise ConfigError unless segments and periods divide each other: else rows split into very short segments."""
        for level in levels:
            if self.segment is None or level.context is None:
                continue
            least, most = sorted((self.segment, level.period))
            if most % least:
                raise ConfigError(
                    f"objective.segment={self.segment}: must divide the period of level {level.name}, {level.period}, "
                    f"or be a multiple of it; try objective.segment={level.period}"
                )


def refuse_taught(objective: str, levels: Sequence[LevelConfig]) -> None:
    """Raise ConfigError for a level that learns from the task's loss, which only objective=online passes to it."""
    for level in levels:
        if level.is_taught:
            raise ConfigError(
                f"objective={objective}: never passes the loss to level {level.name}, which has signal: teach; "
                "use objective=online, or signal: local"
            )
