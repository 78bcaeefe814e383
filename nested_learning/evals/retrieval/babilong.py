"""`evals=babilong`: answer questions about bAbI stories whose facts are spread over a long text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple, overload

import numpy as np
import torch

from nested_learning.data.tasks.babi import Story
from nested_learning.data.tasks.babilong import StoryWriter
from nested_learning.errors import ConfigError, DataError
from nested_learning.evals.memory_check import require_memory
from nested_learning.evals.metrics import Samples
from nested_learning.evals.protocol import EvalContext, Grid, Record, Report
from nested_learning.evals.retrieval.answering import generate_greedily, likeliest_candidate, read_prompts
from nested_learning.evals.variable_length import Text, read_each
from nested_learning.inference.session import Session
from nested_learning.seeds import derive_seed


class StoryQuestion(NamedTuple):
    """A story in a long text (`context`), a question about it, and the candidate answers; `target` is the right one."""

    number: int
    task: str
    length: int
    context: Text
    question: Text
    candidates: list[str]
    target: str


class StoryQuestions(Sequence[StoryQuestion]):
    """The questions of all lengths and tasks. Each text is made when it is indexed, the same every time.

    `cells`: the task, the length (0: the facts alone) and the story of each. `reserve`: tokens of the length that are
    kept for the answer.
    """

    def __init__(
        self, writer: StoryWriter, cells: Sequence[tuple[str, int, Story]], answers: Mapping[str, list[str]],
        seed: int, reserve: int,
    ) -> None:  # fmt: skip
        self.writer, self.cells, self.answers, self.seed, self.reserve = writer, cells, answers, seed, reserve

    def __len__(self) -> int:
        return len(self.cells)

    @overload
    def __getitem__(self, index: int) -> StoryQuestion: ...
    @overload
    def __getitem__(self, index: slice) -> list[StoryQuestion]: ...
    def __getitem__(self, index: int | slice) -> StoryQuestion | list[StoryQuestion]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        task, length, story = self.cells[index]
        rng = np.random.default_rng(derive_seed(self.seed, "babilong", index))
        # one token less: the session begins with the `end` token
        context, question = self.writer.write(story, rng, length - 1 - self.reserve if length else None)
        texts = torch.from_numpy(context), torch.from_numpy(question)
        return StoryQuestion(index, task, length, *texts, self.answers[task], story.target)


class BabilongPack:
    """Spreads `stories`, given by task, over texts of all `lengths` (0: the facts alone), `per_cell` questions each.

    Metrics by task, by length, and as heat maps: `accuracy`, the right answer is the likeliest of all answers of the
    task, where chance is always giving the most frequent one; `exact`, the answer is in the first sentence of the
    generated continuation of at most `num_generated` tokens. `accuracy_no_context` is the accuracy on the question
    alone. Under memory=memorize the text is memorized, and the question begins a new document. `books` are the text
    between the facts; without books it is noise. Source: BABILong, arXiv 2406.10149.
    """

    reads_text = True

    def __init__(
        self,
        stories: Mapping[str, Sequence[Story]],
        books: Sequence[str],
        lengths: Sequence[int],
        per_cell: int,
        num_generated: int,
        batch_size: int,
    ) -> None:
        self.stories, self.books, self.lengths = stories, books, sorted(lengths)
        self.per_cell, self.num_generated, self.batch_size = per_cell, num_generated, batch_size

    def examples(self, ctx: EvalContext) -> StoryQuestions:
        """Return the questions; every length has the same stories of a task, as far as they fit.

        Raises ConfigError for a model that reads no text or a text that does not fit into memory, DataError for a
        length that is too short for all stories of a task.
        """
        if ctx.tokenizer is None:
            raise ConfigError(
                f"evals=babilong: a model of data={ctx.data.name} reads no text; use one that was trained with "
                "data=babilong, or on text"
            )
        require_memory(ctx.model, max(self.lengths), self.batch_size, "evals.babilong.lengths")
        writer = StoryWriter(ctx.tokenizer, self.books)
        cells = []
        for length in self.lengths:
            for task, stories in self.stories.items():
                order = np.random.default_rng(derive_seed(ctx.seed, "babilong", task)).permutation(len(stories))
                limit = length - 1 - self.num_generated
                fitting = (stories[n] for n in order if not length or writer.min_length(stories[n]) <= limit)
                chosen = list(islice(fitting, self.per_cell))
                if not chosen:
                    raise DataError(f"evals.babilong.lengths: no story of {task} fits into {length} tokens; use more")
                cells += [(task, length, story) for story in chosen]
        answers = {task: sorted({story.target for story in stories}) for task, stories in self.stories.items()}
        return StoryQuestions(writer, cells, answers, ctx.seed, self.num_generated)

    def answer(self, session: Session, examples: Sequence[StoryQuestion]) -> list[list[Record]]:
        """Return a record of each example: the `chosen` answer, whether it is `right`, whether it was generated."""
        questions = [each.question for each in examples]
        readers, rows = read_prompts(session, [each.context for each in examples], questions)
        if not session.memorizes:
            for row, reader, each in zip(rows, read_each(session, questions), examples, strict=True):
                row["right_no_context"] = int(_chosen(reader, each) == each.target)
        return [
            [self._answer_one(reader, each) | row] for reader, each, row in zip(readers, examples, rows, strict=True)
        ]

    def summarise(self, ctx: EvalContext, records: Sequence[Record]) -> Report:
        """Return the metrics, the curves over the length, and the heat maps."""
        report = Report(samples={}, records=list(records), axis="tokens")
        values: dict[str, dict[str, list[float | None]]] = {"accuracy": {}, "exact": {}}
        for task in self.stories:
            here = [record for record in records if record["task"] == task]
            most = max(Counter(record["target"] for record in here).values()) / len(here)
            parts = {f"/{length}": [record for record in here if record["length"] == length] for length in self.lengths}
            for name, key, chance in (("accuracy", "right", most), ("exact", "found", 0.0)):
                metrics = {
                    f"{task}/{name}{part}": Samples.mean([record[key] for record in inside], "higher", chance)
                    for part, inside in ({"": here} | parts).items()
                }
                report.samples |= metrics
                points = [metrics[f"{task}/{name}/{length}"].metric() for length in self.lengths]
                values[name][task] = [point.value for point in points]
                report.curves.setdefault(name, {})[task] = [
                    (float(max(length, 1)), point.value, point.stderr)
                    for length, point in zip(self.lengths, points, strict=True)
                ]
            if "right_no_context" in here[0]:
                alone = [record["right_no_context"] for record in here]
                report.samples[f"{task}/accuracy_no_context"] = Samples.mean(alone, "higher", most)
        for name, found in values.items():
            report.grids[name] = Grid("task", list(found), "tokens", self.lengths, list(found.values()))
        return report

    def _answer_one(self, reader: Session, example: StoryQuestion) -> Record:
        """Answer one question, whose text `reader` has read."""
        text = generate_greedily(reader, self.num_generated).lower()
        chosen = _chosen(reader, example)
        return {
            "example": example.number,
            "task": example.task,
            "length": example.length,
            "target": example.target,
            "chosen": chosen,
            "right": int(chosen == example.target),
            "found": int(example.target.lower() in text.split(".")[0]),
            "text": text,
        }


def _chosen(reader: Session, example: StoryQuestion) -> str:
    return example.candidates[likeliest_candidate(reader, example.candidates, 0)[0]]
