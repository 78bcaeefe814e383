"""Tasks of lm-evaluation-harness: made of local files or its own, asked, and judged by its own evaluator."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from nested_learning.errors import ConfigError, DataError
from nested_learning.evals.harness.json_lines import Item
from nested_learning.evals.harness.lm import Encoder, template_lm
from nested_learning.evals.harness.local_tasks import read_items, read_tasks
from nested_learning.evals.protocol import Metric, Samples

# what a task on local files is unless it says its type
MULTIPLE_CHOICE = {"output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "gold"}
# keys of our own in a task
OWN = ("files", "keys")
# parts that are left out in turn for the error of a figure that is no mean
PARTS = 100

# an answer, kept as JSON: of choices, of a text, or what was written
Answer = list[Any] | float | str


class Asked(NamedTuple):
    """What a document of a task asks: `kind` is its request type, `asked` a Question, a text or a Prompt in tokens."""

    task: str
    document: int
    kind: str
    asked: Any


class Documents(list[Item]):
    """Documents as the harness takes a data set: a list that knows its columns."""

    @property
    def features(self) -> dict[str, None]:
        """The columns, whose types nobody asks for."""
        return dict.fromkeys(self[0])


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the harness from telling how it goes on: a line for each task, bars, hints for its own command line."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        logger.setLevel(before)


def local_tasks(files: Mapping[str, Path]) -> dict[str, Any]:
    """Return the tasks of lm-evaluation-harness that read `files`, by name."""
    template_lm()
    from lm_eval.api.task import ConfigurableTask

    made = {}
    for name, path in files.items():
        ours = read_tasks("zeroshot")[name]
        documents = Documents(read_items(name, path, ours["keys"]))
        config = {key: value for key, value in ours.items() if key not in OWN}
        config |= {
            "task": name,
            "test_split": "test",
            "custom_dataset": lambda documents=documents, **_: {"test": documents},
        }
        with quiet():
            made[name] = ConfigurableTask(config=config if "output_type" in ours else MULTIPLE_CHOICE | config)
    return made


def official_tasks(names: Sequence[str]) -> dict[str, Any]:
    """Return tasks of lm-evaluation-harness as they are; their data comes from where it says, mostly the internet.

    Raises ConfigError for a name that it does not know, DataError for data that cannot be had.
    """
    template_lm()
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise ConfigError(f"evals.zeroshot.tasks: lm-eval knows no task {unknown[0]}; `lm_eval ls tasks` lists them")
    try:
        tasks: dict[str, Any] = manager.load(list(names))["tasks"]
    except OSError as error:
        raise DataError(
            f"evals.zeroshot.official=true: the data of {', '.join(names)} cannot be had ({error}); go online, or give "
            "evals.zeroshot.path=<folder> and official=false"
        ) from error
    return tasks


def ask_tasks(tasks: Mapping[str, Any], limit: int | None, encoder: Encoder) -> list[Asked]:
    """Return what `tasks` ask, document by document, `limit` of each at most."""
    examples = []
    for name, task in tasks.items():
        with quiet():
            task.build_all_requests(limit=limit)
        documents: dict[int, list[Any]] = {}
        for request in task.instances:
            documents.setdefault(request.doc_id, []).append(request)
        examples += [encode(name, number, requests, encoder) for number, requests in documents.items()]
    return examples


def encode(task: str, document: int, requests: Sequence[Any], encoder: Encoder) -> Asked:
    """Return the requests of one document in tokens."""
    kind = requests[0].request_type
    match kind:
        case "loglikelihood":
            asked: Any = encoder.question([request.args for request in requests])
        case "loglikelihood_rolling":
            asked = encoder.tokens(requests[0].args[0])
        case _:
            asked = encoder.prompt(*requests[0].args)
    return Asked(task, document, kind, asked)


def judge(
    tasks: Mapping[str, Any], answers: Mapping[tuple[str, int], Answer], limit: int | None
) -> dict[str, dict[tuple[str, str], tuple[list[Any], Metric | Samples]]]:
    """Let lm-evaluation-harness judge `answers`, by (task, document).

    Returns, of each task, by (metric, filter), the value of every document and the figure.
    """
    from lm_eval.evaluator import evaluate

    with quiet():
        found = evaluate(replay(answers), {"tasks": dict(tasks)}, limit=limit, bootstrap_iters=0, log_samples=True)
    judged = {}
    for name, task in tasks.items():
        chance, values = chance_of(task), found["samples"][name]
        judged[name] = {
            (metric, filtered): (
                items,
                figure(items, task.aggregation()[metric], is_better(task, metric), chance.get(metric)),
            )
            for metric, filtered in dict.fromkeys(
                (metric, row["filter"]) for row in values for metric in row["metrics"]
            )
            if (items := [row[metric] for row in values if row["filter"] == filtered])
        }
    return judged


def figure(items: list[Any], aggregate: Any, better: str, chance: float | None) -> Metric | Samples:
    """Return the figure that `aggregate` makes of what each document got: a mean, or with a jackknifed error.

    Source: the delete-a-group jackknife, J. Shao and D. Tu, The Jackknife and Bootstrap, 1995.
    """
    value = aggregate(items)
    if all(isinstance(item, int | float) for item in items) and math.isclose(fmean(items), value, abs_tol=1e-12):
        return Samples.mean(items, better, chance)
    parts = min(PARTS, len(items))
    if parts < 2:
        return Metric(value, None, len(items), better, chance)
    left = [aggregate([item for place, item in enumerate(items) if place % parts != part]) for part in range(parts)]
    center = fmean(left)
    stderr = math.sqrt((parts - 1) / parts * math.fsum((each - center) ** 2 for each in left))
    return Metric(value, stderr, len(items), better, chance)


def is_better(task: Any, metric: str) -> str:
    """Return what is better of a metric: lower or higher."""
    return "higher" if task.higher_is_better()[metric] else "lower"


def chance_of(task: Any) -> dict[str, float]:
    """Return what who knows nothing gets, over all documents: one of the choices, or always the most frequent answer.

    The latter where all documents have the same choices. Where nothing is chosen, accuracy is 0.
    """
    if task.OUTPUT_TYPE != "multiple_choice":
        return {"acc": 0.0}
    documents = list(task.eval_docs)
    choices = [tuple(task.doc_to_choice(document)) for document in documents]
    chance = fmean(1 / len(each) for each in choices)
    if len(set(choices)) == 1:
        golds = [str(task.doc_to_target(document)) for document in documents]
        chance = max(golds.count(gold) for gold in set(golds)) / len(golds)
    return {"acc": chance, "acc_norm": chance}


def replay(answers: Mapping[tuple[str, int], Answer]) -> Any:
    """Return a model of the harness that gives `answers` again."""
    from lm_eval.api.model import LM

    class Replay(LM):
        """Answers what was answered before."""

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            return [tuple(self._kept(request)[request.idx]) for request in requests]

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            return [self._kept(request) for request in requests]

        def generate_until(self, requests: list[Any]) -> list[str]:
            return [self._kept(request) for request in requests]

        def _kept(self, request: Any) -> Any:
            return answers[request.task_name, request.doc_id]

    return Replay()
