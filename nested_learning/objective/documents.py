"""Documents of a packed batch as separate rows, each of which starts from a new state, for any model."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from nested_learning.data.batch import IGNORE, Batch
from nested_learning.shapes import Int, Tensor

# the lengths that documents are sorted by are halves of halves of a row, down to about this many tokens
SHORTEST = 32


class Part(NamedTuple):
    """Documents of about one length as a batch of their own, padded on the right with tokens without target.

    `places`: where each token stands in the whole batch, row by row; of padding, one beyond its last place. Models are
    causal, so no document notices the padding after it.
    """

    batch: Batch
    places: Int[Tensor, "n w"]


def cut(batch: Batch, *, evenly: bool = False) -> list[Part]:
    """Cut `batch` into its documents, sorted by length; those without a target are left out. Source: ours.

    There is at least one part. `evenly`: there is one for each length, whether or not there is a document so long, so
    that the number of parts depends on the length of a row alone: as processes need it that hold a model together.
    """
    begins, lengths = _find(batch)
    bounds = torch.tensor(_bounds(batch.tokens.shape[1]))
    kind = torch.bucketize(lengths, bounds)
    parts = []
    for number in range(len(bounds)):
        here = kind == number
        if here.any():
            parts.append(_take(batch, begins[here], lengths[here]))
        elif evenly:
            parts.append(_nothing(batch))
    return parts or [_nothing(batch)]


def join(batch: Batch, parts: Sequence[Part], columns: Sequence[Tensor]) -> Tensor:
    """Put what was found at the tokens of the `parts` of `batch`, [n w] each, in its place: [b t], else 0."""
    whole = columns[0].new_zeros(batch.tokens.numel() + 1)
    for part, column in zip(parts, columns, strict=True):
        whole[part.places.flatten()] = column.flatten()
    return whole[:-1].view_as(batch.tokens)


def read_apart(batch: Batch, read: Callable[[Batch], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Have `read` read the documents of `batch` from fresh states; return what it found at each token. Source: ours."""
    parts = cut(batch)
    found = [read(part.batch) for part in parts]
    return tuple(join(batch, parts, columns) for columns in zip(*found, strict=True))


def _find(batch: Batch) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Return where in the batch, row by row, each document with a target begins, and how long it is; on the CPU."""
    documents, valid = batch.documents.cpu(), (batch.targets != IGNORE).cpu()
    opens = torch.ones_like(valid)
    opens[:, 1:] = documents[:, 1:] != documents[:, :-1]
    begins = opens.flatten().nonzero().squeeze(1)
    lengths = begins.diff(append=torch.tensor([opens.numel()]))
    seen = torch.cat([torch.zeros(1, dtype=torch.int64), valid.flatten().cumsum(0)])
    kept = seen[begins + lengths] > seen[begins]
    return begins[kept], lengths[kept]


def _bounds(length: int) -> list[int]:
    """Return the lengths, in rising order, up to which documents are read together."""
    bounds = [length]
    while bounds[0] > SHORTEST:
        bounds.insert(0, -(-bounds[0] // 2))
    return bounds


def _take(batch: Batch, begins: Int[Tensor, " n"], lengths: Int[Tensor, " n"]) -> Part:
    """Return the documents at `begins` as one part; they are padded with their own first token."""
    offsets = torch.arange(int(lengths.max()))
    inside = offsets < lengths[:, None]
    sources = torch.where(inside, begins[:, None] + offsets, begins[:, None])
    places = torch.where(inside, sources, batch.tokens.numel())
    inside, sources, places = (index.to(batch.tokens.device) for index in (inside, sources, places))
    tokens, targets = batch.tokens.flatten()[sources], batch.targets.flatten()[sources]
    return Part(Batch(tokens, targets.where(inside, IGNORE), torch.zeros_like(tokens)), places)


def _nothing(batch: Batch) -> Part:
    """Return a part of one token without target, which changes nothing."""
    tokens = batch.tokens[:1, :1]
    beyond = torch.full_like(tokens, batch.tokens.numel())
    return Part(Batch(tokens, torch.full_like(tokens, IGNORE), torch.zeros_like(tokens)), beyond)
