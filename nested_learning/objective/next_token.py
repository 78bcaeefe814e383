"""`objective=next_token`: read the whole row in one parallel pass, and predict each next token."""

from torch import nn
from torch.nn import functional as F

from nested_learning.data.batch import IGNORE, Batch
from nested_learning.objective.protocol import State, Step
from nested_learning.shapes import Float, Int, Tensor


class NextToken:
    """Cross-entropy of every valid target, summed. Memories with an inner objective write while they read."""

    def __call__(self, model: nn.Module, batch: Batch, state: State) -> Step:
        """Return the step over `batch`, whose targets are already shifted; IGNORE marks those that are none."""
        logits, state = model(batch.tokens, state)
        nats = cross_entropy(logits, batch.targets)
        valid = batch.targets != IGNORE
        return Step(nats.sum(), valid.sum(), count_correct(logits, batch.targets, valid), nats.detach(), state)


def cross_entropy(logits: Float[Tensor, "b t v"], targets: Int[Tensor, "b t"]) -> Float[Tensor, "b t"]:
    """Return the nats of each target in float32, 0 for IGNORE."""
    flat = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE, reduction="none")
    return flat.view_as(targets)


def count_correct(logits: Float[Tensor, "b t v"], targets: Int[Tensor, "b t"], valid: Tensor) -> dict[str, Tensor]:
    """Count the targets and the whole rows whose likeliest token is the target; `valid` is [b t]."""
    right = (logits.detach().argmax(-1) == targets) & valid
    rows = valid.any(1)
    return {
        "correct": right.sum(),
        "rows": rows.sum(),
        "rows_correct": (rows & (right | ~valid).all(1)).sum(),
    }
