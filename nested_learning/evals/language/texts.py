"""Texts for evals=perplexity: validation rows, or documents in files, with the number of words in each target."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.source import IGNORE, Row
from nested_learning.data.text.packed import PackingConfig, to_stream
from nested_learning.data.text.readers import Reader, find_inputs
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError, DataError
from nested_learning.evals.protocol import EvalContext
from nested_learning.evals.reading import RowToRead, ValidationRows, to_read

# bytes that separate words; the token that ends a document does too
SPACES = np.frombuffer(b" \t\n\r\v\f", dtype=np.uint8)


class TextToRead(NamedTuple):
    """A text, and the number of words that begin in each of its targets."""

    row: RowToRead
    num_words: NDArray[np.int64]


def validation_texts(ctx: EvalContext, length: int, number: int) -> list[TextToRead]:
    """Return `number` validation rows of `length` tokens, evenly spaced, or with `data.boundary=reset` their documents.

    Raises ConfigError for data whose rows cannot have this length.
    """
    tokenizer = ctx.require_tokenizer("perplexity")
    rows = [each.row for each in ValidationRows(ctx.open_source(seq_len=length), number)]
    if ctx.data.resets:
        rows = [document for row in rows for document in split_row(row)]
    return to_texts(rows, tokenizer)


def file_texts(ctx: EvalContext, path: str, length: int | None, number: int) -> list[TextToRead]:
    """Return `number` texts from the documents in `path`, evenly spaced, of `length` tokens; None: whole documents.

    `path` is a file, a folder, a glob or a data set, as in scripts/prepare_data.py. The last text of a document may be
    shorter. Raises ConfigError for a model that reads no text, DataError where `path` has none.
    """
    tokenizer = ctx.require_tokenizer("perplexity")
    documents = [text for each in find_inputs([path]) for text in Reader().read(each.name) if text]
    if not documents:
        raise DataError(f"evals.perplexity.path={path}: no text there; the files are empty or not UTF-8")
    rows = [row for document in documents for row in split_document(document, tokenizer, length)]
    count = min(number, len(rows))
    return to_texts([rows[number * len(rows) // count] for number in range(count)], tokenizer)


def longer(ctx: EvalContext, factor: int) -> int:
    """Return `factor` times the length of training rows; raise ConfigError for rows of a fixed length."""
    if not isinstance(ctx.data, PackingConfig):
        raise ConfigError(
            f"evals=perplexity: the rows of data={ctx.data.name} have a fixed length; "
            "use data=stdlib or data=text, or leave perplexity out"
        )
    return ctx.data.seq_len * factor


def split_row(row: Row) -> list[Row]:
    """Split a row into its documents, without those that have no target."""
    borders = np.flatnonzero(np.diff(row.documents)) + 1
    parts = [Row(*columns) for columns in zip(*(np.split(column, borders) for column in row), strict=True)]
    return [part for part in parts if (part.targets != IGNORE).any()]


def split_document(document: str, tokenizer: Tokenizer, length: int | None) -> list[Row]:
    """Split a document, between two `end` tokens, into rows of `length` tokens; each later token is a target once."""
    stream = to_stream([document], tokenizer).astype(np.int64)
    step = len(stream) if length is None else length
    windows = [stream[start : start + step + 1] for start in range(0, len(stream) - 1, step)]
    return [Row(window[:-1], window[1:], np.zeros(len(window) - 1, dtype=np.int64)) for window in windows]


def to_texts(rows: Sequence[Row], tokenizer: Tokenizer) -> list[TextToRead]:
    """Return `rows` with their numbers, and the bytes and words of their targets."""
    return [
        TextToRead(to_read(number, row, tokenizer.token_bytes), count_words(row, tokenizer))
        for number, row in enumerate(rows)
    ]


def count_words(row: Row, tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Return the number of words that begin in each target of `row` [t]; space or a document end separates words."""
    valid = row.targets != IGNORE
    tokens = np.concatenate([row.tokens[:1], row.targets[valid]])
    is_end = tokens == tokenizer.end
    lengths = np.where(is_end, 1, tokenizer.token_bytes[tokens])
    owner = np.repeat(np.arange(len(tokens)), lengths)
    # the end of a document counts as a line end
    letters = np.full(len(owner), ord("\n"), dtype=np.uint8)
    letters[~is_end[owner]] = np.frombuffer(tokenizer.decode_bytes(tokens[~is_end]), dtype=np.uint8)
    is_space = np.isin(letters, SPACES)
    begins = np.flatnonzero(is_space[:-1] & ~is_space[1:]) + 1
    count = np.zeros(len(row.targets), dtype=np.int64)
    count[valid] = np.bincount(owner[begins], minlength=len(tokens))[1:]
    return count
