"""`evals=by_position`: how the loss changes along the context, and beyond the length that was trained."""

import math
from typing import Any

import numpy as np
import torch

from nested_learning.data.batch import IGNORE, Batch, to
from nested_learning.data.loader import validation_batches
from nested_learning.data.packed import PackedConfig
from nested_learning.data.source import Source
from nested_learning.errors import ConfigError
from nested_learning.evals.protocol import Metric, Report, Subject, ratio
from nested_learning.objective.next_token import cross_entropy
from nested_learning.session import SEGMENT, Session
from nested_learning.shapes import Float, Tensor

# where the first buckets end, in tokens; from the last one on, each bucket is as long as all before it
EDGES = (0, 32, 128, 256)


class ByPosition:
    """Reads long validation rows from empty states and reports nats per token and bits per byte by position.

    The rows are `length_factor` times the training length; `num_rows` of them, evenly spaced, `batch_size` at once.
    """

    def __init__(self, length_factor: int, num_rows: int, batch_size: int) -> None:
        self.length_factor = length_factor
        self.num_rows = num_rows
        self.batch_size = batch_size

    def run(self, subject: Subject) -> Report:
        """Ask `subject`. Raises ConfigError for data whose rows have no length to choose."""
        if not isinstance(subject.data, PackedConfig):
            raise ConfigError(
                f"evals=by_position: the rows of data={subject.data.name} have a fixed length; "
                "use data=stdlib or data=text, or leave by_position out"
            )
        source = subject.open_source(seq_len=subject.data.seq_len * self.length_factor)
        rows: list[dict[str, Any]] = []
        for batch in validation_batches(source, self.num_rows, self.batch_size, 0, 1):
            nats = read_nats(subject.open_session(len(batch.tokens)), batch)
            rows += _summarise(nats.cpu(), batch, source, first_row=len(rows) // len(buckets(source.seq_len)))
        return Report(metrics=_metrics(rows), rows=rows)


def buckets(length: int) -> list[tuple[int, int]]:
    """Cut positions [0, `length`) into [0, 32) [32, 128) [128, 256) [256, 512) ..., the last one as far as it goes."""
    edges = [edge for edge in EDGES if edge < length]
    while edges[-1] >= EDGES[-1] and 2 * edges[-1] < length:
        edges.append(2 * edges[-1])
    return list(zip(edges, [*edges[1:], length], strict=True))


@torch.inference_mode()
def read_nats(session: Session, batch: Batch) -> Float[Tensor, "b t"]:
    """Read the rows of `batch` and return the nats of each target, 0 where there is none. Source: ours."""
    place = to(batch, next(session.model.parameters()).device)
    pieces = zip(place.tokens.split(SEGMENT, dim=1), place.targets.split(SEGMENT, dim=1), strict=True)
    return torch.cat([cross_entropy(session.read(tokens), targets) for tokens, targets in pieces], dim=1)


def _summarise(nats: Tensor, batch: Batch, source: Source, first_row: int) -> list[dict[str, Any]]:
    """Return one result for every row and bucket: sums of nats, of targets, and of the bytes they stand for."""
    valid = (batch.targets != IGNORE).double()
    sums = {"nats": nats.double(), "targets": valid}
    if source.tokenizer is not None:
        num_bytes = source.tokenizer.token_bytes.astype(np.float64)
        sums["bytes"] = torch.from_numpy(num_bytes)[batch.targets.clamp(min=0)] * valid
    return [
        {"row": first_row + row, "start": start, "end": end}
        | {name: values[row, start:end].sum().item() for name, values in sums.items()}
        for row in range(len(nats))
        for start, end in buckets(nats.shape[1])
    ]


def _metrics(rows: list[dict[str, Any]]) -> dict[str, Metric]:
    metrics = {}
    for start, end in dict.fromkeys((row["start"], row["end"]) for row in rows):
        inside = [row for row in rows if row["start"] == start]
        nats = [row["nats"] for row in inside]
        if any(row["targets"] for row in inside):
            metrics[f"loss/{start}-{end}"] = ratio(nats, [row["targets"] for row in inside], "lower")
        if any("bytes" in row and row["bytes"] for row in inside):
            bits = [value / math.log(2) for value in nats]
            metrics[f"bpb/{start}-{end}"] = ratio(bits, [row["bytes"] for row in inside], "lower")
    return metrics
