"""Going from example to example: every answer is kept at once, and an evaluation that was interrupted goes on."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nested_learning.errors import DataError
from nested_learning.evals.protocol import EvalContext, EvalPack, Record, Report, Samples

# the answer to one example
Answer = list[Record]


def ask(
    pack: EvalPack, ctx: EvalContext, draft: Path, about: dict[str, Any], say: Callable[[str], None] = print
) -> Report:
    """Ask `ctx` all examples of `pack` and report.

    Answers are added to the file `draft` as they come; where it holds answers to the same question, which is what
    `about` says, they are not asked again. Under a policy that carries what is memorised, examples are asked one after
    the other from the first on. Raises DataError when there is no example.
    """
    examples = pack.examples(ctx)
    if not len(examples):
        raise DataError("no example to ask: the data holds none; give more of it, or leave this pack out")
    size = 1 if ctx.policy.carries else pack.batch_size
    done = [] if ctx.policy.carries else read_draft(draft, about, size)
    if done:
        say(f"going on after {len(done)} of {len(examples)} examples: {draft}")
    else:
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(_line(about), encoding="utf-8")
    session = None
    for first in range(len(done), len(examples), size):
        here = examples[first : first + size]
        if session is not None and ctx.policy.carries:
            session.reset_context()
        else:
            session = ctx.open_session(len(here), reads_text=pack.reads_text)
        answers = pack.answer(session, here)
        assert len(answers) == len(here), f"{len(answers)} answers to {len(here)} examples"
        with draft.open("a", encoding="utf-8") as file:
            file.write("".join(map(_line, answers)))
        done += answers
    rows = [row for answer in done for row in answer]
    report = pack.summarise(ctx, rows)
    report.figures |= memory_figures(done)
    return report


def read_draft(draft: Path, about: dict[str, Any], size: int) -> list[Answer]:
    """Return the answers in `draft`, whole batches of `size` only; none where it is about something else."""
    if not draft.exists():
        return []
    # a line that was cut off by a kill has no end
    lines = [line for line in draft.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    if not lines or lines[0] != _line(about):
        return []
    kept = lines[: 1 + (len(lines) - 1) // size * size]
    draft.write_text("".join(kept), encoding="utf-8")
    return [json.loads(line) for line in kept[1:]]


def memory_figures(answers: Sequence[Answer]) -> dict[str, Samples]:
    """Return the means over examples of what study wrote, `memory/...`, where rows say it."""
    rows = [answer[0] for answer in answers if answer]
    names = [name for name in (rows[0] if rows else ()) if name.startswith("memory/")]
    return {name: Samples.mean([row[name] for row in rows], "neither") for name in names}


def _line(value: Any) -> str:
    return json.dumps(value) + "\n"
