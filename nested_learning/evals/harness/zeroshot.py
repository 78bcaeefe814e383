"""`evals=zeroshot`: standard benchmarks of common sense and knowledge, scored by lm-evaluation-harness."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from nested_learning.evals.harness.harness import (
    HarnessExample,
    local_tasks,
    make_examples,
    official_tasks,
    score_tasks,
)
from nested_learning.evals.harness.lm import Encoder, answer
from nested_learning.evals.harness.local_tasks import choose_tasks, find_files, read_tasks
from nested_learning.evals.metrics import Metric, Samples, mean_of_means
from nested_learning.evals.protocol import EvalContext, Record, Report
from nested_learning.inference.session import Session

# the metric that papers report; acc for all other tasks
REPORTED = {"hellaswag": "acc_norm", "arc_challenge": "acc_norm"}


class ZeroShot:
    """Evaluates at most `limit` documents of each of `tasks`, and reports the harness's metrics.

    `folder` holds the files of the tasks; with `is_official` the harness downloads its own data. `tasks` None: all
    whose files are in `folder`; a path names a file of tasks. `average-<n>` is the mean over n tasks of the accuracy
    that papers report.
    """

    reads_text = True

    def __init__(
        self, folder: Path | None, tasks: list[str] | None, batch_size: int, limit: int | None,
        max_length: int | None, *, is_official: bool = False,
    ) -> None:  # fmt: skip
        self.folder, self.names, self.limit, self.is_official = folder, tasks, limit, is_official
        self.batch_size, self.max_length = batch_size, max_length

    @cached_property
    def tasks(self) -> dict[str, Any]:
        """The tasks, by name."""
        if self.is_official:
            return official_tasks(list(read_tasks("zeroshot")) if self.names is None else self.names)
        tasks = choose_tasks("zeroshot", self.names)
        files = find_files(self.folder, tasks, "evals.zeroshot.path", all_needed=self.names is not None)
        return local_tasks({name: (tasks[name], path) for name, path in files.items()})

    def examples(self, ctx: EvalContext) -> list[HarnessExample]:
        """Return the documents in the tokens of the model. Raises ConfigError or DataError for bad tasks or files."""
        encoder = Encoder(ctx.require_tokenizer("zeroshot"), self.max_length)
        return make_examples(self.tasks, self.limit, encoder)

    def answer(self, session: Session, examples: Sequence[HarnessExample]) -> list[list[Record]]:
        """Answer the request of each document."""
        records: dict[int, Record] = {}
        for kind in dict.fromkeys(example.kind for example in examples):
            rows = [row for row, example in enumerate(examples) if example.kind == kind]
            # under memory.reset=carry there is one example, and `session` itself must memorize, not a fork of it
            group = session if len(rows) == session.batch else session.fork(rows)
            answers = answer(group, kind, [examples[row].request for row in rows], self.max_length)
            for row, (answered, written) in zip(rows, answers, strict=True):
                example = examples[row]
                records[row] = {"task": example.task, "document": example.document, "answer": answered} | written
        return [[records[row]] for row in range(len(examples))]

    def summarise(self, ctx: EvalContext, records: Sequence[Record]) -> Report:
        """Return the metrics of each task, with names such as `piqa/acc`, and the average."""
        answers = {(record["task"], record["document"]): record["answer"] for record in records}
        judged = score_tasks(self.tasks, answers, self.limit)
        metrics: dict[str, Samples | Metric] = {}
        values: dict[str, list[dict[str, Any]]] = {}
        for task, results in judged.items():
            number = len(next(iter(results.values()))[0])
            values[task] = [{} for _ in range(number)]
            for (metric, filtered), (items, samples) in results.items():
                name = metric if filtered == "none" else f"{metric},{filtered}"
                metrics[f"{task}/{name}"] = samples
                for value, item in zip(values[task], items, strict=True):
                    value[name] = item
        accuracies = [each for task in judged if isinstance(each := metrics.get(reported(task)), Samples)]
        if len(accuracies) > 1:
            chance = fmean(each.chance or 0.0 for each in accuracies)
            average = mean_of_means([each.numerators for each in accuracies], "higher", chance)
            metrics[f"average-{len(accuracies)}"] = average
        by_document = {task: iter(each) for task, each in values.items()}
        return Report(samples=metrics, records=[record | next(by_document[record["task"]]) for record in records])


def reported(task: str) -> str:
    """Return the name of the metric of a task that papers report."""
    return f"{task}/{REPORTED.get(task, 'acc')}"
