"""Texts with labels: read from JSON lines, divided into tasks, and written as a document that ends with its label."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.text.documents import as_data_error
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError, DataError
from nested_learning.seeds import derive_seed

ALLOWED = 'one JSON object a line, such as {"text": "what is my balance", "label": "balance", "domain": "banking"}'


class LabelledText(NamedTuple):
    """A text, its label, and the domain that the label belongs to, None where the file does not say."""

    text: str
    label: str
    domain: str | None


def read_labelled(path: str, key: str) -> list[LabelledText]:
    """Read the labelled texts in the file `path`, which was given as `key`.

    Raises DataError for a file that is missing, empty, or has a line that is something else, with its number.
    """
    where = f"{key}={path}"
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError(f"{where}: no such file; it should hold {ALLOWED}")
    with as_data_error(where):
        lines = file.read_bytes().decode("utf-8", errors="replace").splitlines()
    found = [_parse(line, f"{where}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise DataError(f"{where}: is empty; it should hold {ALLOWED}")
    return found


def _parse(line: str, where: str) -> LabelledText:
    try:
        value: Any = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: is no JSON ({error}); it should hold {ALLOWED}") from error
    for name in ("text", "label"):
        if not isinstance(value, dict) or not isinstance(value.get(name), str) or not value[name].strip():
            raise DataError(f"{where}: has no {name}; it should hold {ALLOWED}")
    domain = value.get("domain")
    return LabelledText(value["text"], value["label"], domain if isinstance(domain, str) else None)


def assign_tasks(labelled: Sequence[LabelledText], num_tasks: int | None, order: int, where: str) -> list[list[str]]:
    """Divide the labels into tasks: `num_tasks` of labels drawn at random, or with None one of each domain.

    `order` is the seed of what is drawn: the labels of each task, or the order of the domains. Raises DataError for
    labels without a domain, ConfigError for more tasks than labels. Source: ours, after Momeni et al., arXiv
    2412.15563, where tasks are drawn; by domain is what CLINC150 gives.
    """
    rng = np.random.default_rng(derive_seed(order, "tasks"))
    labels = sorted({each.label for each in labelled})
    if num_tasks is not None:
        if num_tasks > len(labels):
            raise ConfigError(f"data.num_tasks={num_tasks}: there are {len(labels)} labels; use fewer tasks")
        return [sorted(part.tolist()) for part in np.array_split(rng.permutation(np.array(labels)), num_tasks)]
    domains: dict[str, set[str]] = {}
    for each in labelled:
        if each.domain is None:
            raise DataError(f"{where}: label {each.label} has no domain; give data.num_tasks, and tasks are drawn")
        domains.setdefault(each.domain, set()).add(each.label)
    names = sorted(domains)
    return [sorted(domains[names[index]]) for index in rng.permutation(len(names))]


def draw_labels(parts: Sequence[list[LabelledText]], num_labels: int, order: int) -> list[list[LabelledText]]:
    """Return of all `parts` the texts of `num_labels` labels, drawn with the seed `order` from those of the first.

    Raises ConfigError for more labels than there are.
    """
    labels = sorted({each.label for each in parts[0]})
    if num_labels > len(labels):
        raise ConfigError(f"data.num_labels={num_labels}: there are {len(labels)} labels; use fewer, or null for all")
    drawn = np.random.default_rng(derive_seed(order, "labels")).permutation(np.array(labels))[:num_labels]
    kept = set(drawn.tolist())
    return [[each for each in part if each.label in kept] for part in parts]


def split_labelled(labelled: Sequence[LabelledText], per_label: int) -> tuple[list[LabelledText], list[LabelledText]]:
    """Keep the last `per_label` texts of each label for validation. Raises ConfigError where none would be left."""
    places: dict[str, list[int]] = {}
    for place, each in enumerate(labelled):
        places.setdefault(each.label, []).append(place)
    for label, here in places.items():
        if len(here) <= per_label:
            raise ConfigError(
                f"data.val_per_label={per_label}: label {label} has {len(here)} texts; "
                "use less, or data.validation_path"
            )
    kept = {place for here in places.values() for place in here[-per_label:]}
    parts: tuple[list[LabelledText], list[LabelledText]] = ([], [])
    for place, each in enumerate(labelled):
        parts[place in kept].append(each)
    return parts


def first_of_each(labelled: Sequence[LabelledText], per_label: int | None) -> list[LabelledText]:
    """Return the first `per_label` texts of each label, all of them with None."""
    count: dict[str, int] = {}
    kept = []
    for each in labelled:
        count[each.label] = count.get(each.label, 0) + 1
        if per_label is None or count[each.label] <= per_label:
            kept.append(each)
    return kept


def format_question(text: str) -> str:
    """Write what comes before the label."""
    return f"Text: {text}\nLabel:"


def format_answer(label: str) -> str:
    """Write a label as a model says it: in words."""
    return f" {label.replace('_', ' ')}"


class TextFormat:
    """How labelled texts are written in the tokens of a model: a question, its answer, and the token that ends them.

    The whole of a text takes at most `length` tokens: a longer question loses its first words, never its answer.
    """

    def __init__(self, tokenizer: Tokenizer, length: int) -> None:
        self.tokenizer, self.length = tokenizer, length

    def question(self, text: str, room: int = 0) -> NDArray[np.int64]:
        """Return the tokens of the question that leave `room` for what comes beside it."""
        tokens = self.tokenizer.encode(format_question(text))
        return tokens[max(0, len(tokens) + room - self.length) :]

    def answer(self, label: str) -> NDArray[np.int64]:
        """Return the tokens of the answer."""
        return self.tokenizer.encode(format_answer(label))

    def whole(self, labelled: LabelledText) -> tuple[NDArray[np.int64], int]:
        """Return the tokens of question, answer and end, and how many of them are the question."""
        answer = np.append(self.answer(labelled.label), self.tokenizer.end)
        question = self.question(labelled.text, len(answer))
        return np.concatenate([question, answer]), len(question)
