"""`objective=reconstruct`: tell every token of the row from the output at its last, which has to hold them all."""

from torch import nn

from nested_learning.data.batch import IGNORE, Batch
from nested_learning.errors import ConfigError
from nested_learning.objective.loss import count_correct, cross_entropy
from nested_learning.objective.protocol import State, Step


class Reconstruct:
    """Cross-entropy of every place's token given the output at the last token (compression of MAD, arXiv 2403.17844).

    The model's outputs are pairs of place and token, number place * tokens + token, and so are the targets: a share of
    its head reads each place. MAD has an MLP there that is fed with the place.
    """

    def __call__(self, model: nn.Module, batch: Batch, state: State) -> Step:
        """Return the step over `batch`; raise ConfigError where the outputs are no pairs of place and token."""
        logits, state = model(batch.tokens, state)
        rows, num_places = batch.tokens.shape
        if logits.shape[-1] % num_places:
            raise ConfigError(
                f"objective=reconstruct: a vocabulary of {logits.shape[-1]} is no multiple of rows of {num_places} "
                "tokens; use data=mad data.task=compression, or objective=next_token"
            )
        logits = logits[:, -1].view(rows, num_places, -1)
        valid = batch.targets != IGNORE
        targets = (batch.targets % logits.shape[-1]).where(valid, IGNORE)
        nats = cross_entropy(logits, targets)
        return Step(nats.sum(), valid.sum(), count_correct(logits, targets, valid), nats.detach(), state)
