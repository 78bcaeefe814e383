"""The model interface of lm-evaluation-harness: `loglikelihood`, `loglikelihood_rolling`, `generate_until`."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby
from typing import Any

import torch

from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError
from nested_learning.evals.harness.generation import MAX_GENERATED, read_generation
from nested_learning.evals.protocol import Record
from nested_learning.evals.requests import (
    GenerationRequest,
    LoglikelihoodRequest,
    common_length,
    generate_until,
    loglikelihood,
    loglikelihood_rolling,
    split_after,
)
from nested_learning.evals.variable_length import Text, encode_text
from nested_learning.inference.config import MemoryConfig
from nested_learning.inference.session import Session
from nested_learning.logger.progress import show_progress

# makes a session of so many rows, each of which begins with the tokenizer's `end` token
Opener = Callable[[int], Session]


class Encoder:
    """Turns the requests of lm-evaluation-harness into tokens.

    `max_length`: the most tokens of a context and its continuation together; longer contexts lose their beginning.
    None: no limit. Sessions begin with the tokenizer's `end` token, so even an empty context predicts a first token.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int | None = None) -> None:
        if max_length is not None and max_length < 2:
            raise ConfigError(f"max_length={max_length} must be at least 2: a token of context, one of continuation")
        self.tokenizer, self.max_length = tokenizer, max_length

    def tokens(self, text: str) -> Text:
        """Return the tokens of `text`."""
        return encode_text(self.tokenizer, text)

    def to_loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> LoglikelihoodRequest:
        """Return the (context, continuation) pairs of one document as one request.

        Where contexts differ, they contain the candidates; then only their common prefix, up to a space, may be
        memorized. Spaces at the end of a context belong to its continuation, as in lm-evaluation-harness, TemplateLM.
        """
        contexts, continuations = self._split(pairs)
        given = pairs[0][0][: common_length([context for context, _ in pairs])]
        if any(context != given for context, _ in pairs):
            given = given[: given.rfind(" ") + 1]
        limit = None if self.max_length is None else self.max_length - max(map(len, continuations))
        return LoglikelihoodRequest(
            self._last(self.tokens(given.rstrip()), limit),
            tuple(self._last(context, limit) for context in contexts),
            continuations,
        )

    def to_generation(self, context: str, wanted: dict[str, Any]) -> GenerationRequest:
        """Return a request to generate as the generation arguments `wanted` say. Raises ConfigError for bad ones."""
        generation = read_generation(wanted)
        limit = None if self.max_length is None else self.max_length - generation.num_tokens
        text = self._last(self.tokens(context), limit)
        return GenerationRequest(text, text, *generation)

    def _split(self, pairs: Sequence[tuple[str, str]]) -> tuple[tuple[Text, ...], tuple[Text, ...]]:
        """Return the tokens of the contexts of `pairs`, without spaces at their end, and those of the continuations."""
        places: dict[str, list[int]] = {}
        for place, (context, continuation) in enumerate(pairs):
            if context.rstrip() == context + continuation:
                raise ConfigError("a request without a continuation: there is nothing to score; fix the task")
            places.setdefault(context.rstrip(), []).append(place)
        parts: dict[int, tuple[Text, Text]] = {}
        for context, here in places.items():
            texts = [self.tokens("".join(pairs[place])) for place in here]
            before, continuations = split_after(self.tokens(context), texts)
            parts |= {place: (before, each) for place, each in zip(here, continuations, strict=True)}
        contexts, scored = zip(*(parts[place] for place in range(len(pairs))), strict=True)
        return contexts, scored

    def _last(self, text: Text, limit: int | None) -> Text:
        if limit is None or len(text) <= limit:
            return text
        if limit < 1:
            raise ConfigError(
                f"max_length={self.max_length}: leaves no token for the context; use a larger one, or null"
            )
        return text[-limit:]


class Answerer:
    """Answers the requests of lm-evaluation-harness with sessions that `opener` makes, `batch_size` rows at once.

    Under memory.reset=carry one session answers all requests, one after the other.
    """

    def __init__(self, opener: Opener, batch_size: int) -> None:
        self.opener = opener
        self.carried = opener(1)
        self.batch_size = 1 if self.carried.policy.carries else batch_size

    def answer(self, kind: str, requests: Sequence[Any], window: int | None = None) -> list[tuple[Any, Record]]:
        """Return the answers to requests of one `kind`, a request type, and what was written."""
        answers: list[tuple[Any, Record]] = []
        with show_progress(kind, "requests") as show:
            for first in range(0, len(requests), self.batch_size):
                show(first, len(requests))
                batch = requests[first : first + self.batch_size]
                answers += answer(self._session(len(batch)), kind, batch, window)
        return answers

    def _session(self, rows: int) -> Session:
        if not self.carried.policy.carries:
            return self.opener(rows)
        self.carried.reset_context()
        return self.carried


