"""Tasks of lm-evaluation-harness, from local files or its own data: made into examples, and scored by its evaluator."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from nested_learning.data.text.json_lines import Item
from nested_learning.errors import ConfigError, DataError
from nested_learning.evals.harness.lm import Encoder, template_lm
from nested_learning.evals.harness.local_tasks import Task, read_items
from nested_learning.evals.metrics import Metric, Samples
from nested_learning.typed import convert

# the task type of local files, unless the task says another
MULTIPLE_CHOICE = {"output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "gold"}
# keys of a task that lm-evaluation-harness does not know
OWN = ("files", "keys", "folder")
# groups of the jackknife, which gives the error of a metric that is not a mean
PARTS = 100

# an answer as JSON: scores of choices, the log-probability of a text, or a generated text
Answer = list[Any] | float | str


class HarnessExample(NamedTuple):
    """A document of a task: its request type `kind`, and its request in tokens."""

    task: str
    document: int
    kind: str
    request: Any


class Documents(list[Item]):
    """Documents in the form of a data set: a list with column names."""

    @property
    def features(self) -> dict[str, None]:
        """The columns; the harness does not read their types."""
        return dict.fromkeys(self[0])


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the output of the harness: a line per task, progress bars, hints for its own command line."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        logger.setLevel(before)


def local_tasks(tasks: Mapping[str, tuple[Task, Path]]) -> dict[str, Any]:
    """Return tasks of lm-evaluation-harness by name, made of their settings and files of questions.

    Raises ConfigError for settings that the harness refuses.
    """
    template_lm()
    from jinja2 import TemplateError
    from lm_eval.api.task import ConfigurableTask

    made = {}
    for name, (ours, path) in tasks.items():
        documents = Documents(read_items(name, path, convert(ours.get("keys"), list[str], f"{name}.keys")))
        config = {key: value for key, value in ours.items() if key not in OWN}
        config |= {
            "task": name,
            "test_split": "test",
            "custom_dataset": lambda documents=documents, **_: {"test": documents},
        }
        try:
            with quiet():
                made[name] = ConfigurableTask(config=config if "output_type" in ours else MULTIPLE_CHOICE | config)
        except (TypeError, ValueError, KeyError, AttributeError, IndexError, TemplateError) as error:
            raise ConfigError(
                f"evals.zeroshot.tasks: lm-evaluation-harness refuses {name} ({type(error).__name__}: {error}); "
                "compare it with nested_learning/evals/harness/tasks/zeroshot.yaml"
            ) from error
    return made


def official_tasks(names: Sequence[str]) -> dict[str, Any]:
    """Return the harness's own tasks, which download their data.

    Raises ConfigError for an unknown name, DataError where the data cannot be loaded.
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
            f"evals.zeroshot.official=true: the data of {', '.join(names)} cannot be loaded ({error}); go online, or "
            "use evals.zeroshot.path=<folder> and official=false"
        ) from error
    return tasks


def make_examples(tasks: Mapping[str, Any], limit: int | None, encoder: Encoder) -> list[HarnessExample]:
    """Return the examples of `tasks`, one per document, at most `limit` of each."""
    examples = []
    for name, task in tasks.items():
        with quiet():
            task.build_all_requests(limit=limit)
        documents: dict[int, list[Any]] = {}
        for request in task.instances:
            documents.setdefault(request.doc_id, []).append(request)
        examples += [to_example(name, number, requests, encoder) for number, requests in documents.items()]
    return examples


def to_example(task: str, document: int, requests: Sequence[Any], encoder: Encoder) -> HarnessExample:
    """Return the requests of one document in tokens."""
    kind = requests[0].request_type
    match kind:
        case "loglikelihood":
            request: Any = encoder.to_loglikelihood([request.args for request in requests])
        case "loglikelihood_rolling":
            request = encoder.tokens(requests[0].args[0])
        case _:
            request = encoder.to_generation(*requests[0].args)
    return HarnessExample(task, document, kind, request)


def score_tasks(
    tasks: Mapping[str, Any], answers: Mapping[tuple[str, int], Answer], limit: int | None
) -> dict[str, dict[tuple[str, str], tuple[list[Any], Metric | Samples]]]:
    """Let lm-evaluation-harness score `answers`, given by (task, document).

    Returns for each task, by (metric, filter), the value of every document and the metric.
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
                aggregate_metric(items, task.aggregation()[metric], is_better(task, metric), chance.get(metric)),
            )
            for metric, filtered in dict.fromkeys(
                (metric, row["filter"]) for row in values for metric in row["metrics"]
            )
            if (items := [row[metric] for row in values if row["filter"] == filtered])
        }
    return judged


def aggregate_metric(items: list[Any], aggregate: Any, better: str, chance: float | None) -> Metric | Samples:
    """Return the metric that `aggregate` computes from the values of all documents: a mean, or with a jackknife error.

    Source: the delete-a-group jackknife, J. Shao and D. Tu, The Jackknife and Bootstrap, 1995.
    """
    value = aggregate(items)
    if all(isinstance(item, int | float) for item in items) and math.isclose(fmean(items), value, abs_tol=1e-12):
        return Samples.mean(items, better, chance)
    parts = min(PARTS, len(items))
    if parts < 2:
        return Metric(value, None, len(items), better, chance)
    left = [aggregate([item for number, item in enumerate(items) if number % parts != part]) for part in range(parts)]
    center = fmean(left)
    stderr = math.sqrt((parts - 1) / parts * math.fsum((each - center) ** 2 for each in left))
    return Metric(value, stderr, len(items), better, chance)


def is_better(task: Any, metric: str) -> str:
    """Return which direction of a metric is better: lower or higher."""
    return "higher" if task.higher_is_better()[metric] else "lower"


def chance_of(task: Any) -> dict[str, float]:
    """Return the accuracy of random guessing over all documents, by metric; 0 where there is no choice to guess.

    Where all documents have the same choices, it is the accuracy of always giving the most frequent answer.
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
    """Return a model of the harness that replays `answers`."""
    from lm_eval.api.model import LM

    class Replay(LM):
        """Replays saved answers."""

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            return [tuple(self._kept(request)[request.idx]) for request in requests]

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            return [self._kept(request) for request in requests]

        def generate_until(self, requests: list[Any]) -> list[str]:
            return [self._kept(request) for request in requests]

        def _kept(self, request: Any) -> Any:
            return answers[request.task_name, request.doc_id]

    return Replay()
