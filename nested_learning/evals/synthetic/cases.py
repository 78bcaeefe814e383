"""Rows of a made-up task as examples: harder versions of what was trained, and which tokens the model answers."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch.nn import functional as F

from nested_learning.data.batch import IGNORE, Batch, collate
from nested_learning.data.source import Row as DataRow
from nested_learning.errors import ConfigError
from nested_learning.evals.protocol import EvalContext, Record
from nested_learning.inference.session import PREFILL_TOKENS, Session
from nested_learning.shapes import Int, Tensor

T = TypeVar("T")


class Case(NamedTuple):
    """Row `number` of a version of the task; `about` says which version, and is kept with the answer.

    `other` is another row of the same version.
    """

    number: int
    about: Record
    row: DataRow
    other: DataRow


def draw_cases(ctx: EvalContext, about: Record, num_rows: int, **changes: Any) -> list[Case]:
    """Return `num_rows` validation rows of the data with `changes`.

    Raises ConfigError for rows whose tokens the model does not know.
    """
    source = ctx.open_source(val_rows=num_rows, **changes)
    if source.vocab_size != ctx.model.vocab_size:
        raise ConfigError(
            f"data={ctx.data.name}: its rows have {source.vocab_size} tokens, the model knows "
            f"{ctx.model.vocab_size}; leave the data.* that change the vocabulary out, the checkpoint brings them"
        )
    rows = [[source.row("validation", epoch, number) for number in range(num_rows)] for epoch in (0, 1)]
    return [Case(number, about, *pair) for number, pair in enumerate(zip(*rows, strict=True))]


def by_version(
    session: Session, cases: Sequence[Case], answer: Callable[[Session, list[Case]], Sequence[T]]
) -> list[T]:
    """Return what `answer` says of each case; those of one version are answered together."""
    found: dict[int, T] = {}
    for about in {tuple(case.about.items()): case.about for case in cases}.values():
        places = [place for place, case in enumerate(cases) if case.about == about]
        # what a session carries is in itself and not in its forks
        part = session if len(places) == len(cases) else session.fork(places)
        found |= zip(places, answer(part, [cases[place] for place in places]), strict=True)
    return [found[place] for place in range(len(cases))]


def stack(rows: Sequence[DataRow]) -> Batch:
    """Return `rows` as a batch on the CPU."""
    return collate(list(rows))


def read_answers(session: Session, tokens: Int[Tensor, "b t"]) -> Int[Tensor, "b t"]:
    """Read `tokens`; return, on the CPU, the likeliest token after each."""
    return torch.cat([session.read(piece).argmax(-1).cpu() for piece in tokens.split(PREFILL_TOKENS, 1)], 1)


def answer_along(session: Session, tokens: Int[Tensor, "b t"]) -> tuple[Int[Tensor, "b t"], list[Record]]:
    """Read `tokens`; return, on the CPU, the likeliest token after each, and what study wrote of each row.

    A session that studies learns from each piece of the text itself once it has answered, never from a target of the
    task.
    """
    if not session.memorizes:
        return read_answers(session, tokens), [{} for _ in tokens]
    memorized = session.read_and_memorize(tokens, F.pad(tokens[:, 1:], (0, 1), value=IGNORE))
    return memorized.predictions, memorized.records()


def marks(answers: Int[Tensor, " t"], targets: Int[Tensor, " t"]) -> list[int]:
    """Return for each target of a row 1 where it was answered, else 0."""
    asked = targets != IGNORE
    return (answers[asked] == targets[asked]).int().tolist()
