"""Cross-entropy of tokens with z-loss and label smoothing, from all logits at once or chunk by chunk."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nested_learning.data.batch import IGNORE
from nested_learning.nn.language_model import LanguageModel
from nested_learning.objective.protocol import State
from nested_learning.shapes import Bool, Float, Int, Tensor


class Scores(NamedTuple):
    """For every target: `loss` to differentiate, `nats` (its cross-entropy), `correct` (it is the likeliest token).

    Where the target is IGNORE, `loss` and `nats` are 0 and `correct` has no meaning.
    """

    loss: Float[Tensor, "..."]
    nats: Float[Tensor, "..."]
    correct: Bool[Tensor, "..."]


@dataclass(frozen=True)
class TokenLoss:
    """Cross-entropy with z-loss and label smoothing; `z_loss` and `label_smoothing` are their weights, 0 for none.

    `chunk`: logits are computed for this many tokens at a time, and again in the backward pass, so that memory never
    holds more; None: for all tokens at once. Values and gradients are the same. Sources: z-loss, PaLM, arXiv
    2204.02311, section 5; label smoothing, Szegedy et al., arXiv 1512.00567, section 7.
    """

    z_loss: float = 0.0
    label_smoothing: float = 0.0
    chunk: int | None = None

    def read(
        self, model: nn.Module, tokens: Int[Tensor, "b t"], targets: Int[Tensor, "b t"], state: State
    ) -> tuple[Scores, State]:
        """Read `tokens` from `state`; return the scores of `targets`, [b t], and the new state."""
        if self.chunk is None:
            logits, state = model(tokens, state)
            return self.score(logits, targets), state
        # the head runs inside the model's forward pass, where sharded parameters are gathered
        scores: tuple[Scores, State] = model(tokens, state, head_fn=partial(self._score_chunks, model, targets))
        return scores

    def score(self, logits: Float[Tensor, "*n v"], targets: Int[Tensor, "*n"]) -> Scores:
        """Return the scores of `targets` under `logits`."""
        # nats stay the plain cross-entropy: metrics and levels must not depend on regularizers
        loss = nats = cross_entropy(logits, targets)
        if self.label_smoothing:
            loss = cross_entropy(logits, targets, self.label_smoothing)
        if self.z_loss:
            log_z = _exact(logits).logsumexp(-1)
            loss = loss + self.z_loss * log_z.square().masked_fill(targets == IGNORE, 0)
        return Scores(loss, nats, is_correct(logits, targets))

    def _score_chunks(self, model: nn.Module, targets: Int[Tensor, "b t"], x: Float[Tensor, "b t d"]) -> Scores:
        """Return the scores of `targets` given the head's inputs `x`, with the logits of one chunk at a time."""
        assert isinstance(model, LanguageModel) and self.chunk is not None
        chunks = zip(x.flatten(0, 1).split(self.chunk), targets.flatten().split(self.chunk), strict=True)
        # the backward pass computes a chunk's logits again, so that none are kept; the head draws no random numbers
        scores = [
            checkpoint(self._score_outputs, model, *chunk, use_reentrant=False, preserve_rng_state=False)
            for chunk in chunks
        ]
        return Scores(*(torch.cat(each).view_as(targets) for each in zip(*scores, strict=True)))

    def _score_outputs(self, model: LanguageModel, x: Float[Tensor, "n d"], targets: Int[Tensor, "n"]) -> Scores:
        return self.score(model.logits(x), targets)


def cross_entropy(
    logits: Float[Tensor, "*n v"], targets: Int[Tensor, "*n"], label_smoothing: float = 0.0
) -> Float[Tensor, "*n"]:
    """Return the nats of each target in float32 or better, 0 for IGNORE."""
    flat = F.cross_entropy(
        _exact(logits).flatten(0, -2),
        targets.flatten(),
        ignore_index=IGNORE,
        reduction="none",
        label_smoothing=label_smoothing,
    )
    return flat.view_as(targets)


def is_correct(logits: Float[Tensor, "*n v"], targets: Int[Tensor, "*n"]) -> Bool[Tensor, "*n"]:
    """Return where the likeliest token is the target."""
    return logits.detach().argmax(-1) == targets


def count_correct(correct: Bool[Tensor, "b t"], valid: Bool[Tensor, "b t"]) -> dict[str, Tensor]:
    """Count the valid targets that are `correct`, the rows with a valid target, and the rows without a wrong one."""
    rows = valid.any(1)
    return {
        "correct": (correct & valid).sum(),
        "rows": rows.sum(),
        "rows_correct": (rows & (correct | ~valid).all(1)).sum(),
    }


def _exact(logits: Float[Tensor, "*n v"]) -> Float[Tensor, "*n v"]:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
