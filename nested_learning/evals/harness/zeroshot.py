"""`evals=zeroshot`: questions of common sense and of the world, asked and judged by lm-evaluation-harness."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError
from nested_learning.evals.harness.harness import Asked, ask_tasks, judge, local_tasks, official_tasks
from nested_learning.evals.harness.lm import Encoder, answer
from nested_learning.evals.harness.local_tasks import find_files, read_tasks
from nested_learning.evals.harness.stratified import mean_of_means
from nested_learning.evals.protocol import EvalContext, Metric, Record, Report, Samples
from nested_learning.inference.session import Session

# the figure of each task that papers put into their tables; of others it is acc
REPORTED = {"hellaswag": "acc_norm", "arc_challenge": "acc_norm"}


class ZeroShot:
    """Asks the documents of `tasks`, `limit` of each at most, and reports the harness's figures.

    `folder`: where their files are; None: they are the harness's own. `tasks` None: all whose files are there.
    `average-<n>` is the mean of the accuracies of n tasks, of each the one that papers report.
    """

    reads_text = True

    def __init__(
        self, folder: Path | None, tasks: list[str] | None, batch_size: int, limit: int | None, max_length: int | None
    ) -> None:
        self.folder, self.names, self.limit = folder, tasks, limit
        self.batch_size, self.max_length = batch_size, max_length

    @cached_property
    def tasks(self) -> dict[str, Any]:
        """The tasks, by name."""
        if self.folder is None:
            return official_tasks(list(read_tasks("zeroshot")) if self.names is None else self.names)
        return local_tasks(find_files(self.folder, read_tasks("zeroshot"), self.names, "evals.zeroshot.path"))

    def examples(self, ctx: EvalContext) -> list[Asked]:
        """Return what the documents ask, in the tokens of the model. Raises ConfigError, DataError."""
        encoder = Encoder(tokenizer_of(ctx, "zeroshot"), self.max_length)
        return ask_tasks(self.tasks, self.limit, encoder)

    def answer(self, session: Session, examples: Sequence[Asked]) -> list[list[Record]]:
        """Answer each document."""
        rows: dict[int, Record] = {}
        for kind in dict.fromkeys(example.kind for example in examples):
            places = [place for place, example in enumerate(examples) if example.kind == kind]
            # what one example teaches may be there for the next: then there is one, and `session` itself learns
            here = session if len(places) == session.batch else session.fork(places)
            answers = answer(here, kind, [examples[place].asked for place in places], self.max_length)
            for place, (found, written) in zip(places, answers, strict=True):
                example = examples[place]
                rows[place] = {"task": example.task, "document": example.document, "answer": found} | written
        return [[rows[place]] for place in range(len(examples))]

    def summarise(self, ctx: EvalContext, rows: Sequence[Record]) -> Report:
        """Return the figures of each task, named such as `piqa/acc`, and the average."""
        judged = judge(self.tasks, {(row["task"], row["document"]): row["answer"] for row in rows}, self.limit)
        figures: dict[str, Samples | Metric] = {}
        values: dict[str, list[dict[str, Any]]] = {}
        for task, found in judged.items():
            number = len(next(iter(found.values()))[0])
            values[task] = [{} for _ in range(number)]
            for (metric, filtered), (items, figure) in found.items():
                name = metric if filtered == "none" else f"{metric},{filtered}"
                figures[f"{task}/{name}"] = figure
                for value, item in zip(values[task], items, strict=True):
                    value[name] = item
        accuracies = [each for task in judged if isinstance(each := figures.get(reported(task)), Samples)]
        if len(accuracies) > 1:
            chance = fmean(each.chance or 0.0 for each in accuracies)
            average = mean_of_means([each.numerators for each in accuracies], "higher", chance)
            figures[f"average-{len(accuracies)}"] = average
        told = {task: iter(each) for task, each in values.items()}
        return Report(figures=figures, rows=[row | next(told[row["task"]]) for row in rows])


def reported(task: str) -> str:
    """Return the name of the figure of a task that papers report."""
    return f"{task}/{REPORTED.get(task, 'acc')}"


def tokenizer_of(ctx: EvalContext, pack: str) -> Tokenizer:
    """Return the tokenizer of the model; raise ConfigError where it has none."""
    if ctx.tokenizer is None:
        raise ConfigError(
            f"evals={pack}: asks questions in words, and this model was trained on tokens that are no text "
            f"(data={ctx.data.name}); evaluate a checkpoint of data=text, or leave {pack} out"
        )
    return ctx.tokenizer
