"""What evaluations of next-token prediction measure: sums over stretches of rows, and the figures made of them."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from nested_learning.data.batch import IGNORE, Batch, collate
from nested_learning.data.loader import validation_row
from nested_learning.data.source import Row, Source
from nested_learning.evals.protocol import Samples
from nested_learning.inference.session import SEGMENT, Session
from nested_learning.objective.documents import read_apart
from nested_learning.shapes import Bool, Float, Int, Tensor

# where the first stretches end, in tokens; from the last one on, each is as long as all before it
EDGES = (0, 32, 128, 256)


class Reading(NamedTuple):
    """What was found at each target of one row, on the CPU; where there is no target, everything is 0 (False).

    `nats` it cost, whether it was the likeliest token, and `num_bytes`: the utf-8 bytes it stands for, 0 for no text.
    """

    nats: Float[Tensor, " t"]
    correct: Bool[Tensor, " t"]
    valid: Bool[Tensor, " t"]
    num_bytes: Int[Tensor, " t"]

    def sums(self, start: int, end: int) -> dict[str, float]:
        """Add up the targets of positions [start, end): float64 sums by name."""
        nats, correct, valid, num_bytes = (column[start:end] for column in self)
        text_nats = nats.double() * (num_bytes > 0)
        sums = {"nats": nats.double(), "targets": valid, "correct": correct, "text_nats": text_nats, "bytes": num_bytes}
        return {name: float(column.sum()) for name, column in sums.items()}


class ValidationRows(Sequence["RowToRead"]):
    """`num_rows` fixed validation rows of a source, as examples; a row is read from the source when it is asked for."""

    def __init__(self, source: Source, num_rows: int) -> None:
        self.source, self.num_rows = source, min(num_rows, source.num_rows("validation"))
        self.token_bytes = np.zeros(source.vocab_size, dtype=np.int64)
        if source.tokenizer is not None:
            self.token_bytes = source.tokenizer.token_bytes

    def __len__(self) -> int:
        return self.num_rows

    @overload
    def __getitem__(self, index: int) -> "RowToRead": ...
    @overload
    def __getitem__(self, index: slice) -> list["RowToRead"]: ...
    def __getitem__(self, index: int | slice) -> "RowToRead | list[RowToRead]":
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(self.num_rows))]
        if not 0 <= index < self.num_rows:
            raise IndexError(f"row {index} of {self.num_rows}")
        return to_read(index, validation_row(self.source, index, self.num_rows), self.token_bytes)


class RowToRead(NamedTuple):
    """A row, its number among the examples, and how many utf-8 bytes each of its targets stands for."""

    number: int
    row: Row
    num_bytes: NDArray[np.int64]


def to_read(number: int, row: Row, token_bytes: NDArray[np.int64]) -> RowToRead:
    """Return `row` with its number and the bytes of its targets."""
    valid = row.targets != IGNORE
    return RowToRead(number, row, token_bytes[np.where(valid, row.targets, 0)] * valid)


def read_rows(
    session: Session, examples: Sequence[RowToRead], *, resets: bool = False
) -> tuple[list[Reading], list[dict[str, float]]]:
    """Read rows, one a stream; return what was found, and what was written of each where the session studies.

    With `resets` every document of a row is read from an empty state, and what is written is not told.
    """
    batch = collate([example.row for example in examples])
    written: list[dict[str, float]] = [{} for _ in examples]
    if resets:
        nats, correct = read_apart(batch, lambda part: read_batch(fresh(session, len(part.tokens)), part)[:2])
    else:
        nats, correct, written = read_batch(session, batch)
    valid = batch.targets != IGNORE
    readings = [
        Reading(nats[i], correct[i], valid[i], torch.from_numpy(example.num_bytes))
        for i, example in enumerate(examples)
    ]
    return readings, written


def fresh(session: Session, batch: int) -> Session:
    """Open a session like `session`, of other rows, at its beginning."""
    return Session(session.model, session.tokenizer, batch=batch, policy=session.policy)


def read_batch(
    session: Session, batch: Batch
) -> tuple[Float[Tensor, "b t"], Bool[Tensor, "b t"], list[dict[str, float]]]:
    """Read the rows of `batch`; return, on the CPU, the nats of each target and whether it was the likeliest token.

    A session that studies does so as it reads, each piece after it was predicted; what it wrote comes last.
    """
    if session.memorizes:
        found = session.read_and_memorize(batch.tokens, batch.targets)
        return found.nats, found.correct, found.rows()
    return *read_only(session, batch), [{} for _ in batch.tokens]


def read_only(session: Session, batch: Batch) -> tuple[Float[Tensor, "b t"], Bool[Tensor, "b t"]]:
    """Read the rows of `batch` and study nothing; return nats and correct as `read_batch` does."""
    nats, correct = [], []
    for tokens, targets in zip(batch.tokens.split(SEGMENT, 1), batch.targets.split(SEGMENT, 1), strict=True):
        logits = session.read(tokens)
        wanted = targets.to(logits.device)
        nats.append(F.cross_entropy(logits.float().mT, wanted, ignore_index=IGNORE, reduction="none").cpu())
        correct.append((logits.argmax(-1) == wanted).cpu())
    return torch.cat(nats, 1), torch.cat(correct, 1)


def figures(rows: Sequence[dict[str, Any]]) -> dict[str, Samples]:
    """Return loss (nats per target), accuracy and, over targets that are text, bpb (bits per byte) with their errors.

    `rows` hold the sums of independent samples; a figure without anything to divide by is left out.
    """
    made_of = {
        "loss": ("nats", "targets", 1.0, "lower"),
        "bpb": ("text_nats", "bytes", 1 / math.log(2), "lower"),
        "accuracy": ("correct", "targets", 1.0, "higher"),
    }
    return {
        name: Samples([row[top] * scale for row in rows], [row[bottom] for row in rows], better)
        for name, (top, bottom, scale, better) in made_of.items()
        if any(row[bottom] for row in rows)
    }


def buckets(length: int) -> list[tuple[int, int]]:
    """Cut positions [0, `length`) into [0, 32) [32, 128) [128, 256) [256, 512) ..., the last one as far as it goes."""
    edges = [edge for edge in EDGES if edge < length]
    while edges[-1] >= EDGES[-1] and 2 * edges[-1] < length:
        edges.append(2 * edges[-1])
    return list(zip(edges, [*edges[1:], length], strict=True))
