"""Packers: which stretches of a stream of documents form a row. Nothing is dropped; padding and cuts are counted."""

from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.source import IGNORE, Row

Numbers = NDArray[np.int64]


@runtime_checkable
class Stream(Protocol):
    """Tokens one after the other: an array, or what is counted and cut like one."""

    def __len__(self) -> int:
        """Count the tokens."""
        ...

    def __getitem__(self, stretch: slice, /) -> NDArray[np.unsignedinteger]:
        """Return a stretch of the tokens."""
        ...


class PackingReport(NamedTuple):
    """What packing made of a split, and its price.

    `rows`, `documents`, `targets`: how many; `padding`: the share of positions without a target; `dropped`: targets
    that are in no row, always 0; `cut`: the share of the documents fitting into a row that were cut nevertheless.
    """

    rows: int
    documents: int
    targets: int
    padding: float
    dropped: int
    cut: float


class Packing(ABC):
    """Rows of `seq_len` tokens of a stream `end d1 end d2 ... end`, whose last token is only a target.

    `starts`: where documents begin, at their `end`; None: at every `end` but the last. A document's own targets are the
    tokens after each of its own, the last of them the next `end`: no target crosses into another document.
    """

    num_rows: int

    def __init__(self, stream: Stream, starts: Numbers | None, end: int, seq_len: int) -> None:
        # a mapped file is cut five times as fast when it is taken for a plain array
        self.stream = stream.view(np.ndarray) if isinstance(stream, np.ndarray) else stream
        self.end, self.seq_len = end, seq_len
        self.num_targets = len(stream) - 1
        self._starts = starts

    @abstractmethod
    def row(self, index: int) -> Row:
        """Return row `index`."""

    @abstractmethod
    def count_cut(self, starts: Numbers, sizes: Numbers) -> int:
        """Count the documents, beginning at `starts` and no larger than a row, that are in more than one piece."""

    def starts(self) -> Numbers:
        """Return where each document begins."""
        if self._starts is None:
            self._starts = np.flatnonzero(self.stream[: self.num_targets] == self.end)
        return self._starts

    def report(self) -> PackingReport:
        """Count what packing did."""
        starts = self.starts()
        sizes = np.diff(starts, append=self.num_targets)
        short = sizes <= self.seq_len
        cut = self.count_cut(starts[short], sizes[short]) / max(1, short.sum())
        padding = 1 - self.num_targets / (self.num_rows * self.seq_len)
        return PackingReport(self.num_rows, len(starts), self.num_targets, padding, 0, float(cut))


