"""`evals=validation`: the figures of validation during training, row by row, so that each has an error bar."""

from collections.abc import Sequence

from nested_learning.evals.protocol import EvalContext, Record, Report, Samples
from nested_learning.evals.reading import RowToRead, ValidationRows, figures, read_rows
from nested_learning.inference.session import Session


class ValidationPack:
    """Reads the validation rows that training reads and reports loss, bits per byte and accuracy.

    For data that is no text also `sequence_accuracy`: the share of rows without a mistake. `resets`: whether every
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

    def summarise(self, ctx: EvalContext, rows: Sequence[Record]) -> Report:
        """Return loss, accuracy and what fits the data."""
        found = figures(rows)
        if ctx.tokenizer is None:
            flawless = [float(row["correct"] == row["targets"] > 0) for row in rows]
            asked = [float(row["targets"] > 0) for row in rows]
            found["sequence_accuracy"] = Samples(flawless, asked, "higher")
        return Report(figures=dict(found), rows=list(rows))
