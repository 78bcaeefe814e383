"""Model and objective as one module, so that DDP and hooks wrap the whole forward pass."""

from collections.abc import Sequence

from torch import nn

from nested_learning.data.batch import Batch
from nested_learning.nn.language_model import LanguageModel
from nested_learning.objective.documents import Part, cut, join
from nested_learning.objective.protocol import Objective, Step


class Training(nn.Module):
    """`batch -> Step`: every row of a batch is read from a fresh state, with `resets` every document.

    `evenly`: make as many passes over the model for every batch, even if there is nothing to read: needed where
    processes hold the parameters together, and each has to be there when another asks.
    """

    def __init__(
        self, model: LanguageModel, objective: Objective, *, resets: bool = False, evenly: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.resets, self.evenly = resets, evenly

    def forward(self, batch: Batch) -> Step:
        """Return the step over `batch`; `Step.loss` is a sum, which the caller divides."""
        if not self.resets:
            return self._read(batch)
        parts = cut(batch, evenly=self.evenly)
        return add(batch, parts, [self._read(part.batch) for part in parts])

    def _read(self, batch: Batch) -> Step:
        return self.objective(self.model, batch, self.model.init_state(len(batch.tokens)))


def add(batch: Batch, parts: Sequence[Part], steps: Sequence[Step]) -> Step:
    """Add up what reading the `parts` of `batch` gave; every document counts as a row."""
    metrics = {name: sum((step.metrics[name] for step in steps[1:]), value) for name, value in steps[0].metrics.items()}
    loss = sum((step.loss for step in steps[1:]), steps[0].loss)
    num_targets = sum((step.num_targets for step in steps[1:]), steps[0].num_targets)
    return Step(
        loss, num_targets, metrics, join(batch, parts, [step.nats for step in steps]), tuple(s.state for s in steps)
    )
