"""What is trained: a model under its objective, as one module, so that whatever wraps a module sees the whole pass."""

from torch import nn

from nested_learning.data.batch import Batch
from nested_learning.nn.language_model import LanguageModel
from nested_learning.objective.protocol import Objective, Step


class Training(nn.Module):
    """`batch -> Step`: every row of a batch is read from a fresh state. Source: ours."""

    def __init__(self, model: LanguageModel, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, batch: Batch) -> Step:
        """Read `batch` and say how well; `Step.loss` is a sum, which the caller divides."""
        return self.objective(self.model, batch, self.model.init_state(len(batch.tokens)))
