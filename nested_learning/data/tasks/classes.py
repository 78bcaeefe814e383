"""`data=classes`: class-incremental learning on labelled texts, one task after another, each with new labels."""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

import numpy as np

from nested_learning.data.order import permute
from nested_learning.data.source import IGNORE, DataConfig, Row, require_at_least
from nested_learning.data.tasks.labelled import (
    LabelledText,
    TextFormat,
    assign_tasks,
    draw_labels,
    first_of_each,
    format_answer,
    format_question,
    named_tasks,
    read_labelled,
    require_labelled,
    split_labelled,
)
from nested_learning.data.tokenizers.choose_tokenizer import check_choice, make_tokenizer
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError, DataError
from nested_learning.seeds import derive_seed
from nested_learning.typed import PathText


@dataclass(kw_only=True)
class ClassesConfig(DataConfig):
    """Labelled texts from JSON lines with `text`, `label` and optionally `domain`. Every row is one text.

    Tasks follow each other, `steps_each` steps each. Only the label is a target. `num_tasks`: this many tasks, with
    labels assigned at random; null: one task per domain. `domains`: only these, in this order; null: all, in random
    order. `num_labels`: use only this many labels, drawn at random.
    `order`: the seed of these draws. `validation_path`: other texts with the same labels; null keeps `val_per_label`
    texts of each label for validation. `texts_per_label`: train on at most this many. `replay`: texts of each earlier
    label that are read again in every task. `is_joint`: all tasks at once, in the same number of steps, the usual
    baseline. `text_len`: tokens of a row; a longer text loses its first words.
    """

    name: str = "classes"
    batch_size: int = 32
    val_rows: int = 256
    path: PathText | None = None
    validation_path: PathText | None = None
    val_per_label: int = 5
    texts_per_label: int | None = None
    num_labels: int | None = None
    num_tasks: int | None = None
    domains: list[str] | None = None
    order: int = 0
    steps_each: int = 50
    replay: int = 0
    is_joint: bool = False
    text_len: int = 128
    tokenizer: PathText = "byte"
    vocab_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise ConfigError("data=classes: data.path is missing; use data.path=<JSON lines with text and label>")
        require_at_least(0, replay=self.replay, order=self.order)
        require_at_least(1, val_per_label=self.val_per_label, steps_each=self.steps_each)
        require_at_least(8, text_len=self.text_len)
        for name in ("num_tasks", "num_labels", "texts_per_label"):
            if vars(self)[name] is not None:
                require_at_least(1, **{name: vars(self)[name]})
        if self.domains is not None and self.num_tasks is not None:
            raise ConfigError(
                f"data.num_tasks={self.num_tasks}: assigns labels at random, and data.domains names the tasks; leave "
                "one of them out"
            )
        if self.domains is not None and len(set(self.domains)) != max(1, len(self.domains)):
            raise ConfigError(f"data.domains={self.domains}: must name one or more domains, each once")
        check_choice(self.tokenizer, self.vocab_size)

    def unread(self) -> dict[str, str]:
        """Return the keys that these settings do not read, each with the reason."""
        reasons = {}
        if self.validation_path is not None:
            reasons["val_per_label"] = "data.validation_path brings the texts for validation"
        if self.is_joint:
            reasons["replay"] = "data.is_joint=true reads all tasks at once"
        return reasons

    def require_files(self, key: str = "data") -> None:
        """Raise DataError for a file that is missing."""
        for option, path in (("path", self.path), ("validation_path", self.validation_path)):
            if path is not None:
                require_labelled(path, f"{key}.{option}")

    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> "Classes":
        """Read the files. Raises DataError for one that is missing or malformed, or labels without training texts."""
        where = f"data.path={self.path}"
        train = read_labelled(str(self.path), "data.path")
        if self.validation_path is None:
            train, validation = split_labelled(train, self.val_per_label)
        else:
            validation = read_labelled(self.validation_path, "data.validation_path")
        unknown = {each.label for each in validation} - {each.label for each in train}
        if unknown:
            raise DataError(
                f"data.validation_path={self.validation_path}: label {min(unknown)} is not in {where}; remove its "
                "texts, or add some for training"
            )
        if self.num_labels is not None:
            train, validation = draw_labels([train, validation], self.num_labels, self.order)
        if self.domains is None:
            tasks = assign_tasks(train, self.num_tasks, self.order, where)
        else:
            tasks = named_tasks(train, self.domains, where)
            kept = {label for task in tasks for label in task}
            train, validation = ([each for each in part if each.label in kept] for part in (train, validation))
        train = first_of_each(train, self.texts_per_label)
        if tokenizer is None:
            texts = [format_question(each.text) + format_answer(each.label) for each in train]
            tokenizer = make_tokenizer(self.tokenizer, self.vocab_size, texts)
        # a question may be cut to nothing, a label may not
        for label in (label for task in tasks for label in task):
            needed = len(TextFormat(tokenizer, self.text_len).answer(label)) + 2
            if needed > self.text_len:
                raise ConfigError(
                    f"data.text_len={self.text_len}: label {label} needs {needed} tokens; "
                    f"use data.text_len={2 * needed}"
                )
        return Classes(self, tasks, train, validation, tokenizer)


