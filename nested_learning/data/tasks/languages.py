"""Six formal languages: how to draw a word, and what may follow each of its prefixes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Word = NDArray[np.int64]
Draw = Callable[[np.random.Generator, int], Word]
Follow = Callable[[Word], NDArray[np.int64]]

# in shuffle2 the token of a closing bracket is that of its opening bracket plus this
CLOSE = 2


@dataclass(frozen=True)
class Language:
    """A formal language over `letters`. Word lengths are multiples of `unit`.

    `follow`: the sets of symbols that may follow a prefix, written as letters and "." for the end of the word; in a
    word problem, where any letter may follow, the possible products of a prefix. `draw(rng, length)` returns a word as
    indices of letters, `sets_after(word)` the index in `follow` for each of its prefixes, both int64 [length].
    """

    letters: Sequence[str]
    unit: int
    follow: tuple[str, ...]
    draw: Draw
    sets_after: Follow


def draw_even_ones(rng: np.random.Generator, length: int) -> Word:
    """Draw random bits with an even number of ones; the last bit makes it even."""
    bits = rng.integers(2, size=length)
    bits[-1] = bits[:-1].sum() % 2
    return bits


def draw_shuffle2(rng: np.random.Generator, length: int) -> Word:
    """Draw an interleaving of two kinds of balanced brackets.

    Each symbol opens or closes a bracket with probability 1/2, unless nothing is open or all remaining symbols are
    needed to close what is open. So all four sets of symbols that may follow are frequent at any length.
    """
    opened, word = [0, 0], []
    coins, kinds = rng.random(length), rng.integers(2, size=length)
    for remaining, coin, kind in zip(range(length, 0, -1), coins, kinds, strict=True):
        num_open = sum(opened)
        opens = num_open == 0 or (coin < 0.5 and num_open < remaining)
        if not opens and not opened[kind]:
            kind = 1 - kind
        opened[kind] += 1 if opens else -1
        word.append(kind if opens else kind + CLOSE)
    return np.array(word, dtype=np.int64)


def shuffle2_sets(word: Word) -> NDArray[np.int64]:
    """Return which kinds of brackets are open after each prefix: 1 the first, 2 the second, 3 both, 0 none."""
    is_open = [np.cumsum((word == kind).astype(np.int64) - (word == kind + CLOSE)) > 0 for kind in (0, 1)]
    return is_open[0] + 2 * is_open[1]


def repeat(letters: list[int], sets: list[int]) -> tuple[Draw, Follow]:
    """Return `draw` and `sets_after` of a language whose words repeat `letters`; `sets[i]` follows letter i."""
    return lambda _, length: np.resize(letters, length), lambda word: np.resize(sets, len(word))


def blocks(num_letters: int) -> tuple[Draw, Follow]:
    """Return `draw` and `sets_after` of a^n b^n ...: `num_letters` blocks of equal length, one letter each."""

    def sets_after(word: Word) -> NDArray[np.int64]:
        size, position = len(word) // num_letters, np.arange(len(word))
        # within the a's another a or the first b may follow (set 0). The first b fixes n, and from there on the set is
        # the number of complete blocks
        return np.where(position < size, 0, (position + 1) // size)

    return lambda _, length: np.repeat(np.arange(num_letters), length // num_letters), sets_after


# an even number of ones, (aa)*, (abab)*, a^n b^n, a^n b^n c^n, and an interleaving of two balanced kinds of brackets
LANGUAGES = {
    "parity": Language("01", 1, ("01.", "01"), draw_even_ones, lambda word: np.cumsum(word) % 2),
    "aa": Language("a", 2, ("a", "a."), *repeat([0], [0, 1])),
    "abab": Language("ab", 4, ("b", "a", "a."), *repeat([0, 1], [0, 1, 0, 2])),
    "anbn": Language("ab", 2, ("ab", "b", "."), *blocks(2)),
    "anbncn": Language("abc", 3, ("ab", "b", "c", "."), *blocks(3)),
    "shuffle2": Language("([)]", 2, ("([.", "([)", "([]", "([)]"), draw_shuffle2, shuffle2_sets),
}
