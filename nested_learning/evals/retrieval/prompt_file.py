"""Prompts of one's own: JSON lines with a context, a question, its answers, and candidates to choose from."""

from pathlib import Path
from typing import NamedTuple

from nested_learning.data.text.json_lines import Item, read_json_lines
from nested_learning.errors import DataError

ALLOWED = 'such as {"context": "Mary went home.", "question": " Mary is at", "answers": ["home"]}'


class WrittenPrompt(NamedTuple):
    """A question after its context. `candidates`, if any, hold the first of the `answers`; `task` groups metrics."""

    context: str
    question: str
    answers: list[str]
    candidates: list[str]
    task: str


def read_prompt_file(path: Path) -> list[WrittenPrompt]:
    """Return the prompts in the file `path`. Raises DataError, with its number, for one that cannot be asked."""
    items = read_json_lines(path, {"context": str, "question": str, "answers": list})
    return [_prompt(item, f"{path}, prompt {number}") for number, item in enumerate(items, 1)]


def _prompt(item: Item, place: str) -> WrittenPrompt:
    unknown = [key for key in item if key not in WrittenPrompt._fields]
    if unknown:
        raise DataError(f"{place}: no key {unknown[0]} is read, only {', '.join(WrittenPrompt._fields)}; {ALLOWED}")
    candidates, task = item.get("candidates", []), item.get("task", "")
    if not isinstance(task, str) or not isinstance(candidates, list) or not all(isinstance(x, str) for x in candidates):
        raise DataError(f"{place}: its task must be text, its candidates a list of texts; {ALLOWED}")
    if not item["question"] or not all(each.strip() for each in (*item["answers"], *candidates)):
        raise DataError(f"{place}: a question, answer or candidate is empty; {ALLOWED}")
    if candidates and (len(candidates) < 2 or candidates.count(item["answers"][0]) != 1):
        raise DataError(
            f"{place}: its candidates must be two or more, and hold the first answer, {item['answers'][0]!r}, once"
        )
    return WrittenPrompt(item["context"], item["question"], item["answers"], candidates, task)
