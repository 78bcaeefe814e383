"""`evals=niah` and `evals=passkey`: retrieve what is hidden in a long context."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, overload

import numpy as np
import torch

from nested_learning.data.tasks.needle_tasks import ALL_TASKS
from nested_learning.data.tasks.needles import with_digits
from nested_learning.data.tasks.prompts import DISTRACTORS, Prompt, Prompts
from nested_learning.errors import ConfigError, DataError
from nested_learning.evals.memory_check import require_memory
from nested_learning.evals.metrics import Samples
from nested_learning.evals.protocol import EvalContext, Grid, Record, Report
from nested_learning.evals.retrieval.answering import generate_greedily, likeliest_candidate, read_prompts
from nested_learning.evals.variable_length import read_each
from nested_learning.inference.session import Session
from nested_learning.seeds import derive_seed


class Cell(NamedTuple):
    """A cell of the grid: the task, the length in tokens with those of the answer, the needle's depth in percent."""

    task: str
    length: int
    depth: int


class Size(NamedTuple):
    """The size of the grid: all `lengths` and `depths` (percent), with `per_cell` prompts each.

    `num_generated` tokens of each length are for the answer.
    """

    lengths: Sequence[int]
    depths: Sequence[int]
    per_cell: int
    num_generated: int


class Example(NamedTuple):
    """A prompt, its number among the examples, and its cell."""

    number: int
    cell: Cell
    prompt: Prompt


