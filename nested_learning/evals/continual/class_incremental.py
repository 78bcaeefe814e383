"""`evals=class_incremental`: classes arrive task after task; the model chooses among all classes so far."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from nested_learning import checkpoint
from nested_learning.data.tasks.classes import Classes, ClassesConfig
from nested_learning.data.tasks.labelled import LabelledText, first_of_each
from nested_learning.errors import ConfigError, DataError
from nested_learning.evals.continual.transfer import accuracy_curves, accuracy_grid, transfer
from nested_learning.evals.continual.weights import Weights
from nested_learning.evals.protocol import EvalContext, Record, Report
from nested_learning.evals.variable_length import Text, memorize_each, read_each
from nested_learning.inference.session import Session
from nested_learning.seeds import derive_seed

NAME = "class_incremental"


class LabelQuestion(NamedTuple):
    """A test text of task `task` (1, 2, ...), to be labelled after `after` tasks.

    The candidates are the first `num_labels` labels in the order in which they arrived.
    """

    after: int
    task: int
    number: int
    text: LabelledText
    num_labels: int


class ClassIncremental:
    """Labels unseen texts after each task of data=classes, among all labels so far.

    The answer is the label with the lowest loss per token. There are `per_label` texts of each label (None: all),
    `at_once` in a batch. `joint` is the evaluated run of a model that learned all tasks at once. Source: Nested
    Learning, arXiv 2512.24695, section 9; splits and tasks as in Momeni et al., arXiv 2412.15563.
    """

    reads_text = True

    def __init__(self, per_label: int | None, at_once: int, joint: str | None) -> None:
        self.per_label, self.at_once, self.joint = per_label, at_once, joint
        self.batch_size = at_once
        self.source: Classes | None = None
        self.choices: Answers | None = None
        # what `joint` answered, which must be there before any work
        self.reference: list[Record] = []

    def open_source(self, ctx: EvalContext) -> Classes:
        """Open the data in the tokens of the model. Raises ConfigError for other data, or without a tokenizer."""
        if not isinstance(ctx.data, ClassesConfig):
            raise ConfigError(
                f"evals={NAME} needs data=classes, not data={ctx.data.name}; train with it, or give "
                "data=classes data.path=<JSON lines with text and label>"
            )
        if ctx.tokenizer is None:
            raise ConfigError(f"evals={NAME}: this model reads no text; use a checkpoint of one that does")
        self.reference = [] if self.joint is None else read_joint(Path(self.joint))
        self.source, self.choices = ctx.data.build(ctx.seed, ctx.tokenizer), None
        return self.source

    def choose_labels(self, starts: Sequence[Session], questions: Sequence[LabelQuestion]) -> list[Record]:
        """Choose a label for each question with its session of one row, which has read the text."""
        assert self.source is not None, "examples come before answers"
        labels = [label for task in self.source.tasks for label in task]
        records: list[Record] = []
        for start, each in zip(starts, questions, strict=True):
            nats = self.answers(each.num_labels).nats(start)
            chosen = labels[int(nats.argmin())]
            record = {"after": each.after, "task": each.task, "example": each.number, "label": each.text.label}
            right = int(chosen == each.text.label)
            records.append(record | {"chosen": chosen, "correct": right, "num_choices": each.num_labels})
        return records

    def answers(self, number: int) -> "Answers":
        """Return the first `number` labels as candidates."""
        assert self.source is not None, "examples come before answers"
        if self.choices is None or len(self.choices.answers) != number:
            labels = [label for task in self.source.tasks for label in task][:number]
            self.choices = Answers([torch.from_numpy(self.source.format.answer(label)) for label in labels])
        return self.choices

    def texts_of(self, questions: Sequence[LabelQuestion]) -> list[Text]:
        """Return the tokens of the texts to label."""
        assert self.source is not None, "examples come before answers"
        return [torch.from_numpy(self.source.format.question(each.text.text)) for each in questions]

    def summarise(self, ctx: EvalContext, records: Sequence[Record]) -> Report:
        """Return the metrics of `transfer`."""
        metrics = transfer(records, self.reference)
        return Report(
            samples=dict(metrics),
            records=list(records),
            curves=accuracy_curves(metrics),
            axis="tasks learned",
            grids={"accuracy": accuracy_grid(metrics)},
        )


class TrainedSequence(ClassIncremental):
    """Tasks are learned by training: evaluates the checkpoint at the end of each task."""

    def examples(self, ctx: EvalContext) -> list[LabelQuestion]:
        """Return the questions. Raises ConfigError for missing checkpoints, and for memory.reset=carry."""
        if ctx.policy.carries:
            raise ConfigError(
                f"memory.reset=carry: in evals.{NAME}.mode=weights the checkpoints share no memory; "
                f"use memory.reset=per_example, or evals.{NAME}.mode=memory"
            )
        source = self.open_source(ctx)
        self.run = ctx.run
        self.weights = Weights(ctx.model, ctx.weights)
        questions = questions_of(source, self.per_label)
        if source.config.is_joint:
            questions = [each for each in questions if each.after == len(source.tasks)]
        for after in dict.fromkeys(each.after for each in questions):
            self._checkpoint(after)
        return questions

    def answer(self, session: Session, examples: Sequence[LabelQuestion]) -> list[list[Record]]:
        """Return the record of each question."""
        records: dict[LabelQuestion, Record] = {}
        for after in dict.fromkeys(each.after for each in examples):
            here = [each for each in examples if each.after == after]
            model = self.weights.at(self._checkpoint(after))
            texts, starts = (
                self.texts_of(here),
                Session(model, session.tokenizer, batch=len(here), policy=session.policy),
            )
            if session.memorizes:
                memorized, written = memorize_each(starts, texts)
                ready = [read_each(each, [text])[0] for each, text in zip(memorized, texts, strict=True)]
            else:
                ready, written = read_each(starts, texts), [{} for _ in here]
            found = [record | each for record, each in zip(self.choose_labels(ready, here), written, strict=True)]
            records |= zip(here, found, strict=True)
        return [[records[each]] for each in examples]

    def _checkpoint(self, after: int) -> Path:
        assert self.source is not None, "examples come before answers"
        each = self.source.config.steps_each
        path = self.run / checkpoint.FOLDER / f"step_{after * each:08d}"
        if not path.exists():
            raise ConfigError(
                f"evals={NAME}: {self.run} has no checkpoint of step {after * each}, the end of task {after}; "
                f"train with save_every={each} keep_every={each} steps={len(self.source.tasks) * each}, or use "
                f"evals.{NAME}.mode=memory"
            )
        return path


class ReadSequence(ClassIncremental):
    """Tasks are read, not trained: one session reads the training texts with their labels, task after task.

    After each task, forks of it answer all questions. Under memory=memorize the texts of a task are memorized instead
    of read. An example is a number of tasks; its answer has the records of all questions after so many tasks.
    """

    def __init__(self, per_label: int | None, at_once: int, joint: str | None) -> None:
        super().__init__(per_label, at_once, joint)
        self.batch_size = 1

    def examples(self, ctx: EvalContext) -> range:
        """Return the numbers of tasks after which questions are answered, from 0."""
        source = self.open_source(ctx)
        self.questions = questions_of(source, self.per_label)
        self.seed = ctx.seed
        self.reader: Session | None = None
        self.done = 0
        return range(len(source.tasks) + 1)

    def answer(self, session: Session, examples: Sequence[int]) -> list[list[Record]]:
        """Return the records of all questions after so many tasks."""
        assert len(examples) == 1, "there is one session"
        after = examples[0]
        reader, written = self._read_tasks(session, after)
        questions = [each for each in self.questions if each.after == after]
        records: list[Record] = []
        for first in range(0, len(questions), self.at_once):
            here = questions[first : first + self.at_once]
            records += self.choose_labels(read_each(reader.fork([0] * len(here)), self.texts_of(here)), here)
        return [[record | written for record in records]]

    def _read_tasks(self, session: Session, after: int) -> tuple[Session, Record]:
        """Return a session like `session` that has read `after` tasks, and what was written for the last task."""
        assert self.source is not None, "examples come before answers"
        if self.reader is None or self.done > after:
            self.reader, self.done = session.fork(), 0
            self.reader.reset()
        written: Record = {}
        while self.done < after:
            texts = self.source.texts["train"][self.done]
            order = np.random.default_rng(derive_seed(self.seed, "read", self.done)).permutation(len(texts))
            tokens = torch.from_numpy(np.concatenate([self.source.format.document(texts[place])[0] for place in order]))
            if session.memorizes:
                (written,) = self.reader.memorize(tokens).records()
            else:
                self.reader.feed(tokens)
            self.done += 1
        return self.reader, written


class Answers:
    """Candidate answers that are scored together.

    A common prefix of several answers is read once, and the last tokens of answers, which predict nothing, not at all.
    """

    def __init__(self, answers: Sequence[Text]) -> None:
        self.answers = [tuple(each.tolist()) for each in answers]
        prefixes = {answer[:end] for answer in self.answers for end in range(1, len(answer))}
        # a prefix of a longer prefix is read with it
        self.read = sorted(prefixes - {each[:end] for each in prefixes for end in range(1, len(each))})
        longest = max(map(len, self.read), default=0)
        self.padded = torch.tensor([[*each, *[0] * (longest - len(each))] for each in self.read], dtype=torch.int64)
        # prefix -> the row of logits that predicts its next token: first the logits before any token, then row by row
        where = {
            each[:end]: 1 + row * longest + end - 1
            for row, each in enumerate(self.read)
            for end in range(1, len(each) + 1)
        }
        where[()] = 0
        self.places = torch.tensor([where[each[:end]] for each in self.answers for end in range(len(each))])
        self.tokens = torch.tensor([token for each in self.answers for token in each])
        self.owner = torch.tensor([number for number, each in enumerate(self.answers) for _ in each])

    def nats(self, session: Session) -> torch.Tensor:
        """Return the mean nats per token of each answer after what the one row of `session` has read."""
        logits = session.feed(torch.empty(1, 0, dtype=torch.int64))
        if self.read:
            read = session.fork([0] * len(self.read)).read(self.padded)
            logits = torch.cat([logits, read.flatten(0, 1)])
        found = logits.float().log_softmax(-1).cpu()[self.places, self.tokens]
        number = len(self.answers)
        return -torch.zeros(number).index_add(0, self.owner, found) / torch.bincount(self.owner, minlength=number)


def questions_of(source: Classes, per_label: int | None) -> list[LabelQuestion]:
    """Return all questions: after each task those of all tasks so far, and those of each task before it is learned."""
    numbered: list[list[tuple[int, LabelledText]]] = []
    number = 0
    for texts in source.texts["validation"]:
        chosen = first_of_each(texts, per_label)
        numbered.append(list(enumerate(chosen, number)))
        number += len(chosen)
    counts = np.cumsum([0, *map(len, source.tasks)]).tolist()
    # forward transfer compares R[0][j] with R[j - 1][j]; both choose among the labels up to task j
    before = {(after, task) for task in range(2, len(source.tasks) + 1) for after in (0, task - 1)}
    learned = {(after, task) for after in range(1, len(source.tasks) + 1) for task in range(1, after + 1)}
    return [
        LabelQuestion(after, task, place, text, counts[max(after, task)])
        for after, task in sorted(before | learned)
        for place, text in numbered[task - 1]
    ]


def read_joint(run: Path) -> list[Record]:
    """Return the records of a model that learned all tasks at once. Raises DataError where it was not evaluated."""
    path = run / "evals" / f"{NAME}.jsonl"
    if not path.exists():
        raise DataError(f"evals.{NAME}.joint={run}: has no {path.name}; evaluate it first: phase=eval evals={NAME}")
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise DataError(f"evals.{NAME}.joint={run}: {path.name} is damaged; evaluate it again") from error
