"""Texts of different lengths in one batch, without padding: the result of a row does not depend on the other rows."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import DataError
from nested_learning.evals.protocol import Record
from nested_learning.inference.session import Session
from nested_learning.shapes import Float, Int, Tensor

# the tokens of a text, of any length
Text = Int[Tensor, " _"]


class Score(NamedTuple):
    """The loss of a continuation in nats, per token, and whether greedy decoding would generate it."""

    nats: Float[Tensor, " n"]
    is_greedy: bool


def encode_text(tokenizer: Tokenizer, text: str) -> Text:
    """Return the tokens of `text`, without special tokens."""
    return torch.from_numpy(tokenizer.encode(text))


def read_each(session: Session, texts: Sequence[Text]) -> list[Session]:
    """Read one text in each row of `session`; return a session of one row per text, after its text.

    `session` itself is unchanged.
    """
    # padding would enter caches and fast weights. Instead all rows read together up to the end of the shortest text;
    # its row leaves the batch, and the others continue up to the end of the next shortest
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    finished: dict[int, Session] = {}
    remaining, position = session.fork(order), 0
    for index, row in enumerate(order):
        length = len(texts[row])
        if length > position:
            remaining.feed(torch.stack([texts[other][position:length] for other in order[index:]]))
            position = length
        finished[row] = remaining.fork([0])
        if index + 1 < len(order):
            remaining = remaining.fork(range(1, remaining.batch))
    return [finished[row] for row in range(len(texts))]


def memorize_each(session: Session, texts: Sequence[Text]) -> tuple[list[Session], list[Record]]:
    """Memorize one text in each row of `session`; return a session of one row per text, and what was written.

    An empty text writes nothing. `session` itself is unchanged, except under memory.reset=carry, where its one row
    memorizes for the next example.
    """
    if session.policy.carries:
        (text,) = texts
        return [session], memorize_rows(session, text[None])
    finished: dict[int, Session] = {}
    written: dict[int, Record] = {}
    # only texts of one length share a batch: surprise and writes are means over segments, which must end together
    for length in sorted({len(text) for text in texts}):
        rows = [row for row, text in enumerate(texts) if len(text) == length]
        group = session.fork(rows)
        records = memorize_rows(group, torch.stack([texts[row] for row in rows]))
        for index, row in enumerate(rows):
            finished[row], written[row] = group.fork([index]), records[index]
    order = range(len(texts))
    return [finished[row] for row in order], [written[row] for row in order]


def memorize_rows(session: Session, tokens: Int[Tensor, "b t"]) -> list[Record]:
    """Memorize `tokens`, one text in each row, where there are any; return what was written."""
    return session.memorize(tokens).records() if tokens.shape[1] else [{} for _ in tokens]


def score_each(session: Session, continuations: Sequence[Text]) -> list[Score]:
    """Score each of the `continuations` after what the one row of `session` has read."""
    (scores,) = score_choices(session, [continuations])
    return scores


def score_choices(session: Session, choices: Sequence[Sequence[Text]]) -> list[list[Score]]:
    """Score the continuations `choices[row]` after what that row of `session` has read; `session` is unchanged.

    All are read in one forward pass. Padding after a shorter one changes nothing, as tokens are predicted from those
    before them and the padded states are dropped. Raises DataError for a continuation without tokens, which has no
    score.
    """
    continuations = [each for row in choices for each in row]
    if not all(len(each) for each in continuations):
        raise DataError("a continuation without tokens has no score; fix the task, or leave the question out")
    longest = max(map(len, continuations))
    padded = torch.stack([F.pad(each, (0, longest - len(each))) for each in continuations])
    fork = session.fork([row for row, each in enumerate(choices) for _ in each])
    # the logits after the context predict the first token
    first = fork.feed(padded[:, :0])[:, None]
    predictions = torch.cat([first, fork.read(padded)[:, :-1]], dim=1).float().cpu()
    nats = F.cross_entropy(predictions.mT, padded, reduction="none")
    right = predictions.argmax(-1) == padded
    scores = iter(
        Score(nats[row, : len(each)], bool(right[row, : len(each)].all())) for row, each in enumerate(continuations)
    )
    return [[next(scores) for _ in row] for row in choices]