class Haystacks(Sequence[Example]):
    """The prompts of all cells, short ones first. Each is made when it is indexed, the same every time."""

    def __init__(self, prompts: Mapping[str, Prompts], size: Size, seed: int) -> None:
        self.prompts, self.size, self.seed = prompts, size, seed
        self.cells = [
            Cell(task, length, depth) for length in sorted(size.lengths) for task in prompts for depth in size.depths
        ]

    def __len__(self) -> int:
        return len(self.cells) * self.size.per_cell

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> "Example | list[Example]":
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        cell = self.cells[index // self.size.per_cell]
        rng = np.random.default_rng(derive_seed(self.seed, "niah", *cell, index % self.size.per_cell))
        # one token less: the session begins with the `end` token
        prompt = self.prompts[cell.task].make(rng, cell.length - 1, cell.depth / 100, self.size.num_generated)
        return Example(index, cell, prompt)

    def require_length(self, option: str) -> None:
        """Raise DataError where the shortest prompts are too short; `option` names the pack in the message."""
        shortest = min(self.size.lengths)
        for task in self.prompts:
            try:
                self[self.cells.index(Cell(task, shortest, self.size.depths[0])) * self.size.per_cell]
            except DataError as error:
                raise DataError(
                    f"{option}.lengths: {shortest} tokens for {task}, {self.size.num_generated} of them for the answer "
                    f"({option}.num_generated): {error}"
                ) from error


class NiahPack:
    """Reads prompts of needle `tasks`, with numbers of `digits` digits, and queries the hidden value.

    Metrics, overall, by length, by length and depth, and as heat maps: `accuracy`, the value is the likeliest of nine
    candidates; `exact`, the fraction of values in the greedy continuation of at most `num_generated` tokens (RULER's
    string_match_all); `logprob`, nats per token of the value. `accuracy_no_context` is the accuracy on the question
    alone. Under memory=memorize the context is memorized, and the question begins a new document. `books` are the texts
    of an essay haystack. Source: RULER, arXiv 2404.06654; scoring candidates is ours.
    """

    reads_text = True

    def __init__(
        self, name: str, tasks: Sequence[str], size: Size, digits: int, batch_size: int, books: Sequence[str]
    ) -> None:
        self.name, self.size, self.batch_size, self.books = name, size, batch_size, books
        self.tasks = {task: with_digits(ALL_TASKS[task], digits) for task in tasks}

    def examples(self, ctx: EvalContext) -> Haystacks:
        """Return the prompts.

        Raises ConfigError for a model that reads no text or a context that does not fit into memory, DataError for a
        length that is too short for a task.
        """
        tokenizer = ctx.tokenizer
        if tokenizer is None:
            raise ConfigError(
                f"evals={self.name}: a model of data={ctx.data.name} reads no text; use one that was trained with "
                "data=needles, as experiment=niah does, or on text"
            )
        require_memory(ctx.model, max(self.size.lengths), self.batch_size, f"evals.{self.name}.lengths")
        prompts = {name: Prompts(task, tokenizer, self.books) for name, task in self.tasks.items()}
        found = Haystacks(prompts, self.size, ctx.seed)
        found.require_length(f"evals.{self.name}")
        return found

    def answer(self, session: Session, examples: Sequence[Example]) -> list[list[Record]]:
        """Return a record of each example.

        It holds the `chosen` candidate, whether it is `right`, the `logprob` of the value, the generated `text`, and
        the fraction of values `found` in it.
        """
        prompts = [each.prompt for each in examples]
        readers, rows = read_prompts(
            session,
            [torch.from_numpy(each.context) for each in prompts],
            [torch.from_numpy(each.question) for each in prompts],
        )
        if not session.memorizes:
            alone = read_each(session, [torch.from_numpy(each.question) for each in prompts])
            for row, reader, each in zip(rows, alone, prompts, strict=True):
                row["right_no_context"] = int(likeliest_candidate(reader, each.candidates, each.right)[0] == each.right)
        return [
            [self._answer_one(reader, each) | row] for reader, each, row in zip(readers, examples, rows, strict=True)
        ]

    def summarise(self, ctx: EvalContext, records: Sequence[Record]) -> Report:
        """Return the metrics, the curves over the length, and the heat maps."""
        report = Report(samples={}, records=list(records), axis="tokens")
        for task in self.tasks:
            here = [record for record in records if record["task"] == task]
            self._summarise(report, here, "" if self.name == task else f"{task}/")
        return report

    def _summarise(self, report: Report, records: Sequence[Record], prefix: str) -> None:
        chance = 1 / (1 + DISTRACTORS)
        if "right_no_context" in records[0]:
            alone = [record["right_no_context"] for record in records]
            report.samples[f"{prefix}accuracy_no_context"] = Samples.mean(alone, "higher", chance)
        for name, key, least in (("accuracy", "right", chance), ("exact", "found", 0.0), ("logprob", "logprob", None)):
            metrics = {
                place: Samples.mean([record[key] for record in inside], "higher", least)
                for place, inside in self._parts(records).items()
            }
            report.samples |= {f"{prefix}{name}{place}": samples for place, samples in metrics.items()}
            report.grids[f"{prefix}{name}"] = Grid(
                "depth, %", self.size.depths, "tokens", self.size.lengths,
                [[metrics[f"/{x}/{y}"].metric().value for x in self.size.lengths] for y in self.size.depths],
            )  # fmt: skip
            report.curves[f"{prefix}{name}"] = {
                f"depth {y} %": [(float(x), *metrics[f"/{x}/{y}"].metric()[:2]) for x in self.size.lengths]
                for y in self.size.depths
            }

    def _parts(self, records: Sequence[Record]) -> dict[str, list[Record]]:
        """Return all records, those of each length and those of each cell, by the suffix of their metrics' names."""
        parts = {"": list(records)}
        parts |= {
            f"/{length}": [record for record in records if record["length"] == length] for length in self.size.lengths
        }
        for length in self.size.lengths:
            for depth in self.size.depths:
                parts[f"/{length}/{depth}"] = [record for record in parts[f"/{length}"] if record["depth"] == depth]
        return parts

    def _answer_one(self, reader: Session, example: Example) -> Record:
        """Answer one example, whose prompt `reader` has read."""
        prompt = example.prompt
        chosen, logprob = likeliest_candidate(reader, prompt.candidates, prompt.right)
        text = generate_greedily(reader.fork(), self.size.num_generated).lower()
        found = [value.lower() in text for value in prompt.values]
        return {
            "example": example.number,
            **example.cell._asdict(),
            "chosen": chosen,
            "gold": prompt.right,
            "right": int(chosen == prompt.right),
            "found": sum(found) / len(found),
            "logprob": logprob,
            "text": text,
        }
