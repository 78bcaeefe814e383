"""`objective=next_token`: read the whole row in one parallel pass, and predict each next token."""

from torch import nn

from nested_learning.data.batch import IGNORE, Batch
from nested_learning.objective.loss import TokenLoss, count_correct
from nested_learning.objective.protocol import State, Step


class NextToken:
    """Cross-entropy of every valid target, summed. Memories with an inner objective are updated while they read."""

    def __init__(self, loss: TokenLoss | None = None) -> None:
        self.loss = loss or TokenLoss()

    def __call__(self, model: nn.Module, batch: Batch, state: State) -> Step:
        """Return the step over `batch`, whose targets are already shifted; IGNORE marks positions without a target."""
        scores, state = self.loss.read(model, batch.tokens, batch.targets, state)
        valid = batch.targets != IGNORE
        return Step(scores.loss.sum(), valid.sum(), count_correct(scores.correct, valid), scores.nats.detach(), state)
