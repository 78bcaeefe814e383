"""Answers to a prompt that ends where the answer begins: the likeliest of some, or what the model goes on with."""

from collections.abc import Sequence

import torch

from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.evals.protocol import Record
from nested_learning.evals.requests import GenerationRequest, generate_text
from nested_learning.evals.variable_length import Text, memorize_each, read_each, score_each
from nested_learning.inference.session import Session


def read_prompts(
    session: Session, contexts: Sequence[Text], questions: Sequence[Text]
) -> tuple[list[Session], list[Record]]:
    """Read a context and a question in each stream of `session`; return a session of one row for each, after them.

    One that studies does so with the contexts, and finds each question at the beginning of another text; the rows tell
    what was written.
    """
    if not session.memorizes:
        whole = [torch.cat(pair) for pair in zip(contexts, questions, strict=True)]
        return read_each(session, whole), [{} for _ in whole]
    readers, rows = memorize_each(session, contexts)
    for reader, question in zip(readers, questions, strict=True):
        reader.feed(question)
    return readers, rows


def likeliest_candidate(reader: Session, candidates: Sequence[str], right: int) -> tuple[int, float]:
    """Return the number of the likeliest of `candidates`, by the sum of its nats, after what the one row of `reader`
    has read; and the log-probability of number `right`, in nats a token.
    """
    words = tokenizer_of(reader)
    scores = score_each(reader, [torch.from_numpy(words.encode(f" {candidate}")) for candidate in candidates])
    costs = [float(score.nats.sum()) for score in scores]
    return costs.index(min(costs)), -float(scores[right].nats.mean())


def generate_greedily(reader: Session, num_tokens: int) -> str:
    """Return the text of the likeliest tokens, at most `num_tokens`, that come after what the one row of `reader` has
    read; it ends where the model ends the text.
    """
    nothing = torch.empty(0, dtype=torch.int64)
    return generate_text(reader.fork(), GenerationRequest(nothing, nothing, (), num_tokens))


def tokenizer_of(reader: Session) -> Tokenizer:
    """Return the tokenizer of a session that has one."""
    assert reader.tokenizer is not None, "examples are for models that read text"
    return reader.tokenizer
