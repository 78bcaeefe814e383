"""A session as a model of lm-evaluation-harness: `loglikelihood`, `loglikelihood_rolling`, `generate_until`."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby
from typing import Any

import torch

from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError
from nested_learning.evals.protocol import Record
from nested_learning.evals.questions import Prompt, Question, common_length, complete, cost, weigh
from nested_learning.evals.variable_length import Text
from nested_learning.inference.config import MemoryConfig
from nested_learning.inference.session import Session

# tokens that are drawn when a task does not say how many; the harness's own number
DRAWN = 256

# what makes a session of so many rows, each of which begins with the tokenizer's `end`
Opener = Callable[[int], Session]


class Encoder:
    """Turns the requests of lm-evaluation-harness into questions in tokens.

    `max_length`: how many tokens a context and its continuation may have together; what is too much is left out at the
    beginning. None: any number. Every text begins after the tokenizer's `end`, so none is without a context.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int | None = None) -> None:
        if max_length is not None and max_length < 2:
            raise ConfigError(f"max_length={max_length} must be at least 2: a context and what follows it")
        self.tokenizer, self.max_length = tokenizer, max_length

    def tokens(self, text: str) -> Text:
        """Return the tokens of `text`."""
        return torch.from_numpy(self.tokenizer.encode(text))

    def question(self, pairs: Sequence[tuple[str, str]]) -> Question:
        """Return what the requests (context, continuation) of one document ask.

        Where contexts differ, the candidates are in them: studied is what they have in common, up to a space. The
        spaces at the end of a context belong to its continuation. Source: lm-evaluation-harness, TemplateLM.
        """
        contexts, continuations = zip(*(self._pair(*pair) for pair in pairs), strict=True)
        given = pairs[0][0][: common_length([context for context, _ in pairs])]
        if any(context != given for context, _ in pairs):
            given = given[: given.rfind(" ") + 1]
        room = None if self.max_length is None else self.max_length - max(map(len, continuations))
        return Question(
            self._last(self.tokens(given.rstrip()), room),
            tuple(self._last(context, room) for context in contexts),
            continuations,
        )

    def prompt(self, context: str, wanted: dict[str, Any]) -> Prompt:
        """Return what a request to generate asks; `wanted`: until, max_gen_toks, do_sample, temperature, top_k, top_p.

        Raises ConfigError for other keys.
        """
        wanted = dict(wanted)
        until = wanted.pop("until", ())
        num_tokens = wanted.pop("max_gen_toks", DRAWN)
        samples = wanted.pop("do_sample", wanted.get("temperature", 0) > 0)
        chosen = {key: wanted.pop(key) for key in ("temperature", "top_k", "top_p") if key in wanted}
        if wanted:
            raise ConfigError(
                f"generation_kwargs: {', '.join(wanted)}: allowed are until, max_gen_toks, do_sample, temperature, "
                "top_k, top_p; give them with --gen_kwargs"
            )
        text = self._last(self.tokens(context), None if self.max_length is None else self.max_length - num_tokens)
        drawing = {"temperature": 1.0} | chosen if samples else {}
        stops = (until,) if isinstance(until, str) else tuple(until)
        return Prompt(text, text, tuple(stop for stop in stops if stop), num_tokens, **drawing)

    def _pair(self, context: str, continuation: str) -> tuple[Text, Text]:
        stripped = context.rstrip()
        continuation = context[len(stripped) :] + continuation
        if not continuation:
            raise ConfigError("a request without a continuation: there is nothing to score; mend the task")
        before = self.tokens(stripped)
        return before, self.tokens(stripped + continuation)[len(before) :]

    def _last(self, text: Text, room: int | None) -> Text:
        if room is None or len(text) <= room:
            return text
        if room < 1:
            raise ConfigError(f"max_length={self.max_length}: no room for a context; give more, or null for any length")
        return text[-room:]


