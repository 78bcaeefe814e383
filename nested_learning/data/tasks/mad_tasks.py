"""The six tasks of Mechanistic Architecture Design (MAD, arXiv 2403.17844): how a row of each is drawn.

Definitions are those of the paper's own code (athms/mad-lab), `baseline` of its configurations. Every function returns
the tokens and the targets of one row; `split` matters where MAD tests on other targets, or rows, than it trains on:
of recall, every next token is a target in training, and in tests the values of keys seen before.
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
    """How large a task is: `vocabulary` counts every token, special ones and noise included, as MAD does.

    `length`: tokens of a row, where pairs are shown one less. `noise`: the share of pairs that are noise, out of the
    last `num_noise` tokens (noisy recall). `num_copied`: tokens to copy. `max_motif`: tokens of the longest key and
    value (fuzzy recall). `map_seed`: which pairs are to be memorised. `train_on`: "all" trains recall on
    every next token, as MAD does, "asked" on the targets of its tests alone.
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
    """Return the tokens that are keys, the first half of `num_tokens`, and those that are values."""
    return np.arange(num_tokens // 2), np.arange(num_tokens // 2, num_tokens)


def in_context_recall(sizes: Sizes, rng: np.random.Generator, split: str) -> tuple[Tokens, Tokens]:
    """Draw `k v k v ...`, in which a key has one value: the target is the value of every key seen before.

    The keys are drawn with replacement, the last out of those seen.
    """
    return _recall(sizes, rng, split, noise=0.0, num_noise=0)


def noisy_recall(sizes: Sizes, rng: np.random.Generator, split: str) -> tuple[Tokens, Tokens]:
    """Draw in-context recall where a share of the pairs are two tokens of noise."""
    return _recall(sizes, rng, split, noise=sizes.noise, num_noise=sizes.num_noise)


def fuzzy_recall(sizes: Sizes, rng: np.random.Generator, split: str) -> tuple[Tokens, Tokens]:
    """Draw in-context recall where keys and values are one to `max_motif` different tokens, pads in front.

    Validation keys all have `max_motif` tokens, and the targets are all tokens of the values of keys seen before. The
    last pair is one that was shown at a random place.
    """
    pad = sizes.vocabulary - 1
    keys, values = keys_and_values(pad)
    longest = sizes.max_motif
    shortest_key = 1 if split == "train" else longest
    probe, answer = _motif(rng, keys, shortest_key, longest), _motif(rng, values, 1, longest)
    # the longest pair and the last fit behind it; the probe is shown early enough not to be missed
    room = sizes.length - len(probe) - len(answer) - 2 * longest
    place = rng.integers(room - 2 * longest + 1)
    known, seen = {probe: answer}, set()
    stream: list[int] = []
    asked: list[bool] = []
    while len(stream) < room:
        shows_probe = len(stream) >= place and probe not in seen
        key = probe if shows_probe else _motif(rng, keys, shortest_key, longest)
        value = known.setdefault(key, _motif(rng, values, 1, longest))
        stream += [*key, *value]
        asked += [False] * len(key) + [key in seen] * len(value)
        seen.add(key)
    stream += [*probe, *answer]
    asked += [False] * len(probe) + [True] * len(answer)
    missing = (sizes.length + 1 - len(stream), 0)
    asked_there = np.pad(asked, missing) | _asks_for_all(sizes, split)
    return _shift(np.pad(stream, missing, constant_values=pad), asked_there)


def selective_copying(sizes: Sizes, rng: np.random.Generator, _: str) -> tuple[Tokens, Tokens]:
    """Draw symbols with blanks in between, the copy token, blanks: the target at the i-th of these is the i-th symbol.

    Blanks come before any symbol, so that the last is followed by the copy token.
    """
    blank, copy = sizes.vocabulary - 2, sizes.vocabulary - 1
    symbols = rng.integers(blank, size=sizes.num_copied)
    places = rng.integers(sizes.num_copied, size=sizes.length - 2 * sizes.num_copied - 1)
    shown = np.insert(symbols, places, blank)
    tokens = np.concatenate([shown, [copy], np.full(sizes.num_copied, blank)])
    return tokens, np.concatenate([np.full(len(shown) + 1, IGNORE), symbols])


def compression(sizes: Sizes, rng: np.random.Generator, _: str) -> tuple[Tokens, Tokens]:
    """Draw random tokens, then the compression token: every token shall be told from the output at the last.

    A target is the number of (place, token), place * `vocabulary` + token, for `objective=reconstruct`.
    """
    last = sizes.vocabulary - 1
    tokens = np.append(rng.integers(last, size=sizes.length - 1), last)
    return tokens, np.arange(sizes.length) * sizes.vocabulary + tokens


def memorization(sizes: Sizes, rng: np.random.Generator, _: str) -> tuple[Tokens, Tokens]:
    """Draw `k ? k ? ...`: the target at ? is the value of the key before it in a map that is the same in all rows."""
    ask = sizes.vocabulary - 1
    keys, values = keys_and_values(ask)
    value_of = np.random.default_rng(derive_seed(sizes.map_seed, "map")).permutation(values)
    shown = rng.choice(keys, size=sizes.length // 2)
    tokens = np.stack([shown, np.full_like(shown, ask)], axis=1)
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
    # at least one pair, and at the end one that was shown
    is_noise[rng.integers(num_pairs - 1)] = is_noise[-1] = False
    shown[-1] = rng.choice(np.unique(shown[:-1][~is_noise[:-1]]))
    pairs = np.stack([shown, value_of[shown]], axis=1)
    if is_noise.any():
        pairs[is_noise] = rng.integers(first_noise, sizes.vocabulary, size=(is_noise.sum(), 2))
    # noise is no key, so that no key equals it
    seen = [place for place in np.flatnonzero(~is_noise) if shown[place] in pairs[:place, 0]]
    asked = np.zeros((num_pairs, 2), dtype=bool)
    asked[seen, 1] = True
    return _shift(pairs.reshape(-1), asked.reshape(-1) | _asks_for_all(sizes, split))


def _motif(rng: np.random.Generator, tokens: Tokens, shortest: int, longest: int) -> tuple[int, ...]:
    return tuple(rng.permutation(tokens)[: rng.integers(shortest, longest, endpoint=True)].tolist())


def _asks_for_all(sizes: Sizes, split: str) -> bool:
    return split == "train" and sizes.train_on == "all"


def _shift(stream: Tokens, asked: NDArray[np.bool_]) -> tuple[Tokens, Tokens]:
    """Cut tokens, and the next tokens that are asked, out of a stream."""
    return stream[:-1].copy(), np.where(asked, stream, IGNORE)[1:]
