"""Texts of different lengths in one batch: each row is read alone, nothing is padded, so no row notices another."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from nested_learning.evals.protocol import Record
from nested_learning.inference.session import Session
from nested_learning.shapes import Float, Int, Tensor

# of any length
Text = Int[Tensor, " _"]


class Score(NamedTuple):
    """What a continuation cost, in nats a token, and whether each of its tokens was the likeliest."""

    nats: Float[Tensor, " n"]
    is_greedy: bool


def read_each(session: Session, texts: Sequence[Text]) -> list[Session]:
    """Read a text of its own in each stream of `session`; return a session of one row for each, after its text.

    All rows are read together as far as the shortest goes, then the others go on. `session` stays where it was. Source:
    ours.
    """
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    ended: dict[int, Session] = {}
    live, done = session.fork(order), 0
    for place, row in enumerate(order):
        length = len(texts[row])
        if length > done:
            live.feed(torch.stack([texts[other][done:length] for other in order[place:]]))
            done = length
        ended[row] = live.fork([0])
        if place + 1 < len(order):
            live = live.fork(range(1, live.batch))
    return [ended[row] for row in range(len(texts))]


def study_each(session: Session, texts: Sequence[Text]) -> tuple[list[Session], list[Record]]:
    """Study a text of its own in each stream of `session`; return a session of one row for each, and what was written.

    Texts of one length are studied together. `session` stays where it was, unless what it studies is there for the next
    example: then its one row studies itself.
    """
    if session.policy.carries:
        (text,) = texts
        return [session], session.memorize(text).rows()
    after: dict[int, Session] = {}
    written: dict[int, Record] = {}
    for length in sorted({len(text) for text in texts}):
        rows = [row for row, text in enumerate(texts) if len(text) == length]
        together = session.fork(rows)
        memorized = together.memorize(torch.stack([texts[row] for row in rows])).rows()
        for place, row in enumerate(rows):
            after[row], written[row] = together.fork([place]), memorized[place]
    order = range(len(texts))
    return [after[row] for row in order], [written[row] for row in order]


def score_each(session: Session, continuations: Sequence[Text]) -> list[Score]:
    """Return what each of the `continuations` would cost after what the one row of `session` has read."""
    (scores,) = score_choices(session, [continuations])
    return scores


def score_choices(session: Session, choices: Sequence[Sequence[Text]]) -> list[list[Score]]:
    """Return what each of the `choices` of a row would cost after what that row of `session` has read.

    They are read side by side; what follows the end of a shorter one is padding, which nothing reads.
    """
    every = [each for row in choices for each in row]
    longest = max(map(len, every))
    padded = torch.stack([torch.nn.functional.pad(each, (0, longest - len(each))) for each in every])
    fork = session.fork([row for row, each in enumerate(choices) for _ in each])
    before = fork.feed(padded[:, :0])[:, None]
    predictions = torch.cat([before, fork.read(padded)[:, :-1]], dim=1).float().cpu()
    nats = torch.nn.functional.cross_entropy(predictions.mT, padded, reduction="none")
    right = predictions.argmax(-1) == padded
    scores = iter(Score(nats[row, : len(each)], bool(right[row, : len(each)].all())) for row, each in enumerate(every))
    return [[next(scores) for _ in row] for row in choices]
