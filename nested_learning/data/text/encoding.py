"""Encode documents of each split into tokens, in several processes, with results in the order of the text."""

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
    """Documents of one split: `tokens` [t], `end d1 end d2 ...`; `starts`, the index of each `end`; the utf-8 bytes."""

    tokens: NDArray[np.unsignedinteger]
    starts: NDArray[np.int64]
    num_bytes: int


def dtype_of(tokenizer: Tokenizer) -> str:
    """Return the smallest little-endian dtype that holds every token id."""
    return "<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4"


def is_kept(text: str, val_fraction: float) -> bool:
    """Whether a document is kept for validation, decided by its hash alone.

    Equal documents are therefore in the same split, wherever they occur.
    """
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) < val_fraction * 2**64


def encode(texts: list[str], tokenizer: Tokenizer, val_fraction: float) -> dict[str, Encoded]:
    """Split documents into training and validation, and encode both."""
    chosen: dict[str, list[str]] = {split: [] for split in SPLITS}
    for text in texts:
        chosen["validation" if is_kept(text, val_fraction) else "train"].append(text)
    return {split: _encode_split(documents, tokenizer) for split, documents in chosen.items()}


def encode_all(
    batches: Iterable[list[str]], tokenizer: Tokenizer, folder: Path, val_fraction: float, jobs: int
) -> Iterator[dict[str, Encoded]]:
    """Yield `encode` of each batch, in order, computed in `jobs` processes that open the tokenizer in `folder`.

    Raises DataError when a process was killed.
    """
    if jobs == 1:
        yield from (encode(texts, tokenizer, val_fraction) for texts in batches)
        return
    # a forked process could inherit a lock that a thread of a loaded library holds, and wait for it forever
    context = get_context("spawn")
    waiting: deque[Future[dict[str, Encoded]]] = deque()
    with ProcessPoolExecutor(jobs, context, _init_worker, (folder, val_fraction)) as pool:
        try:
            for texts in batches:
                waiting.append(pool.submit(_encode_in_worker, texts))
                # a queue of one more batch per process keeps all of them busy and bounds the memory
                if len(waiting) > 2 * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        # submitting to a pool that is breaking down fails with a closed pipe instead of BrokenProcessPool
        except (BrokenProcessPool, OSError) as error:
            raise DataError(
                "an encoding process was killed, perhaps for lack of memory; run the same command with fewer --jobs to "
                "resume"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


# tokenizer and validation fraction of a pool process; set once by its initializer
_worker_state: list[tuple[Tokenizer, float]] = []


def _init_worker(folder: Path, val_fraction: float) -> None:
    Thread(target=_exit_with_parent, daemon=True).start()
    _worker_state.append((open_tokenizer(folder), val_fraction))


def _encode_in_worker(texts: list[str]) -> dict[str, Encoded]:
    return encode(texts, *_worker_state[0])


def _exit_with_parent() -> None:
    """Exit when the parent process is gone: after a SIGKILL of the parent this process would wait for work forever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _encode_split(documents: list[str], tokenizer: Tokenizer) -> Encoded:
    dtype = dtype_of(tokenizer)
    end = np.array([tokenizer.end], dtype)
    parts: list[NDArray[np.unsignedinteger]] = [end[:0]]
    starts, length, num_bytes = [], 0, 0
    for document in documents:
        starts.append(length)
        encoded = [tokenizer.encode(part) for part in split_parts(document)]
        num_bytes += sum(int(tokenizer.token_bytes[tokens].sum()) for tokens in encoded)
        parts += [end, *(tokens.astype(dtype) for tokens in encoded)]
        length += 1 + sum(map(len, encoded))
    return Encoded(np.concatenate(parts), np.array(starts, dtype=np.int64), num_bytes)
