"""`evals=core`: DCLM's CORE, the mean over 22 tasks of accuracies centred on random guessing.

From a question to its accuracy: `core_prompts.to_request` makes the prompt, with worked examples before the question;
`requests.loglikelihood` scores each choice; `is_right` compares; `summarise` averages and centres.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nested_learning.errors import DataError
from nested_learning.evals.harness.core_prompts import KEYS, Rules, examples_for, in_order, to_request
from nested_learning.evals.harness.local_tasks import find_files, read_items, read_tasks
from nested_learning.evals.metrics import Metric, Samples, mean_of_means
from nested_learning.evals.protocol import EvalContext, Record, Report
from nested_learning.evals.requests import LoglikelihoodRequest, loglikelihood
from nested_learning.evals.variable_length import Score, encode_text
from nested_learning.inference.session import Session


class CoreQuestion(NamedTuple):
    """A question of a task. `gold` is the index of the right choice, None where the answer is a text."""

    task: str
    number: int
    request: LoglikelihoodRequest
    gold: int | None


class Core:
    """Evaluates at most `limit` questions of each of `tasks` (None: all), whose files are in `folder`.

    A choice is right when it has the lowest loss per token, a text when greedy decoding generates it. `CORE` is the
    mean of the centred accuracies of all 22 tasks, `CORE-<n>` of n of them. Source: DCLM, arXiv 2406.11794.
    """

    reads_text = True

    def __init__(self, folder: Path, tasks: list[str] | None, batch_size: int, limit: int | None) -> None:
        self.folder, self.names, self.batch_size, self.limit = folder, tasks, batch_size, limit

    def examples(self, ctx: EvalContext) -> list[CoreQuestion]:
        """Return the questions in the tokens of the model. Raises ConfigError or DataError for bad tasks or files."""
        encode = partial(encode_text, ctx.require_tokenizer("core"))
        questions = []
        for name, path in find_files(self.folder, read_tasks("core"), self.names, "evals.core.path").items():
            rules = rules_of(name)
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
            chance = read_tasks("core")[name]["chance"] / 100
            # 0 is random guessing, 1 is perfect
            centered.append([(each - chance) / (1 - chance) for each in right])
            samples[f"{name}/accuracy"] = Samples.mean(right, "higher", chance)
            samples[f"{name}/centered"] = Samples.mean(centered[-1], "higher", 0.0)
        name = "CORE" if len(centered) == len(read_tasks("core")) else f"CORE-{len(centered)}"
        samples[name] = mean_of_means(centered, "higher", 0.0)
        return Report(samples=samples, records=list(records))


def is_right(scores: Sequence[Score], gold: int | None) -> bool:
    """Say whether choice `gold` has the lowest loss per token; without `gold`, whether the text is greedy."""
    if gold is None:
        return scores[0].is_greedy
    means = [float(score.nats.mean()) for score in scores]
    return means.index(min(means)) == gold


def rules_of(name: str) -> Rules:
    """Return the prompt rules of the task `name`."""
    task = {"delimiter": " "} | read_tasks("core")[name]
    return Rules(task["kind"], task["shots"], task["delimiter"])
