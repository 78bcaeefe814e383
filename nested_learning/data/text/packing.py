"""Packing: which spans of a stream of documents form each row. No target is dropped; padding and cuts are reported."""

from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.source import IGNORE, Row

Numbers = NDArray[np.int64]


@runtime_checkable
class Stream(Protocol):
    """A sequence of tokens: an array, or an object with its length and slicing."""

    def __len__(self) -> int:
        """Count the tokens."""
        ...

    def __getitem__(self, span: slice, /) -> NDArray[np.unsignedinteger]:
        """Return the tokens of a span."""
        ...


class PackingReport(NamedTuple):
    """The rows of a split, and what packing cost.

    `rows`, `documents`, `targets`: their numbers. `padding`: fraction of positions without a target. `dropped`: targets
    that are in no row, always 0. `cut`: fraction of the documents that would fit into a row but are in more than one.
    """

    rows: int
    documents: int
    targets: int
    padding: float
    dropped: int
    cut: float


class Packing(ABC):
    """Rows of `seq_len` tokens of a stream `end d1 end d2 ... end`. The last `end` is only a target.

    `starts`: the positions where documents begin, each at its `end`; None: at every `end` but the last. The targets of
    a document are the tokens after each of its own, the last one the next `end`: no target comes from the text of
    another document.
    """

    num_rows: int

    def __init__(self, stream: Stream, starts: Numbers | None, end: int, seq_len: int) -> None:
        # slicing a memmap costs five times as much as slicing a plain view of it
        self.stream = stream.view(np.ndarray) if isinstance(stream, np.ndarray) else stream
        self.end, self.seq_len = end, seq_len
        self.num_targets = len(stream) - 1
        self._starts = starts

    @abstractmethod
    def row(self, index: int) -> Row:
        """Return row `index`."""

    @abstractmethod
    def count_cut(self, starts: Numbers, sizes: Numbers) -> int:
        """Count the documents that are in more than one span, given `starts` and `sizes` of all that fit into a row."""

    def starts(self) -> Numbers:
        """Return the position where each document begins."""
        if self._starts is None:
            self._starts = np.flatnonzero(self.stream[: self.num_targets] == self.end)
        return self._starts

    def report(self) -> PackingReport:
        """Count rows, padding and cut documents."""
        starts = self.starts()
        sizes = np.diff(starts, append=self.num_targets)
        fits = sizes <= self.seq_len
        cut = self.count_cut(starts[fits], sizes[fits]) / max(1, fits.sum())
        padding = 1 - self.num_targets / (self.num_rows * self.seq_len)
        return PackingReport(self.num_rows, len(starts), self.num_targets, padding, 0, float(cut))


