"""Word problems: the product, in a finite group, of all letters so far. A test of state tracking."""

from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.tasks.languages import Language, Word

Table = NDArray[np.int64]


def word_problem(letters: tuple[str, ...], product: Table) -> Language:
    """Return the word problem of a group with elements `letters`; `product[x, y]` is the index of x followed by y.

    Letters are uniform. The target at each is the index of the product so far. Source: Merrill et al., The Illusion of
    State, arXiv 2404.08819, section 2.
    """

    def products(word: Word) -> NDArray[np.int64]:
        so_far, state = np.empty_like(word), None
        for i, letter in enumerate(word.tolist()):
            state = letter if state is None else int(product[state, letter])
            so_far[i] = state
        return so_far

    return Language(letters, 1, letters, lambda rng, length: rng.integers(len(letters), size=length), products)


def cyclic(order: int) -> Language:
    """Return the word problem of addition modulo `order`."""
    numbers = np.arange(order)
    return word_problem(tuple(map(str, numbers)), (numbers[:, None] + numbers) % order)


def symmetric(degree: int, *, only_even: bool = False) -> Language:
    """Return the word problem of the symmetric group of `degree` items; `only_even`: of the alternating group."""
    elements = np.array([each for each in permutations(range(degree)) if not only_even or is_even(each)])
    # x moves item i to x[i], then y moves it to y[x[i]]: [x, y, i]
    composed = elements[np.arange(len(elements)), elements[:, :, None]].transpose(0, 2, 1)
    # write a permutation as one number in base `degree`, to look up the index of each product
    digits = degree ** np.arange(degree)
    numbers = elements @ digits
    order = np.argsort(numbers)
    product = order[np.searchsorted(numbers[order], composed @ digits)]
    return word_problem(tuple("".join(map(str, each)) for each in elements), product)


def is_even(permutation: tuple[int, ...]) -> bool:
    """Whether a permutation has an even number of inversions."""
    pairs = [(i, j) for j in range(len(permutation)) for i in range(j)]
    return sum(permutation[i] > permutation[j] for i, j in pairs) % 2 == 0


# A5 and S5 are not solvable, so their word problems are NC1-complete: out of reach of constant depth unless TC0 = NC1
WORD_PROBLEMS = {"mod5": cyclic(5), "s3": symmetric(3), "a5": symmetric(5, only_even=True), "s5": symmetric(5)}
