"""Questions about texts: which continuation is likely, what a text costs, how it goes on. One way to answer each.

The adapter to lm-evaluation-harness and the packs of questions go through here; so what may be studied is studied the
same way, contexts that continuations share are read once, and no row notices another.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from nested_learning.evals.protocol import Record
from nested_learning.evals.variable_length import Score, Text, read_each, score_each, study_each
from nested_learning.inference.session import Session
from nested_learning.shapes import Int, Tensor

# tokens that are drawn between two looks at whether a text has ended
LOOK = 16


class Question(NamedTuple):
    """What would each of the `continuations` cost after its own of the `contexts`?

    `memorized`: what may be studied before, which no candidate is in. Texts may be empty, continuations may not.
    """

    memorized: Text
    contexts: tuple[Text, ...]
    continuations: tuple[Text, ...]


class Prompt(NamedTuple):
    """How does a text go on? `memorized` may be studied before; drawn are `num_tokens` at most, up to one of `until`.

    `temperature` 0: the likeliest token; `top_k` 0 and `top_p` 1: among all.
    """

    memorized: Text
    context: Text
    until: tuple[str, ...]
    num_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0


def weigh(session: Session, questions: Sequence[Question]) -> list[tuple[list[Score], Record]]:
    """Return the scores of the continuations of each question, one to each stream of `session`, and what was written.

    Every different context of a question is read once.
    """
    ready, written = prepare(session, [question.memorized for question in questions])
    distinct = [_distinct(question) for question in questions]
    texts = [(row, context) for row, contexts in enumerate(distinct) for context in contexts]
    after = iter(read_all(session, ready, texts))
    answers = []
    for question, contexts, row in zip(questions, distinct, written, strict=True):
        scores: dict[int, Score] = {}
        for context in contexts:
            places = [place for place, other in enumerate(question.contexts) if torch.equal(other, context)]
            found = score_each(next(after), [question.continuations[place] for place in places])
            scores |= dict(zip(places, found, strict=True))
        answers.append(([scores[place] for place in range(len(scores))], row))
    return answers


def cost(session: Session, texts: Sequence[Text], window: int | None = None) -> list[tuple[float, Record]]:
    """Return the nats that each text costs, one to each stream of `session`, and what was written.

    A text is read from end to end; one that may be studied is studied along the way, each piece after it was predicted.
    With a `window` it is cut every so many tokens, and each part is read from a fresh state, after the token before it.
    Source: ours; the windows are those of lm-evaluation-harness.
    """
    answers = []
    for place, text in enumerate(texts):
        parts = text.split(window or max(len(text), 1))
        nats, written = 0.0, Record()
        for number, part in enumerate(parts):
            alone = session.fork([place])
            if session.policy.carries:
                # what is studied is there for the next part, and the next text
                alone = session
                alone.reset_context()
            if number:
                alone.feed(parts[number - 1][-1:])
            found, written = _cost_along(alone, part)
            nats += found
        answers.append((nats, written))
    return answers


def complete(session: Session, prompts: Sequence[Prompt], seed: int = 0) -> list[tuple[str, Record]]:
    """Return how each prompt goes on, one to each stream of `session`, and what was written."""
    ready, written = prepare(session, [prompt.memorized for prompt in prompts])
    after = read_all(session, ready, [(row, prompt.context) for row, prompt in enumerate(prompts)])
    return [(draw(alone, prompt, seed), row) for alone, prompt, row in zip(after, prompts, written, strict=True)]


def draw(session: Session, prompt: Prompt, seed: int = 0) -> str:
    """Return what the one row of `session`, which has read the prompt, draws."""
    tokens, text = torch.empty(1, 0, dtype=torch.int64), ""
    end = -1 if session.tokenizer is None else session.tokenizer.end
    while tokens.shape[1] < prompt.num_tokens and end not in tokens:
        more = session.generate(
            min(LOOK, prompt.num_tokens - tokens.shape[1]),
            temperature=prompt.temperature,
            top_k=prompt.top_k,
            top_p=prompt.top_p,
            seed=seed,
        )
        tokens = torch.cat([tokens, more], 1)
        (text,) = session.text(_before(tokens, end))
        if any(stop in text for stop in prompt.until):
            break
    return cut(text, prompt.until)


def cut(text: str, until: Sequence[str]) -> str:
    """Return `text` up to the first place where one of `until` begins."""
    return text[: min([text.index(stop) for stop in until if stop in text], default=len(text))]


def prepare(session: Session, memorized: Sequence[Text]) -> tuple[list[Session] | None, list[Record]]:
    """Study a text for each stream where the policy says so: a session of one row for each, and what was written.

    None: nothing was studied. Under a policy that carries, `session` itself learns.
    """
    if not session.memorizes or not any(len(text) for text in memorized):
        return None, [{} for _ in memorized]
    return study_each(session, memorized)


def read_all(session: Session, ready: Sequence[Session] | None, texts: Sequence[tuple[int, Text]]) -> list[Session]:
    """Read texts, each after what the stream of its number has studied; return a session of one row after each."""
    if ready is None:
        return read_each(session.fork([row for row, _ in texts]), [text for _, text in texts])
    after = []
    for row, text in texts:
        alone = ready[row].fork()
        alone.feed(text)
        after.append(alone)
    return after


def common_length(texts: Sequence[Sequence[Any]]) -> int:
    """Return how far texts, of letters or tokens, begin alike."""
    shortest = min(texts, key=len)
    for place, letter in enumerate(shortest):
        if any(text[place] != letter for text in texts):
            return place
    return len(shortest)


def _cost_along(session: Session, text: Text) -> tuple[float, Record]:
    """Return the nats of `text` after what the one row of `session` has read, and what was written on the way."""
    if not session.memorizes or len(text) < 2:
        return float(session.score(text).double().sum()), {}
    first = F.cross_entropy(session.feed(text[:0]).float().cpu(), text[:1])
    found = session.read_and_memorize(text[None, :-1], text[None, 1:])
    return float(first) + float(found.nats.double().sum()), found.rows()[0]


def _distinct(question: Question) -> list[Text]:
    return list({tuple(context.tolist()): context for context in question.contexts}.values())


def _before(tokens: Int[Tensor, "b t"], end: int) -> Int[Tensor, "b n"]:
    """Return `tokens` of one row up to the first `end`."""
    row = tokens[0].tolist()
    return tokens[:, : row.index(end)] if end in row else tokens