class Concat(Packing):
    """Row `i` is tokens [i * seq_len, (i + 1) * seq_len) of the stream. Only the last row is padded."""

    def __init__(self, stream: Stream, starts: Numbers | None, end: int, seq_len: int) -> None:
        super().__init__(stream, starts, end, seq_len)
        self.num_rows = -(-self.num_targets // seq_len)

    def row(self, index: int) -> Row:
        """Return row `index`. A document that began in an earlier row continues as document 0."""
        start = index * self.seq_len
        # one token more than the row, which is the target of its last position
        window = self.stream[start : start + self.seq_len + 1].astype(np.int64)
        tokens, targets = window[:-1], window[1:]
        begins = tokens == self.end
        # subtracting begins[0] numbers the first document 0, whether it begins with the row or before it
        documents = np.cumsum(begins) - begins[0]
        missing = self.seq_len - len(tokens)
        if not missing:
            return Row(tokens, targets, documents)
        return Row(
            np.pad(tokens, (0, missing), constant_values=self.end),
            np.pad(targets, (0, missing), constant_values=IGNORE),
            # padding counts as a document of its own, so that boundary=reset separates it too
            np.pad(documents, (0, missing), constant_values=documents[-1] + 1),
        )

    def count_cut(self, starts: Numbers, sizes: Numbers) -> int:
        """Count the documents that cross a row boundary."""
        return int((starts // self.seq_len != (starts + sizes - 1) // self.seq_len).sum())


class BestFit(Packing):
    """Rows of whole documents where they fit; see `best_fit`."""

    def __init__(self, stream: Stream, starts: Numbers | None, end: int, seq_len: int) -> None:
        super().__init__(stream, starts, end, seq_len)
        self.spans = best_fit(self.starts(), self.num_targets, seq_len)
        self.num_rows = len(self.spans.rows) - 1

    def row(self, index: int) -> Row:
        """Return row `index`. Each span in it is one document."""
        starts, lengths, rows = self.spans
        row = Row(*(np.full(self.seq_len, fill, dtype=np.int64) for fill in (self.end, IGNORE, 0)))
        offset = 0
        for span in range(rows[index], rows[index + 1]):
            start, until = starts[span], offset + lengths[span]
            window = self.stream[start : start + lengths[span] + 1]
            row.tokens[offset:until], row.targets[offset:until] = window[:-1], window[1:]
            # everything after this span, the next span or the padding, belongs to a later document
            row.documents[until:] += 1
            offset = until
        return row

    def count_cut(self, starts: Numbers, sizes: Numbers) -> int:
        """Count the documents that are in more than one span."""
        span_starts = np.sort(self.spans.starts)
        first, end = np.searchsorted(span_starts, [starts, starts + sizes])
        return int((end - first > 1).sum())


PACKINGS: dict[str, type[Packing]] = {"concat": Concat, "best_fit": BestFit}


class Spans(NamedTuple):
    """Spans of a stream, sorted by row: row `i` holds spans [rows[i], rows[i + 1]), each within one document.

    `starts`, `lengths`: one per span, in tokens. A span has as many targets as tokens.
    """

    starts: Numbers
    lengths: Numbers
    rows: Numbers


def best_fit(starts: Numbers, end: int, seq_len: int) -> Spans:
    """Pack the documents that begin at `starts`, the last one ending before `end`, into rows of `seq_len` tokens.

    A document longer than a row is cut into full rows and a remainder. Then every span, from the longest to the
    shortest, goes into the row with the least free space that still holds it (best-fit decreasing bin packing). So no
    document that fits into a row is cut, and nothing is dropped. Source: Ding et al., Fewer Truncations Improve
    Language Modeling, arXiv 2404.10830.
    """
    sizes = np.diff(starts, append=end)
    # spans of each document, and for every span its number within its document
    counts = -(-sizes // seq_len)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    span_starts = np.repeat(starts, counts) + within * seq_len
    lengths = np.minimum(seq_len, np.repeat(starts + sizes, counts) - span_starts)
    order = np.argsort(-lengths, kind="stable")
    row_of = _assign_rows(lengths[order], seq_len)
    # sort the spans by row; a stable sort keeps those of one row from the longest to the shortest
    order = order[np.argsort(row_of, kind="stable")]
    rows = np.concatenate([[0], np.cumsum(np.bincount(row_of))])
    return Spans(span_starts[order], lengths[order], rows)


def _assign_rows(lengths: Numbers, seq_len: int) -> Numbers:
    """Return the row of each span. `lengths` are in descending order."""
    row_of = np.empty(len(lengths), dtype=np.int64)
    bins = _Bins(seq_len)
    done = 0
    # one pass per distinct length, not per span: a corpus has many more spans than lengths
    for end in (np.flatnonzero(np.diff(lengths, append=-1)) + 1).tolist():
        length = int(lengths[done])
        while done < end:
            placed = bins.place(length, end - done)
            row_of[done : done + len(placed)] = placed
            done += len(placed)
    return row_of


class _Bins:
    """Rows grouped by their free space. `rows[space]` lists the rows with that many free tokens, `counts` their number.

    Finding the least sufficient space is then one search in an array of `seq_len` numbers, however many rows there are.
    """

    def __init__(self, seq_len: int) -> None:
        self.seq_len, self.num_rows = seq_len, 0
        self.rows: list[list[int]] = [[] for _ in range(seq_len + 1)]
        self.counts = np.zeros(seq_len + 1, dtype=np.int64)

    def place(self, length: int, number: int) -> Numbers:
        """Place at least one of `number` spans of `length` tokens. Return the row of each span that was placed."""
        # the least space that holds the span; argmax of booleans is the first True
        space = length + int(np.argmax(self.counts[length:] > 0))
        if not self.counts[space]:
            space = self.seq_len
            opened = -(-number // (space // length))
            self._put(space, list(range(self.num_rows, self.num_rows + opened)))
            self.num_rows += opened
        # Best fit puts the next span of this length into the same row while it fits: the row had the least sufficient
        # space, and now has even less. So each row takes `per_row` spans at once.
        per_row = space // length
        taken = min(len(self.rows[space]), -(-number // per_row))
        chosen = self.rows[space][-taken:]
        del self.rows[space][-taken:]
        self.counts[space] -= taken
        placed = np.repeat(chosen, per_row)[:number]
        # only the last chosen row may get fewer spans
        in_last = len(placed) - (taken - 1) * per_row
        self._put(space - per_row * length, chosen[:-1])
        self._put(space - in_last * length, chosen[-1:])
        return placed

    def _put(self, space: int, rows: list[int]) -> None:
        self.rows[space] += rows
        self.counts[space] += len(rows)
