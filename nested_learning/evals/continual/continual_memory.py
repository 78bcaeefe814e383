"""`evals=continual_memory`: forgetting in the memories of sessions that read one domain after the other."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from nested_learning.data.batch import IGNORE, Batch, collate
from nested_learning.data.combined import CombinedSource
from nested_learning.evals.continual.continual import matrix_of, open_domains
from nested_learning.evals.continual.forgetting import AXIS, forgetting_curves, forgetting_grid, forgetting_metrics
from nested_learning.evals.protocol import EvalContext, Record, Report
from nested_learning.evals.reading import Reading, RowToRead, ValidationRows, read_only
from nested_learning.inference.memorize import MemorizeResult, concat_results
from nested_learning.inference.session import Session
from nested_learning.shapes import Int, Tensor


class Stream(NamedTuple):
    """The input of one session: a `text` of each domain, and the validation `rows` that it reads after every domain."""

    number: int
    text: dict[str, Int[Tensor, " t"]]
    rows: dict[str, list[RowToRead]]


class ContinualMemory:
    """Independent sessions read `num_rows` training rows of every domain, one domain after the other.

    The trained weights do not change. After each domain a fork reads `val_rows` validation rows of all domains as new
    documents, with the memory so far. Under memory=memorize a domain is memorized instead of read. Reports the metrics
    of `forgetting_metrics`. Each session is one sample; all read the same validation rows.
    """

    reads_text = False

    def __init__(self, num_streams: int, num_rows: int, val_rows: int, batch_size: int) -> None:
        self.num_streams, self.num_rows, self.val_rows, self.batch_size = num_streams, num_rows, val_rows, batch_size

    def examples(self, ctx: EvalContext) -> list[Stream]:
        """Return the streams. Raises ConfigError for data that is not a sequence of domains."""
        source = open_domains(ctx, "continual_memory")
        rows = {name: list(ValidationRows(part, self.val_rows)) for name, part in source.sources.items()}
        return [Stream(number, self.texts(source, number), rows) for number in range(self.num_streams)]

    def texts(self, source: CombinedSource, number: int) -> dict[str, Tensor]:
        """Return the text of each domain for session `number`: consecutive rows, with sessions evenly spaced."""
        found = {}
        for name, part in source.sources.items():
            there = part.num_rows("train")
            first = number * there // self.num_streams
            rows = [part.row("train", 0, (first + place) % there).tokens for place in range(self.num_rows)]
            found[name] = torch.cat([torch.from_numpy(row) for row in rows])
        return found

    def answer(self, session: Session, examples: Sequence[Stream]) -> list[list[Record]]:
        """Return for each session the sums over the rows of each domain, after each domain; and what was written."""
        answers: list[list[Record]] = [[] for _ in examples]
        memorized: list[MemorizeResult] = []
        for stage, name in enumerate([None, *examples[0].text]):
            if name is not None:
                text = torch.stack([stream.text[name] for stream in examples])
                memorized += read_or_memorize(session, text)
            for domain, rows in examples[0].rows.items():
                for answer, stream, sums in zip(answers, examples, evaluate_rows(session, rows), strict=True):
                    answer.append({"stream": stream.number, "stage": stage, "domain": domain} | sums)
        # the driver reads `memory/...` from the first record of each answer
        if memorized:
            for answer, written in zip(answers, concat_results(memorized).records(), strict=True):
                answer[0] |= written
        return answers

    def summarise(self, ctx: EvalContext, records: Sequence[Record]) -> Report:
        """Return the metrics of the matrix."""
        names = list(dict.fromkeys(record["domain"] for record in records))
        matrix = matrix_of(names, records)
        return Report(
            samples=forgetting_metrics(names, matrix, paired=True),
            records=list(records),
            curves=forgetting_curves(names, matrix),
            axis=AXIS,
            grids={"bits per byte": forgetting_grid(names, matrix)},
        )


def read_or_memorize(session: Session, text: Int[Tensor, "b t"]) -> list[MemorizeResult]:
    """Read a text, or memorize it under memory=memorize; then start a new document. Return what was written."""
    if session.memorizes:
        return [session.memorize(text)]
    session.feed(text)
    session.reset_context()
    return []


def evaluate_rows(session: Session, rows: Sequence[RowToRead]) -> list[dict[str, float]]:
    """Return the sums over `rows` for each row of `session`, with its memory.

    Every validation row is read by a fork of its own: what it writes is seen by no other row, nor by `session`.
    """
    # all pairs of a session row and a validation row, in one batch
    fork = session.fork([stream for stream in range(session.batch) for _ in rows])
    batch = Batch(*(column.repeat(session.batch, 1) for column in collate([row.row for row in rows])))
    nats, correct = read_only(fork, batch)
    num_bytes = torch.stack([torch.from_numpy(row.num_bytes) for row in rows]).repeat(session.batch, 1)
    flat = [each.reshape(session.batch, -1) for each in (nats, correct, batch.targets != IGNORE)]
    each_stream = zip(*flat, num_bytes.reshape(session.batch, -1), strict=True)
    return [Reading(*columns).sums(0, columns[0].numel()) for columns in each_stream]
