"""`objective=reconstruct`: predict every token of a row from the output at its last token."""

from torch import nn

from nested_learning.data.batch import IGNORE, Batch
from nested_learning.errors import ConfigError
from nested_learning.objective.loss import count_correct, cross_entropy, is_correct
from nested_learning.objective.protocol import State, Step


class Reconstruct:
    """Cross-entropy of the token at every position given the output at the last token (MAD, arXiv 2403.17844).

    Logits and targets are pairs of position and token, with the index position * num_tokens + token: each position has
    its own slice of the head. MAD uses an MLP with the position as an input instead.
    """

    def __call__(self, model: nn.Module, batch: Batch, state: State) -> Step:
        """Return the step over `batch`; raise ConfigError where the logits do not divide into positions."""
        logits, state = model(batch.tokens, state)
        rows, num_positions = batch.tokens.shape
        if logits.shape[-1] % num_positions:
            raise ConfigError(
                f"objective=reconstruct: a vocabulary of {logits.shape[-1]} is no multiple of rows of {num_positions} "
                "tokens; use data=mad data.task=compression, or objective=next_token"
            )
        logits = logits[:, -1].view(rows, num_positions, -1)
        valid = batch.targets != IGNORE
        targets = (batch.targets % logits.shape[-1]).where(valid, IGNORE)
        nats = cross_entropy(logits, targets)
        metrics = count_correct(is_correct(logits, targets), valid)
        return Step(nats.sum(), valid.sum(), metrics, nats.detach(), state)
