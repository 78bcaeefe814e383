"""`evals=formal`: accuracy on words of the trained formal language, at trained lengths and beyond."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nested_learning.data.batch import IGNORE
from nested_learning.data.tasks.formal import FormalConfig
from nested_learning.evals.config import require_data
from nested_learning.evals.metrics import Metric, Samples
from nested_learning.evals.protocol import EvalContext, Record, Report
from nested_learning.evals.synthetic.cases import Case, answer_along, by_version, draw_cases, marks, stack
from nested_learning.inference.session import Session

# curves group words by length, rounded up to a multiple of this
STEP = 10


class Bin(NamedTuple):
    """The lengths of the shortest and the longest words of a bin."""

    shortest: int
    longest: int

    def __str__(self) -> str:
        return f"{self.shortest}-{self.longest}"


class Formal:
    """Evaluates `num_rows` words of each bin; `bins` None: the trained lengths, and up to twice the longest.

    Metrics: `sequence_accuracy/<bin>`, the fraction of words without a mistake, and `accuracy/<bin>` over positions.
    Chance is always predicting the most frequent target. Source: Bhattamishra et al., arXiv 2009.11264.
    """

    reads_text = False

    def __init__(self, bins: list[list[int]] | None, num_rows: int, batch_size: int) -> None:
        self.bins = None if bins is None else [Bin(*each) for each in bins]
        self.num_rows, self.batch_size = num_rows, batch_size

    def examples(self, ctx: EvalContext) -> list[Case]:
        """Return the words. Raises ConfigError for other data, and for bins without a word."""
        data = require_data(ctx.data, FormalConfig, "formal", "formal")
        bins = self.bins or [
            Bin(data.min_length, data.max_length),
            Bin(data.max_length + 1, 2 * data.max_length),
        ]
        return [case for each in bins for case in self._draw(ctx, each)]

    def _draw(self, ctx: EvalContext, bounds: Bin) -> list[Case]:
        sizes = {"min_length": bounds.shortest, "max_length": bounds.longest}
        return draw_cases(ctx, {"bin": str(bounds)}, self.num_rows, **sizes)

    def answer(self, session: Session, examples: Sequence[Case]) -> list[list[Record]]:
        """Return for each word at which letters the target was predicted."""
        return [[row] for row in by_version(session, examples, answer_words)]

    def summarise(self, ctx: EvalContext, records: Sequence[Record]) -> Report:
        """Return the metrics of every bin."""
        chances = chances_of(self.examples(ctx))
        metrics: dict[str, Samples | Metric] = {}
        for name, (of_words, of_letters) in chances.items():
            marked = [record["correct"] for record in records if record["bin"] == name]
            flawless = [int(all(each)) for each in marked]
            metrics[f"sequence_accuracy/{name}"] = Samples.mean(flawless, "higher", of_words)
            right, letters = [sum(each) for each in marked], [len(each) for each in marked]
            metrics[f"accuracy/{name}"] = Samples(right, letters, "higher", of_letters)
        curves = {"words without a mistake": {"sequence_accuracy": by_length(records)}}
        return Report(samples=metrics, records=list(records), curves=curves, axis="letters")


def answer_words(session: Session, cases: list[Case]) -> list[Record]:
    """Return a record of each of `cases`, which are of one bin."""
    batch = stack([case.row for case in cases])
    answers, written = answer_along(session, batch.tokens)
    return [
        {"row": case.number} | case.about | {"correct": marks(answer, targets)} | each
        for case, answer, targets, each in zip(cases, answers, batch.targets, written, strict=True)
    ]


def chances_of(cases: Sequence[Case]) -> dict[str, tuple[float, float]]:
    """Return for each bin the accuracy over words and over letters of always predicting the most frequent target."""
    found = {}
    for name in dict.fromkeys(case.about["bin"] for case in cases):
        words = [case.row.targets[case.row.targets != IGNORE] for case in cases if case.about["bin"] == name]
        targets = np.concatenate(words)
        commonest = np.bincount(targets).argmax()
        flawless = float(np.mean([bool((word == commonest).all()) for word in words]))
        found[name] = flawless, float((targets == commonest).mean())
    return found


def by_length(records: Sequence[Record]) -> list[tuple[float, float, float | None]]:
    """Return the fraction of words without a mistake, by length."""
    words: dict[int, list[int]] = {}
    for record in records:
        words.setdefault(-(-len(record["correct"]) // STEP) * STEP, []).append(int(all(record["correct"])))
    metrics = {length: Samples.mean(words[length], "higher").metric() for length in sorted(words)}
    return [(float(length), metric.value, metric.stderr) for length, metric in metrics.items()]
