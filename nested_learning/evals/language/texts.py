"""The texts whose cost is measured: validation rows, or documents of files; and the words in them."""

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

# what separates words; the token that ends a document does too
SPACES = np.frombuffer(b" \t\n\r\v\f", dtype=np.uint8)


class TextToRead(NamedTuple):
    """A text to read, and how many words begin in each of its targets."""

    row: RowToRead
    num_words: NDArray[np.int64]


def validation_texts(ctx: EvalContext, length: int, number: int) -> list[TextToRead]:
    """Return `number` validation rows of `length` tokens, evenly spaced; where documents are read apart, these.

    Raises ConfigError for data whose rows cannot be so long.
    """
    tokenizer = require_tokenizer(ctx)
    rows = [each.row for each in ValidationRows(ctx.open_source(seq_len=length), number)]
    if ctx.data.resets:
        rows = [document for row in rows for document in split_row(row)]
    return to_texts(rows, tokenizer)


def file_texts(ctx: EvalContext, path: str, length: int | None, number: int) -> list[TextToRead]:
    """Return `number` texts of the documents in `path`, evenly spaced: `length` tokens of one, None: all of it.

    `path` is a file, a folder, a glob or a data set, as in scripts/prepare_data.py; what is left of a document is a
    shorter text. Raises ConfigError, DataError where there is none.
    """
    tokenizer = require_tokenizer(ctx)
    documents = [text for each in find_inputs([path]) for text in Reader().read(each.name) if text]
    if not documents:
        raise DataError(f"evals.perplexity.path={path}: no text there, what was found is empty or not utf-8")
    rows = [row for document in documents for row in split_document(document, tokenizer, length)]
    count = min(number, len(rows))
    return to_texts([rows[place * len(rows) // count] for place in range(count)], tokenizer)


def require_tokenizer(ctx: EvalContext) -> Tokenizer:
    """Return the tokenizer of the model; raise ConfigError where it reads no text."""
    if ctx.tokenizer is None:
        raise ConfigError(
            f"evals=perplexity: the model reads no text, its data={ctx.data.name} is tokens; leave perplexity out"
        )
    return ctx.tokenizer


def longer(ctx: EvalContext, factor: int) -> int:
    """Return `factor` times the length of rows in training; raise ConfigError for rows of a fixed length."""
    if not isinstance(ctx.data, PackingConfig):
        raise ConfigError(
            f"evals=perplexity: the rows of data={ctx.data.name} have a fixed length; "
            "use data=stdlib or data=text, or leave perplexity out"
        )
    return ctx.data.seq_len * factor


def split_row(row: Row) -> list[Row]:
    """Take a row apart into its documents, those without a target left out."""
    borders = np.flatnonzero(np.diff(row.documents)) + 1
    parts = [Row(*columns) for columns in zip(*(np.split(column, borders) for column in row), strict=True)]
    return [part for part in parts if (part.targets != IGNORE).any()]


def split_document(document: str, tokenizer: Tokenizer, length: int | None) -> list[Row]:
    """Cut a document, an `end` around it, into rows of `length` tokens: every transition is a target once."""
    stream = to_stream([document], tokenizer).astype(np.int64)
    step = len(stream) if length is None else length
    windows = [stream[start : start + step + 1] for start in range(0, len(stream) - 1, step)]
    return [Row(window[:-1], window[1:], np.zeros(len(window) - 1, dtype=np.int64)) for window in windows]


def to_texts(rows: Sequence[Row], tokenizer: Tokenizer) -> list[TextToRead]:
    """Number `rows`, and count the bytes and the words of their targets."""
    return [
        TextToRead(to_read(number, row, tokenizer.token_bytes), count_words(row, tokenizer))
        for number, row in enumerate(rows)
    ]


def count_words(row: Row, tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Return how many words begin in each target of `row` [t]; white space or the end of a document separates them."""
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
