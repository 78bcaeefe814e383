"""Two ways to answer a prompt: choose the likeliest of some candidates, or generate a continuation."""

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
    """Read a context and a question in each row of `session`; return a session per row, and what was written.

    Under memory=memorize the context is memorized instead, and the question begins a new document.
    """
    if not session.memorizes:
        whole = [torch.cat(pair) for pair in zip(contexts, questions, strict=True)]
        return read_each(session, whole), [{} for _ in whole]
    readers, rows = memorize_each(session, contexts)
    for reader, question in zip(readers, questions, strict=True):
        reader.feed(question)
    return readers, rows


def likeliest_candidate(reader: Session, candidates: Sequence[str], right: int) -> tuple[int, float]:
    """Return the index of the likeliest of `candidates` after what the one row of `reader` has read.

    A candidate's likelihood is the sum over its tokens. Also returns the log-probability of candidate `right`, in nats
    per token.
    """
    words = tokenizer_of(reader)
    scores = score_each(reader, [torch.from_numpy(words.encode(f" {candidate}")) for candidate in candidates])
    nats = [float(score.nats.sum()) for score in scores]
    return nats.index(min(nats)), -float(scores[right].nats.mean())


def generate_greedily(reader: Session, num_tokens: int) -> str:
    """Return the greedy continuation of what the one row of `reader` has read, at most `num_tokens` tokens.

    It ends where the model generates the `end` token.
    """
    nothing = torch.empty(0, dtype=torch.int64)
    return generate_text(reader.fork(), GenerationRequest(nothing, nothing, (), num_tokens))


def tokenizer_of(reader: Session) -> Tokenizer:
    """Return the tokenizer of `reader`, which packs on text require to have one."""
    assert reader.tokenizer is not None, "the pack has checked that the model reads text"
    return reader.tokenizer
