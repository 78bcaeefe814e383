"""`evals=validation`: the validation metrics of training, row by row, so that each has a standard error."""

from collections.abc import Sequence

from nested_learning.evals.metrics import Samples
from nested_learning.evals.protocol import EvalContext, Record, Report
from nested_learning.evals.reading import RowToRead, ValidationRows, loss_metrics, read_rows
from nested_learning.inference.session import Session


class ValidationPack:
    """Reads the validation rows that training reads and reports loss, bits per byte and accuracy.

    For data without text also `sequence_accuracy`, the fraction of rows without a mistake. `resets`: whether every
    document of a row is read from an empty state.
    """

    reads_text = False

    def __init__(self, batch_size: int, *, resets: bool) -> None:
        self.batch_size, self.resets = batch_size, resets

    def examples(self, ctx: EvalContext) -> ValidationRows:
        """Return `data.val_rows` rows."""
        return ValidationRows(ctx.open_source(), ctx.data.val_rows)

    def answer(self, session: Session, examples: Sequence[RowToRead]) -> list[list[Record]]:
        """Return the sums over each row."""
        readings, written = read_rows(session, examples, resets=self.resets)
        length = len(examples[0].row.tokens)
        return [
            [{"row": example.number} | reading.sums(0, length) | each]
            for example, reading, each in zip(examples, readings, written, strict=True)
        ]

    def summarise(self, ctx: EvalContext, records: Sequence[Record]) -> Report:
        """Return the metrics that fit the data."""
        found = loss_metrics(records)
        if ctx.tokenizer is None:
            flawless = [float(record["correct"] == record["targets"] > 0) for record in records]
            has_target = [float(record["targets"] > 0) for record in records]
            found["sequence_accuracy"] = Samples(flawless, has_target, "higher")
        return Report(samples=dict(found), records=list(records))