class Concat(Packing):
    """Row `i` is tokens [i * seq_len, (i + 1) * seq_len) of the stream: nothing is padded but the last row."""

    def __init__(self, stream: Stream, starts: Numbers | None, end: int, seq_len: int) -> None:
        super().__init__(stream, starts, end, seq_len)
        self.num_rows = -(-self.num_targets // seq_len)

    def row(self, index: int) -> Row:
        """Return row `index`; a document that began in the row before goes on as document 0."""
        start = index * self.seq_len
        window = self.stream[start : start + self.seq_len + 1].astype(np.int64)
        tokens, targets = window[:-1], window[1:]
        begins = tokens == self.end
        # a row that opens inside a document and one that opens with its first token both start at document 0
        documents = np.cumsum(begins) - begins[0]
        missing = self.seq_len - len(tokens)
        if not missing:
            return Row(tokens, targets, documents)
        return Row(
            np.pad(tokens, (0, missing), constant_values=self.end),
            np.pad(targets, (0, missing), constant_values=IGNORE),
            np.pad(documents, (0, missing), constant_values=documents[-1] + 1),
        )

    def count_cut(self, starts: Numbers, sizes: Numbers) -> int:
        """Count the documents that lie across the border of two rows."""
        return int((starts // self.seq_len != (starts + sizes - 1) // self.seq_len).sum())


class BestFit(Packing):
    """Rows of whole documents where they fit: see `best_fit`."""

    def __init__(self, stream: Stream, starts: Numbers | None, end: int, seq_len: int) -> None:
        super().__init__(stream, starts, end, seq_len)
        self.pieces = best_fit(self.starts(), self.num_targets, seq_len)
        self.num_rows = len(self.pieces.rows) - 1

    def row(self, index: int) -> Row:
        """Return row `index`; each piece in it is a document."""
        starts, lengths, rows = self.pieces
        row = Row(*(np.full(self.seq_len, fill, dtype=np.int64) for fill in (self.end, IGNORE, 0)))
        at = 0
        for piece in range(rows[index], rows[index + 1]):
            start, until = starts[piece], at + lengths[piece]
            window = self.stream[start : start + lengths[piece] + 1]
            row.tokens[at:until], row.targets[at:until] = window[:-1], window[1:]
            # up to the end of the row: the next piece, or the padding, counts on from here
            row.documents[until:] += 1
            at = until
        return row

    def count_cut(self, starts: Numbers, sizes: Numbers) -> int:
        """Count the documents that are in several pieces."""
        pieces = np.sort(self.pieces.starts)
        first, end = np.searchsorted(pieces, [starts, starts + sizes])
        return int((end - first > 1).sum())


PACKINGS: dict[str, type[Packing]] = {"concat": Concat, "best_fit": BestFit}


class Pieces(NamedTuple):
    """Stretches of a stream, row by row: row `i` holds pieces [rows[i], rows[i + 1]), each of one document.

    `starts` and `lengths` are in tokens, one of each a piece; a piece has as many targets as tokens.
    """

    starts: Numbers
    lengths: Numbers
    rows: Numbers


def best_fit(starts: Numbers, end: int, seq_len: int) -> Pieces:
    """Pack the documents that begin at `starts`, the last ending before `end`, into rows of `seq_len` tokens.

    Documents longer than a row are cut into whole rows and a rest; then, from the longest to the shortest, each piece
    goes into the row with the least room that still holds it. So no document is cut that fits into a row, and nothing
    is dropped. Source: Ding et al., Fewer Truncations Improve Language Modeling, arXiv 2404.10830.
    """
    sizes = np.diff(starts, append=end)
    numbers = -(-sizes // seq_len)
    before = np.cumsum(numbers) - numbers
    nth = np.arange(numbers.sum()) - np.repeat(before, numbers)
    piece_starts = np.repeat(starts, numbers) + nth * seq_len
    lengths = np.minimum(seq_len, np.repeat(starts + sizes, numbers) - piece_starts)
    order = np.argsort(-lengths, kind="stable")
    row_of = _fit(lengths[order], seq_len)
    # within a row the pieces stay in the order in which they came
    order = order[np.argsort(row_of, kind="stable")]
    rows = np.concatenate([[0], np.cumsum(np.bincount(row_of))])
    return Pieces(piece_starts[order], lengths[order], rows)


def _fit(lengths: Numbers, seq_len: int) -> Numbers:
    """Return the row of each piece, given from the longest to the shortest."""
    row_of = np.empty(len(lengths), dtype=np.int64)
    shelf = _Shelf(seq_len)
    done = 0
    for end in (np.flatnonzero(np.diff(lengths, append=-1)) + 1).tolist():
        length = int(lengths[done])
        while done < end:
            placed = shelf.place(length, end - done)
            row_of[done : done + len(placed)] = placed
            done += len(placed)
    return row_of


class _Shelf:
    """Rows by the room that is left in them."""

    def __init__(self, seq_len: int) -> None:
        self.seq_len, self.num_rows = seq_len, 0
        self.rows: list[list[int]] = [[] for _ in range(seq_len + 1)]
        self.count = np.zeros(seq_len + 1, dtype=np.int64)

    def place(self, length: int, number: int) -> Numbers:
        """Place at least one of `number` pieces of `length`; return the row of each that was placed."""
        room = length + int(np.argmax(self.count[length:] > 0))
        if not self.count[room]:
            room = self.seq_len
            opened = -(-number // (room // length))
            self._put(room, list(range(self.num_rows, self.num_rows + opened)))
            self.num_rows += opened
        # what a piece leaves of the least room is the least again while it is enough: rows are filled one by one
        each = room // length
        taken = min(len(self.rows[room]), -(-number // each))
        chosen = self.rows[room][-taken:]
        del self.rows[room][-taken:]
        self.count[room] -= taken
        placed = np.repeat(chosen, each)[:number]
        in_last = len(placed) - (taken - 1) * each
        self._put(room - each * length, chosen[:-1])
        self._put(room - in_last * length, chosen[-1:])
        return placed

    def _put(self, room: int, rows: list[int]) -> None:
        self.rows[room] += rows
        self.count[room] += len(rows)
