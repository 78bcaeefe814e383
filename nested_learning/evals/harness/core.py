"""`evals=core`: DCLM's CORE, the mean over 22 tasks of accuracies centred on random guessing.

From a question to its accuracy: `core_prompts.to_request` makes the prompt, with worked examples before the question;
`requests.loglikelihood` scores each choice; `is_right` compares; `summarise` averages and centres.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

from nested_learning.errors import ConfigError, DataError
from nested_learning.evals.harness.core_prompts import KEYS, Rules, examples_for, in_order, to_request
from nested_learning.evals.harness.local_tasks import Task, choose_tasks, find_files, read_items, read_tasks
from nested_learning.evals.metrics import Metric, Samples, mean_of_means
from nested_learning.evals.protocol import EvalContext, Record, Report
from nested_learning.evals.requests import LoglikelihoodRequest, loglikelihood
from nested_learning.evals.variable_length import Score, encode_text
from nested_learning.inference.session import Session
from nested_learning.typed import check_at_least, check_one_of, convert_dataclass


class CoreQuestion(NamedTuple):
    """A question of a task. `gold` is the index of the right choice, None where the answer is a text."""

    task: str
    number: int
    request: LoglikelihoodRequest
    gold: int | None


@dataclass(frozen=True, kw_only=True)
class CoreTask:
    """The settings of a task, see `tasks/core.yaml`."""

    files: list[str]
    kind: str
    shots: int
    chance: float
    delimiter: str = " "


class Core:
    """Evaluates at most `limit` questions of each of `tasks`, whose files are in `folder`.

    `tasks` None: all of CORE; a path names a file of tasks. A choice is right when it has the lowest loss per token, a
    text when greedy decoding generates it. `CORE` is the mean of the centred accuracies of all 22 tasks, `CORE-<n>` of
    n of them. Source: DCLM, arXiv 2406.11794.
    """

    reads_text = True

    def __init__(self, folder: Path | None, tasks: list[str] | None, batch_size: int, limit: int | None) -> None:
        self.folder, self.names, self.batch_size, self.limit = folder, tasks, batch_size, limit

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """The tasks by name, those of one's own among them, with their settings."""
        return choose_tasks("core", self.names)

    def examples(self, ctx: EvalContext) -> list[CoreQuestion]:
        """Return the questions in the tokens of the model. Raises ConfigError or DataError for bad tasks or files."""
        encode = partial(encode_text, ctx.require_tokenizer("core"))
        questions = []
        files = find_files(self.folder, self.tasks, "evals.core.path", all_needed=self.names is not None)
        for name, path in files.items():
            rules = rules_of(name, self.tasks[name])
            items = in_order(read_items(name, path, list(KEYS[rules.kind])))
            if len(items) <= rules.shots:
                raise DataError(f"{path}: {len(items)} questions; {name} needs {rules.shots} examples and a question")
            for number, item in enumerate(items[: self.limit]):
                request = to_request(item, examples_for(items, number, rules.shots), rules, encode)
                gold = item["gold"] if "gold" in KEYS[rules.kind] else None
                questions.append(CoreQuestion(name, number, request, gold))
        return questions

    def answer(self, session: Session, examples: Sequence[CoreQuestion]) -> list[list[Record]]:
        """Score the choices of each question."""
        answers = loglikelihood(session, [example.request for example in examples])
        return [
            [
                {"task": example.task, "question": example.number, "correct": is_right(scores, example.gold)}
                | {"nats": [float(score.nats.mean()) for score in scores]}
                | written
            ]
            for example, (scores, written) in zip(examples, answers, strict=True)
        ]

    def summarise(self, ctx: EvalContext, records: Sequence[Record]) -> Report:
        """Return the accuracy of each task, plain and centred, and CORE."""
        samples: dict[str, Samples | Metric] = {}
        centered = []
        for name in dict.fromkeys(record["task"] for record in records):
            right = [float(record["correct"]) for record in records if record["task"] == name]
            chance = self.tasks[name]["chance"] / 100
            # 0 is random guessing, 1 is perfect
            values = [(each - chance) / (1 - chance) for each in right]
            samples[f"{name}/accuracy"] = Samples.mean(right, "higher", chance)
            samples[f"{name}/centered"] = Samples.mean(values, "higher", 0.0)
            # a task of one's own is none of CORE
            centered += [values] if name in read_tasks("core") else []
        if centered:
            name = "CORE" if len(centered) == len(read_tasks("core")) else f"CORE-{len(centered)}"
            samples[name] = mean_of_means(centered, "higher", 0.0)
        return Report(samples=samples, records=list(records))


def is_right(scores: Sequence[Score], gold: int | None) -> bool:
    """Say whether choice `gold` has the lowest loss per token; without `gold`, whether the text is greedy."""
    if gold is None:
        return scores[0].is_greedy
    means = [float(score.nats.mean()) for score in scores]
    return means.index(min(means)) == gold


def rules_of(name: str, task: Task) -> Rules:
    """Return the prompt rules of the task `name` with the settings `task`; raise ConfigError for others."""
    where = f"evals.core.tasks: {name}"
    known = {key: value for key, value in task.items() if key != "folder"}
    settings: CoreTask = convert_dataclass(known, CoreTask, where)
    check_one_of(f"{where}.kind", settings.kind, list(KEYS))
    check_at_least(f"{where}.shots", settings.shots, 0)
    if not 0 <= settings.chance < 100:
        raise ConfigError(f"{where}.chance={settings.chance}: must be at least 0 and below 100, in percent")
    return Rules(settings.kind, settings.shots, settings.delimiter)
