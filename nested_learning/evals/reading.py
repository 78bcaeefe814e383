"""What evaluations of next-token prediction measure: sums over stretches of rows, and the figures made of them."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from nested_learning.data.batch import IGNORE, Batch
from nested_learning.data.loader import validation_batches
from nested_learning.data.source import Source
from nested_learning.evals.protocol import Metric, Subject, ratio
from nested_learning.objective.documents import read_apart
from nested_learning.session import SEGMENT, Session
from nested_learning.shapes import Bool, Float, Int, Tensor


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


def read_validation(
    subject: Subject, source: Source, num_rows: int, batch_size: int, *, resets: bool = False
) -> Iterator[Reading]:
    """Read `num_rows` fixed validation rows, `batch_size` at once, each from an empty state. Source: ours.

    With `resets` every document of a row is read from an empty state.
    """
    token_bytes = torch.zeros(source.vocab_size, dtype=torch.int64)
    if source.tokenizer is not None:
        token_bytes = torch.from_numpy(source.tokenizer.token_bytes)

    def read(batch: Batch) -> tuple[Tensor, ...]:
        return read_batch(subject.open_session(len(batch.tokens)), batch)

    for batch in validation_batches(source, num_rows, batch_size):
        nats, correct = read_apart(batch, read) if resets else read(batch)
        valid = batch.targets != IGNORE
        num_bytes = token_bytes[batch.targets.clamp(min=0)] * valid
        for row in range(len(nats)):
            yield Reading(nats[row], correct[row], valid[row], num_bytes[row])


@torch.inference_mode()
def read_batch(session: Session, batch: Batch) -> tuple[Float[Tensor, "b t"], Bool[Tensor, "b t"]]:
    """Read the rows of `batch`; return, on the CPU, the nats of each target and whether it was the likeliest token."""
    nats, correct = [], []
    for tokens, targets in zip(batch.tokens.split(SEGMENT, 1), batch.targets.split(SEGMENT, 1), strict=True):
        logits = session.read(tokens)
        wanted = targets.to(logits.device)
        nats.append(F.cross_entropy(logits.float().mT, wanted, ignore_index=IGNORE, reduction="none").cpu())
        correct.append((logits.argmax(-1) == wanted).cpu())
    return torch.cat(nats, 1), torch.cat(correct, 1)


def figures(rows: Sequence[dict[str, Any]]) -> dict[str, Metric]:
    """Return loss (nats per target), accuracy and, over targets that are text, bpb (bits per byte) with their errors.

    `rows` hold the sums of independent samples; a figure without anything to divide by is left out. Source: ours.
    """
    made_of = {
        "loss": ("nats", "targets", 1.0, "lower"),
        "bpb": ("text_nats", "bytes", 1 / math.log(2), "lower"),
        "accuracy": ("correct", "targets", 1.0, "higher"),
    }
    return {
        name: ratio([row[top] * scale for row in rows], [row[bottom] for row in rows], better)
        for name, (top, bottom, scale, better) in made_of.items()
        if any(row[bottom] for row in rows)
    }
