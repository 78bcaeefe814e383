"""`evals=mad`: the trained task of Mechanistic Architecture Design (MAD) on test rows, also on longer ones."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from nested_learning.data.tasks.mad import MadConfig
from nested_learning.evals.config import require_data
from nested_learning.evals.metrics import Metric, Samples
from nested_learning.evals.protocol import EvalContext, Record, Report
from nested_learning.evals.synthetic.cases import Case, answer_along, by_version, draw_cases, marks, stack
from nested_learning.inference.session import Session
from nested_learning.shapes import Int, Tensor


class Mad:
    """Evaluates the trained task on `num_rows` test rows of each of `length_factors` times the trained length.

    Metrics: `accuracy/<length>` over targets, as in MAD (arXiv 2403.17844), and `sequence_accuracy/<length>`, the
    fraction of rows without a mistake. Compression has one output per position, so its rows have one length.
    """

    reads_text = False

    def __init__(self, length_factors: list[int], num_rows: int, batch_size: int) -> None:
        self.length_factors, self.num_rows, self.batch_size = length_factors, num_rows, batch_size

    def examples(self, ctx: EvalContext) -> list[Case]:
        """Return the rows. Raises ConfigError for other data."""
        data = require_data(ctx.data, MadConfig, "mad", "mad")
        factors = [1] if data.task == "compression" else self.length_factors
        lengths = [data.sizes.length * factor for factor in factors]
        return [
            case
            for length in lengths
            for case in draw_cases(ctx, {"task": data.task, "length": length}, self.num_rows, length=length)
        ]

    def answer(self, session: Session, examples: Sequence[Case]) -> list[list[Record]]:
        """Return for each row which of its targets were predicted."""
        return [[row] for row in by_version(session, examples, answer_mad)]

    def summarise(self, ctx: EvalContext, records: Sequence[Record]) -> Report:
        """Return the metrics of every length."""
        assert isinstance(ctx.data, MadConfig)
        metrics: dict[str, Samples | Metric] = {}
        points = []
        for length in dict.fromkeys(record["length"] for record in records):
            marked = [record["correct"] for record in records if record["length"] == length]
            chance = replace(ctx.data, length=length).chance
            accuracy = Samples([sum(each) for each in marked], [len(each) for each in marked], "higher", chance)
            metrics[f"accuracy/{length}"] = accuracy
            metrics[f"sequence_accuracy/{length}"] = Samples.mean([int(all(each)) for each in marked], "higher")
            points.append((float(length), accuracy.metric().value, accuracy.metric().stderr))
        curves = {"accuracy": {ctx.data.task: points}}
        return Report(samples=metrics, records=list(records), curves=curves, axis="tokens of a row")


def answer_mad(session: Session, cases: list[Case]) -> list[Record]:
    """Return a record of each of `cases`, which are of one version."""
    batch = stack([case.row for case in cases])
    answers, written = answer_along(session, batch.tokens)
    if cases[0].about["task"] == "compression":
        answers = reconstruct(session, batch.tokens.shape[1])
    return [
        {"row": case.number} | case.about | {"correct": marks(answer, targets)} | each
        for case, answer, targets, each in zip(cases, answers, batch.targets, written, strict=True)
    ]


def reconstruct(session: Session, length: int) -> Int[Tensor, "b t"]:
    """Return the token predicted for every position, encoded with its position as in objective/reconstruct.py."""
    logits = session.feed(torch.empty(session.batch, 0, dtype=torch.int64)).cpu().view(session.batch, length, -1)
    return logits.argmax(-1) + torch.arange(length) * logits.shape[-1]