class Answerer:
    """Answers the questions of lm-evaluation-harness with sessions that `opener` makes, `batch_size` rows at once.

    Under a policy that carries what was studied, one session answers all, one after the other.
    """

    def __init__(self, opener: Opener, batch_size: int) -> None:
        self.opener = opener
        self.carried = opener(1)
        self.batch_size = 1 if self.carried.policy.carries else batch_size

    def answer(self, kind: str, asked: Sequence[Any], window: int | None = None) -> list[tuple[Any, Record]]:
        """Return the answers to questions of one `kind`, that is, of one request type, and what was written."""
        answers: list[tuple[Any, Record]] = []
        for first in range(0, len(asked), self.batch_size):
            here = asked[first : first + self.batch_size]
            answers += answer(self._session(len(here)), kind, here, window)
        return answers

    def _session(self, rows: int) -> Session:
        if not self.carried.policy.carries:
            return self.opener(rows)
        self.carried.reset_context()
        return self.carried


def answer(session: Session, kind: str, asked: Sequence[Any], window: int | None = None) -> list[tuple[Any, Record]]:
    """Return the answers to questions of one request type, one to each stream of `session`, and what was written.

    loglikelihood: for each continuation its log probability and whether it is what greedy decoding draws;
    loglikelihood_rolling: the log probability of the text; generate_until: the text that follows.
    """
    match kind:
        case "loglikelihood":
            return [
                ([(-float(score.nats.double().sum()), score.is_greedy) for score in scores], row)
                for scores, row in weigh(session, asked)
            ]
        case "loglikelihood_rolling":
            return [(-nats, row) for nats, row in cost(session, asked, window)]
        case _:
            return complete(session, asked)


@cache
def lm_class() -> Any:
    """Return the class of models that lm-evaluation-harness knows as `nested`; it takes (opener, tokenizer, ...).

    Raises ConfigError without the package `lm-eval`. Source: lm-evaluation-harness, `lm_eval.api.model.TemplateLM`.
    """

    class NestedLM(template_lm()):  # type: ignore[misc]
        """A trained model behind the interface of lm-evaluation-harness, under a memory policy."""

        def __init__(
            self, opener: Opener, tokenizer: Tokenizer, *, batch_size: int = 8, max_length: int | None = None
        ) -> None:
            super().__init__()
            self.encoder, self.answerer = Encoder(tokenizer, max_length), Answerer(opener, batch_size)
            self.batch_size, self.max_gen_toks = batch_size, DRAWN
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
            asked = [self.encoder.question([request.args for request in group]) for group in by_document(requests)]
            return [one for found, _ in self.answerer.answer("loglikelihood", asked) for one in found]

        def _loglikelihood_tokens(self, requests: list[Any], **_keywords: Any) -> list[tuple[float, bool]]:
            texts = [(torch.tensor(given, dtype=torch.int64), torch.tensor(wanted)) for _, given, wanted in requests]
            asked = [Question(given, (given,), (wanted,)) for given, wanted in texts]
            return [found[0] for found, _ in self.answerer.answer("loglikelihood", asked)]

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
            asked = [self.encoder.tokens(request.args[0]) for request in requests]
            return [found for found, _ in self.answerer.answer("loglikelihood_rolling", asked, self.encoder.max_length)]

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            asked = [self.encoder.prompt(*request.args) for request in requests]
            return [found for found, _ in self.answerer.answer("generate_until", asked)]

    return NestedLM


def by_document(requests: Sequence[Any]) -> Iterator[list[Any]]:
    """Cut the requests where another document begins; they come document by document."""
    # requests that belong to no document stand alone
    numbered = enumerate(requests)
    key = lambda each: (each[1].task_name, each[1].doc_id, each[0] if each[1].doc_id is None else 0)  # noqa: E731
    for _, group in groupby(numbered, key):
        yield [request for _, request in group]


def refuse_cache(policy: MemoryConfig) -> None:
    """Raise ConfigError where answers depend on more than the text, which is all that the harness's cache knows."""
    if policy.name != "online":
        raise ConfigError(
            f"--use_cache: its answers are those of memory=online, not of memory={policy.name}; leave it out"
        )


def template_lm() -> Any:
    """Return the base class of models of lm-evaluation-harness; raise ConfigError without the package."""
    try:
        from lm_eval.api.model import TemplateLM
    except ImportError as error:
        raise ConfigError(
            "this needs the package lm-eval, in a version that imports: pip install 'nested-learning[eval]'"
        ) from error
    return TemplateLM
