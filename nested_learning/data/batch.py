"""The batch: the only form in which data reaches a model. Sources shift the targets; nothing after them does."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from nested_learning.data.source import IGNORE, Row
from nested_learning.shapes import Int, Tensor

__all__ = ["IGNORE", "Batch", "collate", "to"]


class Batch(NamedTuple):
    """Tokens, the target of each position (the next token; IGNORE: no target), and the document it belongs to.

    `documents` counts 0, 1, ... within a row. A document begins at its `<|end|>` token.
    """

    tokens: Int[Tensor, "b t"]
    targets: Int[Tensor, "b t"]
    documents: Int[Tensor, "b t"]


def collate(rows: Sequence[Row]) -> Batch:
    """Stack rows of equal length into a batch of int64 tensors on the CPU."""
    return Batch(*(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)))


def to(batch: Batch, device: torch.device | str) -> Batch:
    """Return `batch` on `device`."""
    return Batch(*(tensor.to(device, non_blocking=True) for tensor in batch))
