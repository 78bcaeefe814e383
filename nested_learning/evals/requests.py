"""The three requests of lm-evaluation-harness, answered by a session: loglikelihood, loglikelihood_rolling,
generate_until.

Every pack that scores or generates text uses these functions. Each request says which text may be memorized; a context
that several continuations share is read once; rows of a batch do not influence each other.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from nested_learning.evals.protocol import Record
from nested_learning.evals.variable_length import Score, Text, memorize_each, read_each, score_each
from nested_learning.inference.session import Session
from nested_learning.shapes import Int, Tensor

# tokens generated between two checks whether the text has ended
TOKENS_PER_CHECK = 16


class LoglikelihoodRequest(NamedTuple):
    """Score each of the `continuations` after the context with the same index.

    `memorized` is the text that may be memorized first; it contains no candidate answer. Only continuations must not be
    empty: a score over no tokens would be the best of all.
    """

    memorized: Text
    contexts: tuple[Text, ...]
    continuations: tuple[Text, ...]


class GenerationRequest(NamedTuple):
    """Continue `context` with at most `num_tokens` tokens, up to the first string of `until`.

    `memorized` is the text that may be memorized first. `temperature` 0 is greedy decoding; `top_k` 0 and `top_p` 1
    keep all tokens.
    """

    memorized: Text
    context: Text
    until: tuple[str, ...]
    num_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0


def loglikelihood(session: Session, requests: Sequence[LoglikelihoodRequest]) -> list[tuple[list[Score], Record]]:
    """Score the continuations of each request, one request to each row of `session`; also return what was written."""
    memories, written = memorize_all(session, [request.memorized for request in requests])
    distinct = [_distinct_contexts(request) for request in requests]
    texts = [(row, context) for row, contexts in enumerate(distinct) for context in contexts]
    after_context = iter(read_all(session, memories, texts))
    answers = []
    for request, contexts, record in zip(requests, distinct, written, strict=True):
        scores: dict[int, Score] = {}
        for context in contexts:
            indices = [index for index, other in enumerate(request.contexts) if torch.equal(other, context)]
            continuations = [request.continuations[index] for index in indices]
            scores |= zip(indices, score_each(next(after_context), continuations), strict=True)
        answers.append(([scores[index] for index in range(len(scores))], record))
    return answers


def loglikelihood_rolling(
    session: Session, texts: Sequence[Text], window: int | None = None
) -> list[tuple[float, Record]]:
    """Return the nats of each whole text, one text to each row of `session`, and what was written.

    Under memory=memorize each segment of a text is memorized after it was predicted. With a `window` the text is split
    every so many tokens, and each part is read from a new state, after the token before it, as lm-evaluation-harness
    does. An empty text costs 0 nats.
    """
    answers = []
    for row, text in enumerate(texts):
        parts = text.split(window or len(text)) if len(text) else ()
        nats, written = 0.0, Record()
        for number, part in enumerate(parts):
            if session.policy.carries:
                # the next part, and the next text, must see what this one memorizes
                reader = session
                reader.reset_context()
            else:
                reader = session.fork([row])
            if number:
                reader.feed(parts[number - 1][-1:])
            part_nats, written = _nats_of(reader, part)
            nats += part_nats
        answers.append((nats, written))
    return answers


def generate_until(session: Session, requests: Sequence[GenerationRequest], seed: int = 0) -> list[tuple[str, Record]]:
    """Return the generated continuation of each request, one to each row of `session`, and what was written."""
    memories, written = memorize_all(session, [request.memorized for request in requests])
    readers = read_all(session, memories, [(row, request.context) for row, request in enumerate(requests)])
    return [
        (generate_text(reader, request, seed), record)
        for reader, request, record in zip(readers, requests, written, strict=True)
    ]


def generate_text(session: Session, request: GenerationRequest, seed: int = 0) -> str:
    """Generate as `request` says with the one row of `session`, which has read the context."""
    tokens, text = torch.empty(1, 0, dtype=torch.int64), ""
    end = -1 if session.tokenizer is None else session.tokenizer.end
    while tokens.shape[1] < request.num_tokens and end not in tokens:
        more = session.generate(
            min(TOKENS_PER_CHECK, request.num_tokens - tokens.shape[1]),
            temperature=request.temperature,
            top_k=request.top_k,
            top_p=request.top_p,
            seed=seed,
        )
        tokens = torch.cat([tokens, more], 1)
        # decoded from the start: a stop string may span two rounds
        (text,) = session.text(_before_end(tokens, end))
        if any(stop in text for stop in request.until):
            break
    return truncate(text, request.until)


def truncate(text: str, until: Sequence[str]) -> str:
    """Return `text` up to the first occurrence of any string in `until`."""
    return text[: min([text.index(stop) for stop in until if stop in text], default=len(text))]


def memorize_all(session: Session, memorized: Sequence[Text]) -> tuple[list[Session] | None, list[Record]]:
    """Memorize a text in each row, where the policy is memorize; return a session per row and what was written.

    The first value is None where nothing was memorized. Under memory.reset=carry `session` itself memorizes.
    """
    if not session.memorizes or not any(len(text) for text in memorized):
        return None, [{} for _ in memorized]
    return memorize_each(session, memorized)


def read_all(session: Session, memories: Sequence[Session] | None, texts: Sequence[tuple[int, Text]]) -> list[Session]:
    """Read each (row, text) after what that row has memorized; return a session of one row for each text."""
    if memories is None:
        return read_each(session.fork([row for row, _ in texts]), [text for _, text in texts])
    readers = []
    for row, text in texts:
        reader = memories[row].fork()
        reader.feed(text)
        readers.append(reader)
    return readers


def common_length(texts: Sequence[Sequence[Any]]) -> int:
    """Return the length of the longest common prefix of `texts`, strings or token lists."""
    shortest = min(texts, key=len)
    for index, item in enumerate(shortest):
        if any(text[index] != item for text in texts):
            return index
    return len(shortest)


def split_after(context: Text, texts: Sequence[Text]) -> tuple[Text, list[Text]]:
    """Split `texts`, each a context and a continuation encoded together, after the last token of `context` they share.

    Returns the shared context and the rest of each text. A token that spans the end of the context belongs to what is
    scored; all continuations of a context then begin at the same place, so that their scores can be compared.
    """
    start = common_length([each.tolist() for each in (context, *texts)])
    return context[:start], [text[start:] for text in texts]


def _nats_of(session: Session, text: Text) -> tuple[float, Record]:
    """Return the nats of `text` after what the one row of `session` has read, and what was written on the way."""
    if not session.memorizes or len(text) < 2:
        return float(session.score(text).double().sum()), {}
    # the first token is predicted by what was read before; the others are predicted and memorized segment by segment
    first = F.cross_entropy(session.feed(text[:0]).float().cpu(), text[:1])
    result = session.read_and_memorize(text[None, :-1], text[None, 1:])
    return float(first) + float(result.nats.double().sum()), result.records()[0]


def _distinct_contexts(request: LoglikelihoodRequest) -> list[Text]:
    return list({tuple(context.tolist()): context for context in request.contexts}.values())


def _before_end(tokens: Int[Tensor, "b t"], end: int) -> Int[Tensor, "b n"]:
    """Return the `tokens` of one row before the first `end`."""
    row = tokens[0].tolist()
    return tokens[:, : row.index(end)] if end in row else tokens
