"""`evals=core`: the 22 tasks of DCLM, each centred on what who knows nothing gets."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nested_learning.errors import DataError
from nested_learning.evals.harness.core_prompts import KEYS, Rules, ask, examples_for, in_order
from nested_learning.evals.harness.lm import Encoder
from nested_learning.evals.harness.local_tasks import find_files, read_items, read_tasks
from nested_learning.evals.harness.stratified import mean_of_means
from nested_learning.evals.harness.zeroshot import tokenizer_of
from nested_learning.evals.protocol import EvalContext, Metric, Record, Report, Samples
from nested_learning.evals.questions import Question, weigh
from nested_learning.evals.variable_length import Score
from nested_learning.inference.session import Session


class CoreQuestion(NamedTuple):
    """A question of a task; `gold`: the number of the right choice, None where the answer is a text."""

    task: str
    number: int
    question: Question
    gold: int | None


class Core:
    """Asks `limit` questions of each of `tasks` at most; `folder`: where their files are. `tasks` None: all that are.

    A choice is right when a token of it costs the least, a text when greedy decoding draws it. `CORE` is the mean of
    the centred accuracies of all 22 tasks, `CORE-<n>` of n of them.
    """

    reads_text = True

    def __init__(self, folder: Path, tasks: list[str] | None, batch_size: int, limit: int | None) -> None:
        self.folder, self.names, self.batch_size, self.limit = folder, tasks, batch_size, limit

    def examples(self, ctx: EvalContext) -> list[CoreQuestion]:
        """Return the questions in the tokens of the model. Raises ConfigError, DataError."""
        encode = Encoder(tokenizer_of(ctx, "core")).tokens
        found = []
        for name, path in find_files(self.folder, read_tasks("core"), self.names, "evals.core.path").items():
            rules = rules_of(name)
            items = in_order(read_items(name, path, list(KEYS[rules.kind])))
            if len(items) <= rules.shots:
                raise DataError(f"{path}: {len(items)} questions; {name} shows {rules.shots} examples before another")
            for number, item in enumerate(items[: self.limit]):
                question = ask(item, examples_for(items, number, rules.shots), rules, encode)
                found.append(CoreQuestion(name, number, question, item["gold"] if "gold" in KEYS[rules.kind] else None))
        return found

    def answer(self, session: Session, examples: Sequence[CoreQuestion]) -> list[list[Record]]:
        """Answer each question."""
        answers = weigh(session, [example.question for example in examples])
        return [
            [
                {"task": example.task, "question": example.number, "correct": is_right(scores, example.gold)}
                | {"nats": [float(score.nats.mean()) for score in scores]}
                | written
            ]
            for example, (scores, written) in zip(examples, answers, strict=True)
        ]

    def summarise(self, ctx: EvalContext, rows: Sequence[Record]) -> Report:
        """Return the accuracy of each task, as it is and centred, and CORE."""
        figures: dict[str, Samples | Metric] = {}
        centered = []
        for name in dict.fromkeys(row["task"] for row in rows):
            right = [float(row["correct"]) for row in rows if row["task"] == name]
            chance = read_tasks("core")[name]["chance"] / 100
            centered.append([(each - chance) / (1 - chance) for each in right])
            figures[f"{name}/accuracy"] = Samples.mean(right, "higher", chance)
            figures[f"{name}/centered"] = Samples.mean(centered[-1], "higher", 0.0)
        name = "CORE" if len(centered) == len(read_tasks("core")) else f"CORE-{len(centered)}"
        figures[name] = mean_of_means(centered, "higher", 0.0)
        return Report(figures=figures, rows=list(rows))


def is_right(scores: Sequence[Score], gold: int | None) -> bool:
    """Say whether the answer is right: the choice whose token costs least is `gold`; the text is what is drawn."""
    if gold is None:
        return scores[0].is_greedy
    means = [float(score.nats.mean()) for score in scores]
    return means.index(min(means)) == gold


def rules_of(name: str) -> Rules:
    """Return how the task `name` is asked."""
    task = {"delimiter": " "} | read_tasks("core")[name]
    return Rules(task["kind"], task["shots"], task["delimiter"])
