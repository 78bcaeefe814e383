"""Word problems: the product, in a finite group, of all letters so far. What a state can track, in its purest form."""

from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.tasks.languages import Language, Word

Table = NDArray[np.int64]


def word_problem(letters: tuple[str, ...], product: Table) -> Language:
    """Return the words over the elements of a group; `product[x, y]` is x, then y.

    Letters are drawn alike, and after each the target is the number of the product so far. Source: Merrill et al.,
    The Illusion of State, arXiv 2404.08819, section 2.
    """

    def after(word: Word) -> NDArray[np.int64]:
        found, state = np.empty_like(word), None
        for place, letter in enumerate(word.tolist()):
            state = letter if state is None else int(product[state, letter])
            found[place] = state
        return found

    return Language(letters, 1, letters, lambda rng, length: rng.integers(len(letters), size=length), after)


def cyclic(order: int) -> Language:
    """Return the word problem of addition modulo `order`."""
    numbers = np.arange(order)
    return word_problem(tuple(map(str, numbers)), (numbers[:, None] + numbers) % order)


def symmetric(degree: int, *, only_even: bool = False) -> Language:
    """Return the word problem of the permutations of `degree` things; `only_even`: those of an even number of swaps."""
    elements = np.array([each for each in permutations(range(degree)) if not only_even or is_even(each)])
    # first x moves what is at place i to x[i], then y moves it on
    moved = elements[np.arange(len(elements)), elements[:, :, None]].transpose(0, 2, 1)
    digits = degree ** np.arange(degree)
    numbers = elements @ digits
    order = np.argsort(numbers)
    product = order[np.searchsorted(numbers[order], moved @ digits)]
    return word_problem(tuple("".join(map(str, each)) for each in elements), product)


def is_even(permutation: tuple[int, ...]) -> bool:
    """Say whether a permutation puts an even number of pairs out of order."""
    pairs = [(i, j) for j in range(len(permutation)) for i in range(j)]
    return sum(permutation[i] > permutation[j] for i, j in pairs) % 2 == 0


# addition modulo 5, and permutations of 3 and 5 things: of A5 and S5 no state of bounded depth keeps track
WORD_PROBLEMS = {"mod5": cyclic(5), "s3": symmetric(3), "a5": symmetric(5, only_even=True), "s5": symmetric(5)}
