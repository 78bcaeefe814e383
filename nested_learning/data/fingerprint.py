"""What a run reads, in which order, as one hash: runs with the same one can be compared pair by pair."""

import json
from hashlib import sha256

from nested_learning.data.feed import Feed


def order_fingerprint(feed: Feed) -> str:
    """Return the sha256 of all that decides which rows each step reads: the order is a function of these.

    How long the run is, in how many micro-batches a step is cut and by how many processes changes none of it.
    """
    source = feed.source
    tokenizer = None if source.tokenizer is None else source.tokenizer.fingerprint
    decides = [source.fingerprint, tokenizer, source.seq_len, feed.seed, feed.stages, feed.overfit]
    return sha256(json.dumps(decides).encode()).hexdigest()
