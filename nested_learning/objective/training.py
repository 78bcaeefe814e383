"""Model and objective as one module, so that DDP and hooks wrap the whole forward pass."""

from collections.abc import Sequence

from torch import nn

from nested_learning.data.batch import Batch
from nested_learning.nn.language_model import LanguageModel
from nested_learning.objective.documents import Part, group_documents, merge_parts
from nested_learning.objective.protocol import Objective, Step


class Training(nn.Module):
    """`batch -> Step`: every row of a batch is read from a fresh state; with `resets`, every document.

    `fixed_passes`: call the model equally often for every batch. Needed with sharded parameters: they are gathered from
    all processes, so all must call the model together.
    """

    def __init__(
        self, model: LanguageModel, objective: Objective, *, resets: bool = False, fixed_passes: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.resets, self.fixed_passes = resets, fixed_passes

    def forward(self, batch: Batch) -> Step:
        """Return the step over `batch`; `Step.loss` is a sum, which the caller divides."""
        if not self.resets:
            return self._read(batch)
        parts = group_documents(batch, every_length=self.fixed_passes)
        return sum_steps(batch, parts, [self._read(part.batch) for part in parts])

    def _read(self, batch: Batch) -> Step:
        return self.objective(self.model, batch, self.model.init_state(len(batch.tokens)))


def sum_steps(batch: Batch, parts: Sequence[Part], steps: Sequence[Step]) -> Step:
    """Add up the `steps` of the `parts` of `batch`; every document counts as a row."""
    metrics = {name: sum((step.metrics[name] for step in steps[1:]), value) for name, value in steps[0].metrics.items()}
    loss = sum((step.loss for step in steps[1:]), steps[0].loss)
    num_targets = sum((step.num_targets for step in steps[1:]), steps[0].num_targets)
    nats = merge_parts(batch, parts, [step.nats for step in steps])
    return Step(loss, num_targets, metrics, nats, tuple(step.state for step in steps))
