"""Examples from synthetic tasks: rows of harder versions of the trained task, and the tokens that a model predicts."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch.nn import functional as F

from nested_learning.data.batch import IGNORE, Batch, collate
from nested_learning.data.source import Row as DataRow
from nested_learning.evals.protocol import EvalContext, Record
from nested_learning.inference.session import PREFILL_TOKENS, Session
from nested_learning.shapes import Int, Tensor

T = TypeVar("T")


class Case(NamedTuple):
    """Row `number` of a version of the task. `about` identifies the version and is part of the record.

    `other` is another row of the same version, for a control.
    """

    number: int
    about: Record
    row: DataRow
    other: DataRow


def draw_cases(ctx: EvalContext, about: Record, num_rows: int, **changes: Any) -> list[Case]:
    """Return `num_rows` validation rows of the data with `changes`."""
    source = ctx.open_source(val_rows=num_rows, **changes)
    rows = [[source.row("validation", epoch, number) for number in range(num_rows)] for epoch in (0, 1)]
    return [Case(number, about, *pair) for number, pair in enumerate(zip(*rows, strict=True))]


def by_version(
    session: Session, cases: Sequence[Case], answer: Callable[[Session, list[Case]], Sequence[T]]
) -> list[T]:
    """Return what `answer` returns for each case; cases of one version share a batch."""
    answers: dict[int, T] = {}
    for about in {tuple(case.about.items()): case.about for case in cases}.values():
        rows = [row for row, case in enumerate(cases) if case.about == about]
        # under memory.reset=carry the session itself must memorize, not a fork of it
        group = session if len(rows) == len(cases) else session.fork(rows)
        answers |= zip(rows, answer(group, [cases[row] for row in rows]), strict=True)
    return [answers[row] for row in range(len(cases))]


def stack(rows: Sequence[DataRow]) -> Batch:
    """Return `rows` as a batch on the CPU."""
    return collate(list(rows))


def read_answers(session: Session, tokens: Int[Tensor, "b t"]) -> Int[Tensor, "b t"]:
    """Read `tokens`; return, on the CPU, the predicted token after each."""
    return torch.cat([session.read(chunk).argmax(-1).cpu() for chunk in tokens.split(PREFILL_TOKENS, 1)], 1)


def answer_along(session: Session, tokens: Int[Tensor, "b t"]) -> tuple[Int[Tensor, "b t"], list[Record]]:
    """Read `tokens`; return, on the CPU, the predicted token after each, and what each row wrote.

    Under memory=memorize each segment is memorized after it was predicted: its tokens, never the targets of the task.
    """
    if not session.memorizes:
        return read_answers(session, tokens), [{} for _ in tokens]
    memorized = session.read_and_memorize(tokens, F.pad(tokens[:, 1:], (0, 1), value=IGNORE))
    return memorized.predictions, memorized.records()


def marks(answers: Int[Tensor, " t"], targets: Int[Tensor, " t"]) -> list[int]:
    """Return 1 for each target of a row that was predicted, 0 for each that was not."""
    valid = targets != IGNORE
    return (answers[valid] == targets[valid]).int().tolist()
