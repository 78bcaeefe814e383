"""The six tasks of Mechanistic Architecture Design (MAD, arXiv 2403.17844): how a row of each is drawn.

The definitions are those of the authors' code (athms/mad-lab), `baseline` in its configurations. Every function returns
the tokens and the targets of one row, both [t]. `split` matters where MAD tests on other targets than it trains on:
recall trains on every next token and tests on the values of keys seen before.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.source import IGNORE
from nested_learning.seeds import derive_seed

Tokens = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of a task. `vocabulary` counts all tokens, special tokens and noise included, as MAD does.

    `length`: tokens of a row; recall leaves out the last. `noise`: fraction of pairs that are noise, drawn from the
    last `num_noise` tokens (noisy recall). `num_copied`: tokens to copy. `max_motif`: tokens of the longest key and
    value (fuzzy recall). `map_seed`: seed of the pairs to memorize. `train_on`: "all" trains recall on every next
    token, as MAD does; "asked" only on the targets of its tests.
    """

    vocabulary: int
    length: int
    noise: float
    num_noise: int
    num_copied: int
    max_motif: int
    map_seed: int
    train_on: str


def keys_and_values(num_tokens: int) -> tuple[Tokens, Tokens]:
    """Split `num_tokens` tokens into keys, the first half, and values."""
    return np.arange(num_tokens // 2), np.arange(num_tokens // 2, num_tokens)


def in_context_recall(sizes: Sizes, rng: np.random.Generator, split: str) -> tuple[Tokens, Tokens]:
    """Draw `k v k v ...` where each key has one value. The targets are the values of keys seen before.

    Keys are drawn with replacement; the last key is one of those seen before.
    """
    return _recall(sizes, rng, split, noise=0.0, num_noise=0)


def noisy_recall(sizes: Sizes, rng: np.random.Generator, split: str) -> tuple[Tokens, Tokens]:
    """Draw in-context recall in which a fraction of the pairs is replaced by two tokens of noise."""
    return _recall(sizes, rng, split, noise=sizes.noise, num_noise=sizes.num_noise)


def fuzzy_recall(sizes: Sizes, rng: np.random.Generator, split: str) -> tuple[Tokens, Tokens]:
    """Draw in-context recall where keys and values are 1 to `max_motif` distinct tokens, padded on the left.

    Validation keys all have `max_motif` tokens. The targets are all tokens of the values of keys seen before. The last
    pair, the probe, was shown before at a random position.
    """
    pad = sizes.vocabulary - 1
    keys, values = keys_and_values(pad)
    longest = sizes.max_motif
    shortest_key = 1 if split == "train" else longest
    probe, answer = _motif(rng, keys, shortest_key, longest), _motif(rng, values, 1, longest)
    # the stream grows while it is below `limit`, by at most one longest pair, and then the probe still fits
    limit = sizes.length - len(probe) - len(answer) - 2 * longest
    # at least one pair is added at or after this position, so the probe is always shown
    show_at = rng.integers(limit - 2 * longest + 1)
    known, seen = {probe: answer}, set()
    stream: list[int] = []
    scored: list[bool] = []
    while len(stream) < limit:
        shows_probe = len(stream) >= show_at and probe not in seen
        key = probe if shows_probe else _motif(rng, keys, shortest_key, longest)
        value = known.setdefault(key, _motif(rng, values, 1, longest))
        stream += [*key, *value]
        scored += [False] * len(key) + [key in seen] * len(value)
        seen.add(key)
    stream += [*probe, *answer]
    scored += [False] * len(probe) + [True] * len(answer)
    missing = (sizes.length + 1 - len(stream), 0)
    is_scored = np.pad(scored, missing) | _scores_all(sizes, split)
    return _shift(np.pad(stream, missing, constant_values=pad), is_scored)


def selective_copying(sizes: Sizes, rng: np.random.Generator, _: str) -> tuple[Tokens, Tokens]:
    """Draw symbols among blanks, the copy token, then blanks. The target at the i-th of those is the i-th symbol.

    Blanks are only inserted before symbols, so the last symbol is followed by the copy token.
    """
    blank, copy = sizes.vocabulary - 2, sizes.vocabulary - 1
    symbols = rng.integers(blank, size=sizes.num_copied)
    positions = rng.integers(sizes.num_copied, size=sizes.length - 2 * sizes.num_copied - 1)
    shown = np.insert(symbols, positions, blank)
    tokens = np.concatenate([shown, [copy], np.full(sizes.num_copied, blank)])
    return tokens, np.concatenate([np.full(len(shown) + 1, IGNORE), symbols])


def compression(sizes: Sizes, rng: np.random.Generator, _: str) -> tuple[Tokens, Tokens]:
    """Draw random tokens, then the compression token. All tokens are to be decoded from the output at the last one.

    A target is a pair of position and token, written as position * `vocabulary` + token, for `objective=reconstruct`.
    """
    last = sizes.vocabulary - 1
    tokens = np.append(rng.integers(last, size=sizes.length - 1), last)
    return tokens, np.arange(sizes.length) * sizes.vocabulary + tokens


def memorization(sizes: Sizes, rng: np.random.Generator, _: str) -> tuple[Tokens, Tokens]:
    """Draw `k ? k ? ...`. The target at ? is the value of the key before it, by a map that all rows share."""
    query = sizes.vocabulary - 1
    keys, values = keys_and_values(query)
    value_of = np.random.default_rng(derive_seed(sizes.map_seed, "map")).permutation(values)
    shown = rng.choice(keys, size=sizes.length // 2)
    tokens = np.stack([shown, np.full_like(shown, query)], axis=1)
    return tokens.reshape(-1), np.stack([np.full_like(shown, IGNORE), value_of[shown]], axis=1).reshape(-1)


TASKS: dict[str, Callable[[Sizes, np.random.Generator, str], tuple[Tokens, Tokens]]] = {
    "in_context_recall": in_context_recall,
    "fuzzy_recall": fuzzy_recall,
    "noisy_recall": noisy_recall,
    "selective_copying": selective_copying,
    "compression": compression,
    "memorization": memorization,
}


def _recall(
    sizes: Sizes, rng: np.random.Generator, split: str, *, noise: float, num_noise: int
) -> tuple[Tokens, Tokens]:
    first_noise = sizes.vocabulary - num_noise
    keys, values = keys_and_values(first_noise)
    num_pairs = sizes.length // 2
    shown, value_of = rng.choice(keys, size=num_pairs), rng.choice(values, size=len(keys))
    is_noise = rng.random(num_pairs) < noise
    # one pair at least is not noise, and the last pair has a key that was shown
    is_noise[rng.integers(num_pairs - 1)] = is_noise[-1] = False
    shown[-1] = rng.choice(np.unique(shown[:-1][~is_noise[:-1]]))
    pairs = np.stack([shown, value_of[shown]], axis=1)
    if is_noise.any():
        pairs[is_noise] = rng.integers(first_noise, sizes.vocabulary, size=(is_noise.sum(), 2))
    # noise tokens are never keys, so a noise pair does not count as showing a key
    seen_before = [i for i in np.flatnonzero(~is_noise) if shown[i] in pairs[:i, 0]]
    is_scored = np.zeros((num_pairs, 2), dtype=bool)
    is_scored[seen_before, 1] = True
    return _shift(pairs.reshape(-1), is_scored.reshape(-1) | _scores_all(sizes, split))


def _motif(rng: np.random.Generator, tokens: Tokens, shortest: int, longest: int) -> tuple[int, ...]:
    return tuple(rng.permutation(tokens)[: rng.integers(shortest, longest, endpoint=True)].tolist())


def _scores_all(sizes: Sizes, split: str) -> bool:
    return split == "train" and sizes.train_on == "all"


def _shift(stream: Tokens, is_scored: NDArray[np.bool_]) -> tuple[Tokens, Tokens]:
    """Return the tokens of a stream and their targets, the next tokens where those are scored."""
    return stream[:-1].copy(), np.where(is_scored, stream, IGNORE)[1:]
