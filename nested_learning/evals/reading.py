"""Next-token prediction on rows of the data: losses per target, their sums over spans, and the metrics made of them."""

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
from nested_learning.evals.metrics import Samples
from nested_learning.inference.session import PREFILL_TOKENS, Session
from nested_learning.objective.documents import read_documents
from nested_learning.shapes import Bool, Float, Int, Tensor

# where the first spans of positions end, in tokens; after the last of these, every span is as long as all before it
EDGES = (0, 32, 128, 256)


class Reading(NamedTuple):
    """The results at each position of one row, on the CPU; 0 or False where there is no target.

    `nats`: the loss; `correct`: whether the target was the likeliest token; `valid`: whether there is a target;
    `num_bytes`: the UTF-8 bytes of the target, 0 for tokens without text.
    """

    nats: Float[Tensor, " t"]
    correct: Bool[Tensor, " t"]
    valid: Bool[Tensor, " t"]
    num_bytes: Int[Tensor, " t"]

    def sums(self, start: int, end: int) -> dict[str, float]:
        """Return the sums over positions [start, end) in float64, by name."""
        nats, correct, valid, num_bytes = (column[start:end] for column in self)
        text_nats = nats.double() * (num_bytes > 0)
        sums = {"nats": nats.double(), "targets": valid, "correct": correct, "text_nats": text_nats, "bytes": num_bytes}
        return {name: float(column.sum()) for name, column in sums.items()}


class ValidationRows(Sequence["RowToRead"]):
    """`num_rows` fixed validation rows of a source, as examples; each is read from the source when it is indexed."""

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
            return [self[number] for number in range(*index.indices(self.num_rows))]
        if not 0 <= index < self.num_rows:
            raise IndexError(f"row {index} of {self.num_rows}")
        return to_read(index, validation_row(self.source, index, self.num_rows), self.token_bytes)


class RowToRead(NamedTuple):
    """A row, its number among the examples, and the number of UTF-8 bytes of each of its targets."""

    number: int
    row: Row
    num_bytes: NDArray[np.int64]


def to_read(number: int, row: Row, token_bytes: NDArray[np.int64]) -> RowToRead:
    """Return `row` with its number and the number of bytes of its targets."""
    valid = row.targets != IGNORE
    return RowToRead(number, row, token_bytes[np.where(valid, row.targets, 0)] * valid)


def read_rows(
    session: Session, examples: Sequence[RowToRead], *, resets: bool = False
) -> tuple[list[Reading], list[dict[str, float]]]:
    """Read one example in each row of `session`; return the readings, and what was written under memory=memorize.

    With `resets` every document of a row is read from an empty state, and what was written is not returned.
    """
    batch = collate([example.row for example in examples])
    written: list[dict[str, float]] = [{} for _ in examples]
    if resets:
        nats, correct = read_documents(batch, lambda part: read_batch(open_like(session, len(part.tokens)), part)[:2])
    else:
        nats, correct, written = read_batch(session, batch)
    valid = batch.targets != IGNORE
    readings = [
        Reading(nats[i], correct[i], valid[i], torch.from_numpy(example.num_bytes))
        for i, example in enumerate(examples)
    ]
    return readings, written


def open_like(session: Session, batch: int) -> Session:
    """Open a new session of `batch` rows with the model and the policy of `session`."""
    return Session(session.model, session.tokenizer, batch=batch, policy=session.policy)


def read_batch(
    session: Session, batch: Batch
) -> tuple[Float[Tensor, "b t"], Bool[Tensor, "b t"], list[dict[str, float]]]:
    """Read the rows of `batch`; return, on the CPU, the nats of each target, whether it was correct, what was written.

    Under memory=memorize each segment is memorized after it was predicted.
    """
    if session.memorizes:
        result = session.read_and_memorize(batch.tokens, batch.targets)
        return result.nats, result.correct, result.records()
    return *read_only(session, batch), [{} for _ in batch.tokens]


def read_only(session: Session, batch: Batch) -> tuple[Float[Tensor, "b t"], Bool[Tensor, "b t"]]:
    """Read the rows of `batch` without memorizing; return the nats of each target and whether it was correct."""
    nats, correct = [], []
    chunks = zip(batch.tokens.split(PREFILL_TOKENS, 1), batch.targets.split(PREFILL_TOKENS, 1), strict=True)
    for tokens, targets in chunks:
        logits = session.read(tokens)
        targets = targets.to(logits.device)
        nats.append(F.cross_entropy(logits.float().mT, targets, ignore_index=IGNORE, reduction="none").cpu())
        correct.append((logits.argmax(-1) == targets).cpu())
    return torch.cat(nats, 1), torch.cat(correct, 1)


def loss_metrics(records: Sequence[dict[str, Any]]) -> dict[str, Samples]:
    """Return the samples of loss (nats per target), accuracy and, over targets with text, bpb (bits per byte).

    Each record holds the sums of one independent sample. A metric whose denominators are all 0 is left out.
    """
    # name -> numerator, denominator, factor, which direction is better
    definitions = {
        "loss": ("nats", "targets", 1.0, "lower"),
        "bpb": ("text_nats", "bytes", 1 / math.log(2), "lower"),
        "accuracy": ("correct", "targets", 1.0, "higher"),
    }
    return {
        name: Samples([record[top] * scale for record in records], [record[bottom] for record in records], better)
        for name, (top, bottom, scale, better) in definitions.items()
        if any(record[bottom] for record in records)
    }


def buckets(length: int) -> list[tuple[int, int]]:
    """Split positions [0, `length`) into [0, 32) [32, 128) [128, 256) [256, 512) ...; the last span may be shorter."""
    edges = [edge for edge in EDGES if edge < length]
    while edges[-1] >= EDGES[-1] and 2 * edges[-1] < length:
        edges.append(2 * edges[-1])
    return list(zip(edges, [*edges[1:], length], strict=True))
