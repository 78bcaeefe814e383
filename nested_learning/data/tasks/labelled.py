"""Labelled texts: reading them from JSON lines, assigning labels to tasks, and formatting them as documents."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.text.json_lines import Item, read_json_lines
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError, DataError
from nested_learning.seeds import derive_seed
from nested_learning.typed import did_you_mean

ALLOWED = 'one JSON object per line, such as {"text": "what is my balance", "label": "balance", "domain": "banking"}'


class LabelledText(NamedTuple):
    """A text, its label, and the domain of the label, None where the file has none."""

    text: str
    label: str
    domain: str | None


def read_labelled(path: str, key: str) -> list[LabelledText]:
    """Read the labelled texts in the file `path`. `key`: its option, for errors.

    Raises DataError for a file that is missing or empty, and for a malformed line, with its number.
    """
    where = f"{key}={path}"
    require_labelled(path, key)
    lines = read_json_lines(Path(path).expanduser(), {"text": str, "label": str}, where)
    return [_labelled(line, f"{where}, text {number}") for number, line in enumerate(lines, 1)]


def require_labelled(path: str, key: str) -> None:
    """Raise DataError where there is no file `path`, the value of the option `key`."""
    if not Path(path).expanduser().is_file():
        raise DataError(f"{key}={path}: no such file; it must have {ALLOWED}")


def _labelled(line: Item, where: str) -> LabelledText:
    for name in ("text", "label"):
        if not line[name].strip():
            raise DataError(f"{where}: has no {name}; it must have {ALLOWED}")
    domain = line.get("domain")
    if domain is not None and not isinstance(domain, str):
        raise DataError(f"{where}: its domain {domain} must be text; it must have {ALLOWED}")
    return LabelledText(line["text"], line["label"], domain)


def assign_tasks(labelled: Sequence[LabelledText], num_tasks: int | None, order: int, where: str) -> list[list[str]]:
    """Return the labels of each task: `num_tasks` tasks with labels assigned at random, or None for one per domain.

    `order`: the seed of the assignment, or of the order of the domains. Raises DataError for labels without a domain,
    ConfigError for more tasks than labels. Random tasks as in Momeni et al., arXiv 2412.15563; domains as in CLINC150.
    """
    rng = np.random.default_rng(derive_seed(order, "tasks"))
    labels = sorted({each.label for each in labelled})
    if num_tasks is not None:
        if num_tasks > len(labels):
            raise ConfigError(f"data.num_tasks={num_tasks}: there are {len(labels)} labels; use fewer tasks")
        return [sorted(part.tolist()) for part in np.array_split(rng.permutation(np.array(labels)), num_tasks)]
    domains = labels_by_domain(labelled, where)
    names = sorted(domains)
    return [domains[names[index]] for index in rng.permutation(len(names))]


def labels_by_domain(labelled: Sequence[LabelledText], where: str) -> dict[str, list[str]]:
    """Return the labels of each domain. Raises DataError for labels without a domain."""
    domains: dict[str, set[str]] = {}
    for each in labelled:
        if each.domain is None:
            raise DataError(
                f"{where}: label {each.label} has no domain; add domains, or use data.num_tasks=5 for random tasks"
            )
        domains.setdefault(each.domain, set()).add(each.label)
    return {name: sorted(labels) for name, labels in domains.items()}


def named_tasks(labelled: Sequence[LabelledText], domains: Sequence[str], where: str) -> list[list[str]]:
    """Return the labels of each task: the `domains` in this order. Raises ConfigError for one that is not there."""
    known = labels_by_domain(labelled, where)
    for name in domains:
        if name not in known:
            raise ConfigError(
                f"data.domains: {where} has no domain {name}; {did_you_mean(name, list(known))}there are "
                f"{', '.join(sorted(known))}"
            )
    return [known[name] for name in domains]


def draw_labels(parts: Sequence[list[LabelledText]], num_labels: int, order: int) -> list[list[LabelledText]]:
    """Keep in each of `parts` only the texts of `num_labels` labels, drawn from those of the first part by `order`.

    Raises ConfigError where there are fewer labels.
    """
    labels = sorted({each.label for each in parts[0]})
    if num_labels > len(labels):
        raise ConfigError(f"data.num_labels={num_labels}: there are {len(labels)} labels; use fewer, or null for all")
    drawn = np.random.default_rng(derive_seed(order, "labels")).permutation(np.array(labels))[:num_labels]
    kept = set(drawn.tolist())
    return [[each for each in part if each.label in kept] for part in parts]


def split_labelled(labelled: Sequence[LabelledText], per_label: int) -> tuple[list[LabelledText], list[LabelledText]]:
    """Split off the last `per_label` texts of each label for validation; return training and validation texts.

    Raises ConfigError where a label would keep no training text.
    """
    positions: dict[str, list[int]] = {}
    for i, each in enumerate(labelled):
        positions.setdefault(each.label, []).append(i)
    for label, indices in positions.items():
        if len(indices) <= per_label:
            raise ConfigError(
                f"data.val_per_label={per_label}: label {label} has {len(indices)} texts; "
                "use less, or data.validation_path"
            )
    held_out = {i for indices in positions.values() for i in indices[-per_label:]}
    parts: tuple[list[LabelledText], list[LabelledText]] = ([], [])
    for i, each in enumerate(labelled):
        parts[i in held_out].append(each)
    return parts


def first_of_each(labelled: Sequence[LabelledText], per_label: int | None) -> list[LabelledText]:
    """Return the first `per_label` texts of each label; None: all texts."""
    count: dict[str, int] = {}
    kept = []
    for each in labelled:
        count[each.label] = count.get(each.label, 0) + 1
        if per_label is None or count[each.label] <= per_label:
            kept.append(each)
    return kept


def format_question(text: str) -> str:
    """Return the prompt that the label completes."""
    return f"Text: {text}\nLabel:"


def format_answer(label: str) -> str:
    """Return a label as words."""
    return f" {label.replace('_', ' ')}"


class TextFormat:
    """Encodes labelled texts as documents of at most `length` tokens: question, answer, `end`.

    A question that is too long loses its first tokens.
    """

    def __init__(self, tokenizer: Tokenizer, length: int) -> None:
        self.tokenizer, self.length = tokenizer, length

    def question(self, text: str, reserve: int = 0) -> NDArray[np.int64]:
        """Return the tokens of the question, at most `length` - `reserve` of them."""
        tokens = self.tokenizer.encode(format_question(text))
        return tokens[max(0, len(tokens) + reserve - self.length) :]

    def answer(self, label: str) -> NDArray[np.int64]:
        """Return the tokens of the answer."""
        return self.tokenizer.encode(format_answer(label))

    def document(self, labelled: LabelledText) -> tuple[NDArray[np.int64], int]:
        """Return the tokens of question, answer and `end`, and how many of them are the question."""
        answer = np.append(self.answer(labelled.label), self.tokenizer.end)
        question = self.question(labelled.text, len(answer))
        return np.concatenate([question, answer]), len(question)
