"""`evals=by_position`: how the loss changes along the context, and beyond the length that was trained."""

from collections.abc import Sequence

from nested_learning.data.packed import RowsConfig
from nested_learning.errors import ConfigError
from nested_learning.evals.protocol import Report, Row, Samples, Subject
from nested_learning.evals.reading import RowToRead, ValidationRows, figures, read_rows
from nested_learning.session import Session

# where the first buckets end, in tokens; from the last one on, each bucket is as long as all before it
EDGES = (0, 32, 128, 256)


class ByPosition:
    """Reads long validation rows from empty states and reports loss, bits per byte and accuracy by position.

    The rows are `length_factor` times the training length; `num_rows` of them, evenly spaced, `batch_size` at once.
    """

    reads_text = False

    def __init__(self, length_factor: int, num_rows: int, batch_size: int) -> None:
        self.length_factor = length_factor
        self.num_rows = num_rows
        self.batch_size = batch_size

    def examples(self, subject: Subject) -> ValidationRows:
        """Return the rows. Raises ConfigError for rows that cannot be longer."""
        if not isinstance(subject.data, RowsConfig):
            raise ConfigError(
                f"evals=by_position: the rows of data={subject.data.name} have a fixed length; "
                "use data=stdlib or data=text, or leave by_position out"
            )
        source = subject.open_source(seq_len=subject.data.seq_len * self.length_factor)
        return ValidationRows(source, self.num_rows)

    def answer(self, session: Session, examples: Sequence[RowToRead]) -> list[list[Row]]:
        """Return the sums over each stretch of each row."""
        readings, written = read_rows(session, examples)
        parts = buckets(len(examples[0].row.tokens))
        return [
            [
                {"row": example.number, "start": start, "end": end} | reading.sums(start, end) | each
                for start, end in parts
            ]
            for example, reading, each in zip(examples, readings, written, strict=True)
        ]

    def summarise(self, subject: Subject, rows: Sequence[Row]) -> Report:
        """Return the figures by position, named such as `bpb/32-128`."""
        parts = list(dict.fromkeys((row["start"], row["end"]) for row in rows))
        found: dict[str, Samples] = {}
        for start, end in parts:
            inside = figures([row for row in rows if row["start"] == start])
            found |= {f"{name}/{start}-{end}": samples for name, samples in inside.items()}
        return Report(figures=dict(found), rows=list(rows))


def buckets(length: int) -> list[tuple[int, int]]:
    """Cut positions [0, `length`) into [0, 32) [32, 128) [128, 256) [256, 512) ..., the last one as far as it goes."""
    edges = [edge for edge in EDGES if edge < length]
    while edges[-1] >= EDGES[-1] and 2 * edges[-1] < length:
        edges.append(2 * edges[-1])
    return list(zip(edges, [*edges[1:], length], strict=True))
