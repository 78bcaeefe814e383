"""The evaluation driver: answers examples batch by batch, saves every answer, resumes after an interruption."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nested_learning.errors import DataError
from nested_learning.evals.metrics import Samples
from nested_learning.evals.protocol import EvalContext, EvalPack, Record, Report

# the records of one example
Answer = list[Record]


def evaluate(
    pack: EvalPack,
    ctx: EvalContext,
    draft: Path,
    about: dict[str, Any],
    say: Callable[[str], None] = print,
    show: Callable[[int, int], None] = lambda _done, _total: None,
) -> Report:
    """Answer all examples of `pack` with the model of `ctx`, and summarise the records.

    `say` prints a line; `show` is told how many of how many examples are answered.

    Answers are appended to the file `draft` as they come. Where it already holds answers of the same evaluation, which
    `about` identifies, these are not computed again. Under memory.reset=carry examples are answered one after the
    other, always from the first. Raises DataError where there is no example.
    """
    examples = make_examples(pack, ctx)
    # what one example leaves in memory is there for the next, so order matters and nothing can be skipped
    size = 1 if ctx.policy.carries else pack.batch_size
    answers = [] if ctx.policy.carries else read_draft(draft, about, size, len(examples))
    if answers:
        say(f"resuming after {len(answers)} of {len(examples)} examples: {draft}")
    else:
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(_line(about), encoding="utf-8")
    session = None
    show(len(answers), len(examples))
    for first in range(len(answers), len(examples), size):
        batch = examples[first : first + size]
        if session is not None and ctx.policy.carries:
            session.reset_context()
        else:
            session = ctx.open_session(len(batch), reads_text=pack.reads_text)
        new = pack.answer(session, batch)
        assert len(new) == len(batch), f"{len(new)} answers to {len(batch)} examples"
        with draft.open("a", encoding="utf-8") as file:
            file.write("".join(map(_line, new)))
        answers += new
        show(len(answers), len(examples))
    report = pack.summarise(ctx, [record for answer in answers for record in answer])
    report.samples |= memory_metrics(answers)
    return report


def make_examples(pack: EvalPack, ctx: EvalContext) -> Sequence[Any]:
    """Return the examples of `pack`. Raises NestedLearningError where it cannot be evaluated, or there is none."""
    examples = pack.examples(ctx)
    if not len(examples):
        raise DataError("there is no example: the data holds none; give more of it, or leave this pack out")
    return examples


def read_draft(draft: Path, about: dict[str, Any], size: int, num_examples: int) -> list[Answer]:
    """Return the answers in `draft`, whole batches of `size` only, or all `num_examples`.

    There are none where it is about another evaluation.
    """
    if not draft.exists():
        return []
    # a line that was cut off when the process was killed has no newline
    lines = [line for line in draft.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    if not lines or lines[0] != _line(about):
        return []
    # an example computed in a smaller batch could differ by rounding, so a resumed run keeps the same batches
    num_answers = len(lines) - 1
    kept = lines[: 1 + (num_answers if num_answers == num_examples else num_answers // size * size)]
    draft.write_text("".join(kept), encoding="utf-8")
    return [json.loads(line) for line in kept[1:]]


def memory_metrics(answers: Sequence[Answer]) -> dict[str, Samples]:
    """Return the means over examples of the keys `memory/...`, which the first record of each answer may have.

    An example with nothing to memorize has none, and does not count.
    """
    records = [answer[0] for answer in answers if answer]
    names = dict.fromkeys(name for record in records for name in record if name.startswith("memory/"))
    return {name: Samples.mean([record[name] for record in records if name in record], "neither") for name in names}


def _line(value: Any) -> str:
    return json.dumps(value) + "\n"
