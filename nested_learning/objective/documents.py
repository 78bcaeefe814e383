"""Read the documents of a packed batch as separate rows, each from a fresh state; works with any model."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from nested_learning.data.batch import IGNORE, Batch
from nested_learning.shapes import Int, Tensor

# documents are grouped by length: up to a row, half a row, a quarter, ... down to about this many tokens
SHORTEST = 32


class Part(NamedTuple):
    """Documents of similar length as a batch, padded on the right with tokens that have no target.

    `indices`: the index of each token in the flattened original batch; of padding, one past its last token. Models are
    causal, so the padding after a document does not change it.
    """

    batch: Batch
    indices: Int[Tensor, "n w"]


def group_documents(batch: Batch, *, every_length: bool = False) -> list[Part]:
    """Return the documents of `batch` grouped by length, without those that have no target.

    There is at least one part. `every_length`: there is one for each group, even if no document belongs to it, so that
    the number of parts depends on the length of a row alone. Processes that share sharded parameters need that.
    """
    starts, lengths = _find_documents(batch)
    bounds = torch.tensor(_length_bounds(batch.tokens.shape[1]))
    group = torch.bucketize(lengths, bounds)
    parts = []
    for number in range(len(bounds)):
        in_group = group == number
        if in_group.any():
            parts.append(_pad_documents(batch, starts[in_group], lengths[in_group]))
        elif every_length:
            parts.append(_empty_part(batch))
    return parts or [_empty_part(batch)]


def merge_parts(batch: Batch, parts: Sequence[Part], values: Sequence[Tensor]) -> Tensor:
    """Return the `values` of the tokens of `parts`, [n w] each, at the tokens' positions in `batch`: [b t], else 0."""
    # padding writes to one more element, which is dropped
    merged = values[0].new_zeros(batch.tokens.numel() + 1)
    for part, of_part in zip(parts, values, strict=True):
        merged[part.indices.flatten()] = of_part.flatten()
    return merged[:-1].view_as(batch.tokens)


def read_documents(batch: Batch, read: Callable[[Batch], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Call `read` on the documents of `batch`, each from a fresh state; return its values [n w] as [b t]."""
    parts = group_documents(batch)
    results = [read(part.batch) for part in parts]
    return tuple(merge_parts(batch, parts, values) for values in zip(*results, strict=True))


def _find_documents(batch: Batch) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Return the start in the flattened batch, and the length, of each document with a target; on the CPU."""
    documents, valid = batch.documents.cpu(), (batch.targets != IGNORE).cpu()
    is_start = torch.ones_like(valid)
    is_start[:, 1:] = documents[:, 1:] != documents[:, :-1]
    starts = is_start.flatten().nonzero().squeeze(1)
    lengths = starts.diff(append=torch.tensor([is_start.numel()]))
    # a document has a target where the number of targets grows from its start to its end
    targets_before = torch.cat([torch.zeros(1, dtype=torch.int64), valid.flatten().cumsum(0)])
    kept = targets_before[starts + lengths] > targets_before[starts]
    return starts[kept], lengths[kept]


def _length_bounds(length: int) -> list[int]:
    """Return the largest document length of each group, in rising order; `length` is that of a row."""
    bounds = [length]
    while bounds[0] > SHORTEST:
        bounds.insert(0, -(-bounds[0] // 2))
    return bounds


def _pad_documents(batch: Batch, starts: Int[Tensor, " n"], lengths: Int[Tensor, " n"]) -> Part:
    """Return the documents at `starts` as one part; they are padded with their own first token."""
    offsets = torch.arange(int(lengths.max()))
    inside = offsets < lengths[:, None]
    sources = torch.where(inside, starts[:, None] + offsets, starts[:, None])
    indices = torch.where(inside, sources, batch.tokens.numel())
    inside, sources, indices = (each.to(batch.tokens.device) for each in (inside, sources, indices))
    tokens, targets = batch.tokens.flatten()[sources], batch.targets.flatten()[sources]
    return Part(Batch(tokens, targets.where(inside, IGNORE), torch.zeros_like(tokens)), indices)


def _empty_part(batch: Batch) -> Part:
    """Return a part of one token without target: a pass over it adds nothing to the loss."""
    tokens = batch.tokens[:1, :1]
    beyond = torch.full_like(tokens, batch.tokens.numel())
    return Part(Batch(tokens, torch.full_like(tokens, IGNORE), torch.zeros_like(tokens)), beyond)
