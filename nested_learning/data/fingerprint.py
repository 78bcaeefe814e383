"""A hash of what a run reads and in which order. Runs with equal hashes can be compared step by step."""

import json
from hashlib import sha256

from nested_learning.data.feed import Feed


def order_fingerprint(feed: Feed) -> str:
    """Return the sha256 of everything that determines which rows each step reads.

    The length of the run, the number of micro-batches and the number of processes do not.
    """
    source = feed.source
    tokenizer = None if source.tokenizer is None else source.tokenizer.fingerprint
    determined_by = [source.fingerprint, tokenizer, source.seq_len, feed.seed, feed.stages, feed.overfit]
    return sha256(json.dumps(determined_by).encode()).hexdigest()
