"""Prompts of CORE: worked examples before a question, and which tokens of the text are the answer."""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from nested_learning.data.text.json_lines import Item
from nested_learning.evals.requests import LoglikelihoodRequest, common_length, split_after
from nested_learning.evals.variable_length import Text

# task kind -> the keys of a line: multiple choice, one ending for several contexts (Winograd schema), or a text
KEYS = {
    "choice": ("query", "choices", "gold"),
    "schema": ("context_options", "continuation", "gold"),
    "text": ("context", "continuation"),
}
# seeds of the order of questions and of the examples before each; published numbers use these
ORDER, EXAMPLES = 1337, 1234


class Rules(NamedTuple):
    """How to prompt for a task: the `kind` of question, the number of examples before it, the text before an answer."""

    kind: str
    shots: int
    delimiter: str


def in_order(items: Sequence[Item]) -> list[Item]:
    """Return the questions in CORE's order."""
    shuffled = list(items)
    random.Random(ORDER).shuffle(shuffled)
    return shuffled


def examples_for(items: Sequence[Item], number: int, shots: int) -> list[Item]:
    """Return `shots` random examples for question `number`, chosen from the other `items`."""
    others = [other for other in range(len(items)) if other != number]
    return [items[other] for other in random.Random(EXAMPLES + number).sample(others, shots)] if shots else []


def to_request(
    item: Item, examples: Sequence[Item], rules: Rules, encode: Callable[[str], Text]
) -> LoglikelihoodRequest:
    """Return a question in tokens, after its `examples`.

    Multiple choice scores the tokens after the common prefix of all choices; a schema scores the common suffix of all
    contexts. Source: DCLM, arXiv 2406.11794, section 3.5, in the form of karpathy/nanochat, core_eval.py.
    """
    before = "".join(f"{solved(example, rules)}\n\n" for example in examples)
    match rules.kind:
        case "choice":
            given = before + item["query"] + rules.delimiter
            return after_common_prefix(encode(given.rstrip()), [encode(given + choice) for choice in item["choices"]])
        case "schema":
            contexts = [before + context for context in item["context_options"]]
            common = contexts[0][: common_length(contexts)]
            answer = rules.delimiter + item["continuation"]
            memorized = encode(common[: common.rfind(" ") + 1].rstrip())
            texts = [encode(context + answer) for context in contexts]
            if len({text[-1].item() for text in texts}) > 1:
                # tokens span the end of the contexts, so that none of the answer is common
                return LoglikelihoodRequest(memorized, tuple(map(encode, contexts)), (encode(answer),) * len(contexts))
            return at_common_suffix(memorized, texts)
        case _:
            given = before + item["context"].strip() + rules.delimiter
            start = encode(given.rstrip())
            context, continuations = split_after(start, [encode(given + item["continuation"])])
            return LoglikelihoodRequest(start, (context,), tuple(continuations))


def solved(item: Item, rules: Rules) -> str:
    """Return an example together with its answer."""
    match rules.kind:
        case "choice":
            return f"{item['query']}{rules.delimiter}{item['choices'][item['gold']]}"
        case "schema":
            return f"{item['context_options'][item['gold']]}{rules.delimiter}{item['continuation']}"
        case _:
            return f"{item['context'].strip()}{rules.delimiter}{item['continuation']}"


def after_common_prefix(memorized: Text, texts: Sequence[Text]) -> LoglikelihoodRequest:
    """Split `texts` after their common prefix; at least the last token of each is scored."""
    start = min(common_length([text.tolist() for text in texts]), min(map(len, texts)) - 1)
    return LoglikelihoodRequest(memorized, tuple(text[:start] for text in texts), tuple(text[start:] for text in texts))


def at_common_suffix(memorized: Text, texts: Sequence[Text]) -> LoglikelihoodRequest:
    """Split `texts` before their common suffix, which is scored; they end with one token."""
    suffix = common_length([text.tolist()[::-1] for text in texts])
    starts = [len(text) - suffix for text in texts]
    return LoglikelihoodRequest(
        memorized,
        tuple(text[:start] for text, start in zip(texts, starts, strict=True)),
        tuple(text[start:] for text, start in zip(texts, starts, strict=True)),
    )
