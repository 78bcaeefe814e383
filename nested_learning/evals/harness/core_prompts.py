"""How CORE asks: examples before a question, and which tokens of the whole are the answer."""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from nested_learning.evals.harness.json_lines import Item
from nested_learning.evals.questions import Question, common_length
from nested_learning.evals.variable_length import Text

# the keys of a line of each kind of task
KEYS = {
    "choice": ("query", "choices", "gold"),
    "schema": ("context_options", "continuation", "gold"),
    "text": ("context", "continuation"),
}
# what the order of the questions, and the examples of each, are drawn with; published numbers are made with these
ORDER, EXAMPLES = 1337, 1234


class Rules(NamedTuple):
    """How a task is asked: its `kind` of question, how many examples come first, what stands before an answer."""

    kind: str
    shots: int
    delimiter: str


def in_order(items: Sequence[Item]) -> list[Item]:
    """Return the questions in the order in which they are asked."""
    shuffled = list(items)
    random.Random(ORDER).shuffle(shuffled)
    return shuffled


def examples_for(items: Sequence[Item], number: int, shots: int) -> list[Item]:
    """Return the examples that come before question `number`: others of `items`, which are in order."""
    others = [place for place in range(len(items)) if place != number]
    return [items[place] for place in random.Random(EXAMPLES + number).sample(others, shots)] if shots else []


def ask(item: Item, examples: Sequence[Item], rules: Rules, encode: Callable[[str], Text]) -> Question:
    """Return a question in tokens. Where choices begin alike, the answer is what comes after that; contexts that differ
    have an answer that ends alike.

    Source: DCLM, arXiv 2406.11794, section 3.5, in the form of karpathy/nanochat, core_eval.py.
    """
    before = "".join(f"{solved(example, rules)}\n\n" for example in examples)
    match rules.kind:
        case "choice":
            given = before + item["query"] + rules.delimiter
            return from_the_left(encode(given.rstrip()), [encode(given + choice) for choice in item["choices"]])
        case "schema":
            contexts = [before + context for context in item["context_options"]]
            common = contexts[0][: common_length(contexts)]
            answer = rules.delimiter + item["continuation"]
            return from_the_right(
                encode(common[: common.rfind(" ") + 1].rstrip()), [encode(context + answer) for context in contexts]
            )
        case _:
            given = before + item["context"].strip() + rules.delimiter
            start, whole = encode(given.rstrip()), encode(given + item["continuation"])
            alike = common_length([start.tolist(), whole.tolist()])
            return Question(start, (whole[:alike],), (whole[alike:],))


def solved(item: Item, rules: Rules) -> str:
    """Return an example with its answer."""
    match rules.kind:
        case "choice":
            return f"{item['query']}{rules.delimiter}{item['choices'][item['gold']]}"
        case "schema":
            return f"{item['context_options'][item['gold']]}{rules.delimiter}{item['continuation']}"
        case _:
            return f"{item['context'].strip()}{rules.delimiter}{item['continuation']}"


def from_the_left(memorized: Text, texts: Sequence[Text]) -> Question:
    """Cut `texts` where they begin to differ; at least the last token of each is an answer."""
    start = min(common_length([text.tolist() for text in texts]), min(map(len, texts)) - 1)
    return Question(memorized, tuple(text[:start] for text in texts), tuple(text[start:] for text in texts))


def from_the_right(memorized: Text, texts: Sequence[Text]) -> Question:
    """Cut `texts` from where they are alike to their end."""
    alike = common_length([text.tolist()[::-1] for text in texts])
    starts = [len(text) - alike for text in texts]
    return Question(
        memorized,
        tuple(text[:start] for text, start in zip(texts, starts, strict=True)),
        tuple(text[start:] for text, start in zip(texts, starts, strict=True)),
    )
