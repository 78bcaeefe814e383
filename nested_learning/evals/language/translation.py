"""`evals=translation`: translate sentences of a constructed language after a lesson in it."""

import math
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from nested_learning.data.text.json_lines import Item, read_json_lines
from nested_learning.errors import ConfigError, DataError
from nested_learning.evals.metrics import Metric, Samples
from nested_learning.evals.protocol import EvalContext, Record, Report
from nested_learning.evals.requests import GenerationRequest, generate_text, memorize_all, read_all
from nested_learning.evals.variable_length import Text, encode_text, memorize_each, score_each
from nested_learning.inference.session import Session


class Sentence(NamedTuple):
    """A sentence to translate. `prompt` is `lesson` and `question` in one text; `answer` is the right translation.

    `another` is the next lesson of the file in another language, for controls; `right` is the answer as a string.
    """

    number: int
    prompt: Text
    lesson: Text
    question: Text
    another: Text
    answer: Text
    right: str


class Translation:
    """Evaluates at most `limit` sentences of the file `path`; an answer is one line of at most `num_tokens` tokens.

    Metrics after lesson and question: `chrf`, the mean chrF; `exact`, the fraction of exact matches; `bpb`, the bits
    per byte of the right answer. A suffix names other conditions. `_question_only`: the lesson is not read, only
    memorized under memory=memorize. Controls under memory=memorize: `_another_lesson`, a lesson in another language was
    memorized; `_after_another`, it was memorized after the right one.
    """

    reads_text = True

    def __init__(self, path: Path, batch_size: int, limit: int | None, num_tokens: int) -> None:
        self.path, self.batch_size, self.limit, self.num_tokens = path, batch_size, limit, num_tokens

    def examples(self, ctx: EvalContext) -> list[Sentence]:
        """Return the sentences in the tokens of the model. Raises ConfigError or DataError for a bad model or file."""
        chrf_scorer()
        encode = partial(encode_text, ctx.require_tokenizer("translation"))
        items = read_json_lines(self.path, {"context": str, "continuation": str})
        parts = [self._split_lesson(number, item) for number, item in enumerate(items, 1)]
        lessons = [lesson for lesson, _ in parts]
        found = []
        for number, (lesson, question) in enumerate(parts[: self.limit]):
            others = [other for other in lessons[number:] + lessons[:number] if other != lesson]
            right = items[number]["continuation"].strip()
            found.append(
                Sentence(
                    number=number,
                    prompt=encode(items[number]["context"].rstrip()),
                    lesson=encode(lesson),
                    question=encode(question),
                    another=encode(others[0] if others else ""),
                    answer=encode(f" {right}"),
                    right=right,
                )
            )
        return found

    def answer(self, session: Session, examples: Sequence[Sentence]) -> list[list[Record]]:
        """Translate each sentence, under every condition."""
        before, written = conditions(session, examples)
        rows = [
            {"sentence": example.number, "right": example.right, "bytes": len(example.right.encode()) + 1} | each
            for example, each in zip(examples, written, strict=True)
        ]
        for name, sessions in before.items():
            for row, example, after in zip(rows, examples, sessions, strict=True):
                row |= {f"{key}{name}": value for key, value in self._translate(after, example).items()}
        return [[row] for row in rows]

    def summarise(self, ctx: EvalContext, records: Sequence[Record]) -> Report:
        """Return the metrics of each condition."""
        metrics: dict[str, Samples | Metric] = {}
        for name in [key.removeprefix("chrf") for key in records[0] if key.startswith("chrf")]:
            metrics[f"chrf{name}"] = Samples.mean([record[f"chrf{name}"] for record in records], "higher")
            metrics[f"exact{name}"] = Samples.mean([record[f"exact{name}"] for record in records], "higher", 0.0)
            bits = [record[f"nats{name}"] / math.log(2) for record in records]
            metrics[f"bpb{name}"] = Samples(bits, [record["bytes"] for record in records], "lower")
        return Report(samples=metrics, records=list(records))

    def _translate(self, session: Session, example: Sentence) -> Record:
        (score,) = score_each(session, [example.answer])
        text = generate_text(
            session, GenerationRequest(example.lesson, example.question, ("\n",), self.num_tokens)
        ).strip()
        return {
            "text": text,
            "chrf": float(chrf_scorer().sentence_score(text, [example.right]).score),
            "exact": float(text == example.right),
            "nats": float(score.nats.double().sum()),
        }

    def _split_lesson(self, number: int, item: Item) -> tuple[str, str]:
        """Return the lesson, and the question after the last empty line."""
        lesson, _, question = item["context"].rpartition("\n\n")
        if not lesson.strip() or not question.strip() or not item["continuation"].strip():
            raise DataError(
                f"{self.path}, question {number}: its context should be a lesson, an empty line and a question, its "
                "continuation an answer"
            )
        return lesson.rstrip(), question.strip()


def conditions(session: Session, examples: Sequence[Sentence]) -> tuple[dict[str, list[Session]], list[Record]]:
    """Return by condition a session of one row for each sentence, before the answer, and what was written.

    Under memory.reset=carry there are no controls: memorizing a wrong lesson would spoil the next sentence.
    """
    ready, written = memorize_all(session, [example.lesson for example in examples])
    questions = [(row, example.question) for row, example in enumerate(examples)]
    prompts = [(row, example.prompt) for row, example in enumerate(examples)]
    found = {"": read_all(session, ready, prompts), "_question_only": read_all(session, ready, questions)}
    if ready is not None and not session.policy.carries and all(len(example.another) for example in examples):
        another, _ = memorize_each(session, [example.another for example in examples])
        found["_another_lesson"] = read_all(session, another, questions)
        later = [alone.fork() for alone in ready]
        for alone, example in zip(later, examples, strict=True):
            alone.memorize(example.another)
        found["_after_another"] = read_all(session, later, questions)
    return found, written


@cache
def chrf_scorer() -> Any:
    """Return the chrF scorer; raise ConfigError without the package `sacrebleu`.

    Source: chrF, M. Popovic, WMT 2015.
    """
    try:
        from sacrebleu.metrics import CHRF
    except ImportError as error:
        raise ConfigError("evals=translation needs the package sacrebleu: pip install -e '.[eval]'") from error
    return CHRF()