def answer(session: Session, kind: str, requests: Sequence[Any], window: int | None = None) -> list[tuple[Any, Record]]:
    """Return the answers to requests of one type, one to each row of `session`, and what was written.

    loglikelihood: the log-probability of each continuation and whether it is greedy; loglikelihood_rolling: the
    log-probability of the text; generate_until: the generated continuation.
    """
    match kind:
        case "loglikelihood":
            return [
                ([(-float(score.nats.double().sum()), score.is_greedy) for score in scores], written)
                for scores, written in loglikelihood(session, requests)
            ]
        case "loglikelihood_rolling":
            return [(-nats, written) for nats, written in loglikelihood_rolling(session, requests, window)]
        case _:
            return generate_until(session, requests)


@cache
def lm_class() -> Any:
    """Return the model class that lm-evaluation-harness registers as `nested`; it takes (opener, tokenizer, ...).

    Raises ConfigError without the package `lm-eval`. Source: lm-evaluation-harness, `lm_eval.api.model.TemplateLM`.
    """

    class NestedLM(template_lm()):  # type: ignore[misc]
        """A trained model behind the interface of lm-evaluation-harness, under a memory policy."""

        def __init__(
            self, opener: Opener, tokenizer: Tokenizer, *, batch_size: int = 8, max_length: int | None = None
        ) -> None:
            super().__init__()
            self.encoder, self.answerer = Encoder(tokenizer, max_length), Answerer(opener, batch_size)
            self.batch_size, self.max_gen_toks = batch_size, MAX_GENERATED
            self.max_length = max_length or sys.maxsize
            self._device = next(self.answerer.carried.model.parameters()).device

        @property
        def eot_token_id(self) -> int:
            return self.encoder.tokenizer.end

        @property
        def tokenizer_name(self) -> str:
            return f"{self.encoder.tokenizer.name}-{self.encoder.tokenizer.fingerprint[:16]}"

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_keywords: Any) -> list[int]:
            tokens: list[int] = self.encoder.tokens(string).tolist()
            return tokens

        def tok_decode(self, tokens: Iterable[int], **_keywords: Any) -> str:
            return self.encoder.tokenizer.decode(tokens)

        def set_cache_hook(self, cache_hook: Any) -> None:
            refuse_cache(self.answerer.carried.policy)
            super().set_cache_hook(cache_hook)

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            documents = [[request.args for request in group] for group in by_document(requests)]
            encoded = [self.encoder.to_loglikelihood(pairs) for pairs in documents]
            return [score for scores, _ in self.answerer.answer("loglikelihood", encoded) for score in scores]

        def _loglikelihood_tokens(self, requests: list[Any], **_keywords: Any) -> list[tuple[float, bool]]:
            texts = [(torch.tensor(given, dtype=torch.int64), torch.tensor(wanted)) for _, given, wanted in requests]
            encoded = [LoglikelihoodRequest(given, (given,), (wanted,)) for given, wanted in texts]
            return [scores[0] for scores, _ in self.answerer.answer("loglikelihood", encoded)]

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
            encoded = [self.encoder.tokens(request.args[0]) for request in requests]
            answers = self.answerer.answer("loglikelihood_rolling", encoded, self.encoder.max_length)
            return [loglikelihood for loglikelihood, _ in answers]

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            encoded = [self.encoder.to_generation(*request.args) for request in requests]
            return [text for text, _ in self.answerer.answer("generate_until", encoded)]

    return NestedLM


def by_document(requests: Sequence[Any]) -> Iterator[list[Any]]:
    """Group consecutive requests by document."""
    # a request without a document is a group of its own
    numbered = enumerate(requests)
    key = lambda each: (each[1].task_name, each[1].doc_id, each[0] if each[1].doc_id is None else 0)  # noqa: E731
    for _, group in groupby(numbered, key):
        yield [request for _, request in group]


def refuse_cache(policy: MemoryConfig) -> None:
    """Raise ConfigError where answers depend on the memory policy: the harness's cache looks at the text only."""
    if policy.name != "online":
        raise ConfigError(
            f"--use_cache: the cache does not distinguish memory={policy.name} from memory=online; leave it out"
        )


def template_lm() -> Any:
    """Return the base class of models of lm-evaluation-harness; raise ConfigError without the package."""
    try:
        from lm_eval.api.model import TemplateLM
    except ImportError as error:
        raise ConfigError(
            "this needs the package lm-eval, in a version that imports: pip install -e '.[eval]'"
        ) from error
    return TemplateLM
