"""Documents to tokens, split into training and validation, in several processes and in the order of the text."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from hashlib import blake2b
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.source import SPLITS
from nested_learning.data.tokenizers.tokenizer import Tokenizer, split_parts
from nested_learning.data.tokenizers.tokenizer_files import open_tokenizer
from nested_learning.errors import DataError


class Encoded(NamedTuple):
    """Documents of one split as tokens `end d1 end d2 ...`; where each `end` is; the utf-8 bytes of the text."""

    tokens: NDArray[np.unsignedinteger]
    starts: NDArray[np.int64]
    num_bytes: int


def dtype_of(tokenizer: Tokenizer) -> str:
    """Return the smallest type, little-endian, that holds the vocabulary."""
    return "<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4"


def is_kept(text: str, val_fraction: float) -> bool:
    """Say whether a document is kept for validation.

    Its hash decides: equal ones are on one side, whatever is read before them.
    """
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) < val_fraction * 2**64


def encode(texts: list[str], tokenizer: Tokenizer, val_fraction: float) -> dict[str, Encoded]:
    """Encode documents, those of each split one after the other."""
    chosen: dict[str, list[str]] = {split: [] for split in SPLITS}
    for text in texts:
        chosen["validation" if is_kept(text, val_fraction) else "train"].append(text)
    return {split: _encode_split(documents, tokenizer) for split, documents in chosen.items()}


def encode_all(
    batches: Iterable[list[str]], tokenizer: Tokenizer, folder: Path, val_fraction: float, jobs: int
) -> Iterator[dict[str, Encoded]]:
    """Yield what `encode` makes of each batch, in order, in `jobs` processes, which open the tokenizer in `folder`.

    Raises DataError when a process was killed.
    """
    if jobs == 1:
        yield from (encode(texts, tokenizer, val_fraction) for texts in batches)
        return
    context = get_context("spawn")
    waiting: deque[Future[dict[str, Encoded]]] = deque()
    with ProcessPoolExecutor(jobs, context, _begin_worker, (folder, val_fraction)) as pool:
        try:
            for texts in batches:
                waiting.append(pool.submit(_encode_here, texts))
                # as many again wait, so that nobody does
                if len(waiting) > 2 * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        # work that is given out while the pool falls finds its pipe closed
        except (BrokenProcessPool, OSError) as error:
            raise DataError(
                "a process that encodes was killed, perhaps for memory; the same command with fewer --jobs goes on"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


# what a process of the pool encodes with
_here: list[tuple[Tokenizer, float]] = []


def _begin_worker(folder: Path, val_fraction: float) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    _here.append((open_tokenizer(folder), val_fraction))


def _encode_here(texts: list[str]) -> dict[str, Encoded]:
    return encode(texts, *_here[0])


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, even killed: it would wait for work for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _encode_split(documents: list[str], tokenizer: Tokenizer) -> Encoded:
    dtype = dtype_of(tokenizer)
    end = np.array([tokenizer.end], dtype)
    pieces: list[NDArray[np.unsignedinteger]] = [end[:0]]
    starts, length, num_bytes = [], 0, 0
    for document in documents:
        starts.append(length)
        tokens = [tokenizer.encode(part) for part in split_parts(document)]
        num_bytes += sum(int(tokenizer.token_bytes[part].sum()) for part in tokens)
        pieces += [end, *(part.astype(dtype) for part in tokens)]
        length += 1 + sum(map(len, tokens))
    return Encoded(np.concatenate(pieces), np.array(starts, dtype=np.int64), num_bytes)