class Classes:
    """A Source of labelled texts, one per row. Epoch i is task i; after the last task its texts are read again.

    `tasks`: the labels of each task. `texts`: the texts of each split and task. `format`: how a text becomes tokens.
    """

    def __init__(
        self,
        config: ClassesConfig,
        tasks: list[list[str]],
        train: list[LabelledText],
        validation: list[LabelledText],
        tokenizer: Tokenizer,
    ) -> None:
        self.config, self.tasks = config, tasks
        self.vocab_size, self.seq_len = tokenizer.vocab_size, config.text_len
        self.tokenizer: Tokenizer | None = tokenizer
        self.format = TextFormat(tokenizer, config.text_len)
        parts = {"train": train, "validation": validation}
        self.texts = {
            split: [[each for each in part if each.label in set(task)] for task in tasks]
            for split, part in parts.items()
        }
        # runs made before `domains` was an option know nothing of it
        unread = {"path", "validation_path"} | ({"domains"} if config.domains is None else set())
        sequence = {name: value for name, value in vars(config).items() if name not in unread}
        read = (sequence, tokenizer.fingerprint, [tuple(each) for part in parts.values() for each in part])
        self.fingerprint = sha256(repr(read).encode()).hexdigest()
        self._validation = [each for task in self.texts["validation"] for each in task]
        self._pool = lru_cache(maxsize=1)(self._make_pool)

    def num_rows(self, split: str) -> int:
        """Count the rows of one epoch of `split`: of training, the rows read of one task."""
        if split == "validation":
            return len(self._validation)
        return self.config.steps_each * self.config.batch_size

    def row(self, split: str, epoch: int, index: int) -> Row:
        """Return row `index` of `epoch`: the texts of the task, repeated in a new order each time."""
        assert 0 <= index < self.num_rows(split), f"row {index} of {self.num_rows(split)}"
        if split == "validation":
            return self.write(self._validation[index])
        task = 0 if self.config.is_joint else min(epoch, len(self.tasks) - 1)
        pool = self._pool(task)
        # epochs beyond the last task continue its repetitions
        repetition, position = divmod((epoch - task) * self.num_rows(split) + index, len(pool))
        key = derive_seed(self.config.order, "texts", task, repetition)
        return self.write(pool[int(permute(key, len(pool), np.array([position]))[0])])

    def write(self, labelled: LabelledText) -> Row:
        """Return the row of one text: a document that ends with the label, then padding."""
        assert self.tokenizer is not None
        tokens, num_question = self.format.document(labelled)
        # the row is the `end` that opens the document, then its tokens but the last, which is only a target
        padded = np.full(self.seq_len + 1, self.tokenizer.end)
        padded[1 : len(tokens) + 1] = tokens
        targets = np.full(self.seq_len, IGNORE)
        targets[num_question : len(tokens)] = tokens[num_question:]
        documents = (np.arange(self.seq_len) >= len(tokens)).astype(np.int64)
        return Row(padded[:-1], targets, documents)

    def _make_pool(self, task: int) -> list[LabelledText]:
        """Return the texts that are read in a task: its own, and those replayed of earlier tasks."""
        tasks = self.texts["train"]
        if self.config.is_joint:
            return [each for texts in tasks for each in texts]
        replayed = [each for texts in tasks[:task] for each in first_of_each(texts, self.config.replay)]
        return tasks[task] + replayed
