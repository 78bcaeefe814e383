"""`evals=continual_memory`: what memories forget over domains that one reader reads one after the other."""

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
    """What one reader reads: of each domain some `text`, and the `rows` that it is asked about after every domain."""

    number: int
    text: dict[str, Int[Tensor, " t"]]
    rows: dict[str, list[RowToRead]]


class ContinualMemory:
    """Readers with a memory of their own read `num_rows` training rows of every domain, one domain after the other.

    Weights stay as they are; after each domain a fork reads `val_rows` validation rows of all domains, from their
    beginning, with what is memorised until then. Under memory=memorize a domain is studied. Reports the figures of
    `forgetting_figures`, a reader being a sample; all readers are asked about the same rows.
    """

    reads_text = False

    def __init__(self, num_streams: int, num_rows: int, val_rows: int, batch_size: int) -> None:
        self.num_streams, self.num_rows, self.val_rows, self.batch_size = num_streams, num_rows, val_rows, batch_size

    def examples(self, ctx: EvalContext) -> list[Stream]:
        """Return the streams. Raises ConfigError for data that are no sequence."""
        source = open_domains(ctx, "continual_memory")
        rows = {name: list(ValidationRows(part, self.val_rows)) for name, part in source.sources.items()}
        return [Stream(number, self.texts(source, number), rows) for number in range(self.num_streams)]

    def texts(self, source: CombinedSource, number: int) -> dict[str, Tensor]:
        """Return what reader `number` reads of each domain: rows that follow each other, the readers evenly spaced."""
        found = {}
        for name, part in source.sources.items():
            there = part.num_rows("train")
            first = number * there // self.num_streams
            rows = [part.row("train", 0, (first + place) % there).tokens for place in range(self.num_rows)]
            found[name] = torch.cat([torch.from_numpy(row) for row in rows])
        return found

    def answer(self, session: Session, examples: Sequence[Stream]) -> list[list[Record]]:
        """Return for each reader the sums over the rows of each domain, after each domain; and what was written."""
        answers: list[list[Record]] = [[] for _ in examples]
        memorized: list[MemorizeResult] = []
        for stage, name in enumerate([None, *examples[0].text]):
            if name is not None:
                text = torch.stack([stream.text[name] for stream in examples])
                memorized += read_or_memorize(session, text)
            for domain, rows in examples[0].rows.items():
                for answer, stream, sums in zip(answers, examples, evaluate_rows(session, rows), strict=True):
                    answer.append({"stream": stream.number, "stage": stage, "domain": domain} | sums)
        if memorized:
            for answer, written in zip(answers, concat_results(memorized).records(), strict=True):
                answer[0] |= written
        return answers

    def summarise(self, ctx: EvalContext, records: Sequence[Record]) -> Report:
        """Return the figures of the matrix."""
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
    """Have the readers read a text, or study it, then begin another; return what was written, if they study."""
    if session.memorizes:
        return [session.memorize(text)]
    session.feed(text)
    session.reset_context()
    return []


def evaluate_rows(session: Session, rows: Sequence[RowToRead]) -> list[dict[str, float]]:
    """Return the sums over `rows` for each stream of `session`: read side by side, each from its beginning.

    What is written of one row another does not see, nor does `session`.
    """
    fork = session.fork([stream for stream in range(session.batch) for _ in rows])
    batch = Batch(*(column.repeat(session.batch, 1) for column in collate([row.row for row in rows])))
    nats, correct = read_only(fork, batch)
    num_bytes = torch.stack([torch.from_numpy(row.num_bytes) for row in rows]).repeat(session.batch, 1)
    flat = [each.reshape(session.batch, -1) for each in (nats, correct, batch.targets != IGNORE)]
    each_stream = zip(*flat, num_bytes.reshape(session.batch, -1), strict=True)
    return [Reading(*columns).sums(0, columns[0].numel()) for columns in each_stream]
