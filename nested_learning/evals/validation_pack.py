"""`evals=validation`: the figures of validation during training, row by row, so that each has an error bar."""

from nested_learning.evals.protocol import Report, Subject, ratio
from nested_learning.evals.reading import figures, read_validation


class ValidationPack:
    """Reads the validation rows that training reads and reports loss, bits per byte and accuracy.

    For data that is no text also `sequence_accuracy`: the share of rows without a mistake.
    """

    def run(self, subject: Subject) -> Report:
        """Ask `subject` about `data.val_rows` rows, `data.batch_size` at once."""
        source = subject.open_source()
        data = subject.data
        readings = read_validation(subject, source, data.val_rows, data.batch_size, resets=data.resets)
        rows = [{"row": row} | reading.sums(0, source.seq_len) for row, reading in enumerate(readings)]
        metrics = figures(rows)
        if source.tokenizer is None:
            flawless = [float(row["correct"] == row["targets"] > 0) for row in rows]
            asked = [float(row["targets"] > 0) for row in rows]
            metrics["sequence_accuracy"] = ratio(flawless, asked, "higher")
        return Report(metrics=metrics, rows=rows)
