"""The claims of tables 4 to 6 of Nested Learning (arXiv 2512.24695), and when our results count as reproducing one."""

from collections.abc import Sequence
from dataclasses import dataclass

from scripts.experiments.capabilities.trials import LANGUAGES

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "not decidable at this size"
MARKS = {REPRODUCED: "✓", NOT_REPRODUCED: "✗", UNDECIDED: "?"}

# the accuracy from which on a task counts as solved
SOLVED = 0.99
# a difference is judged if it exceeds NUM_ERRORS standard errors and these minima: accuracy, bits per byte
NUM_ERRORS = 2
MIN_ACCURACY, MIN_BITS = 0.01, 0.003

# table 5: (in-length, longer), %; of linear attention and DeltaNet only the regular languages
_ALL = dict.fromkeys(LANGUAGES, (100.0, 100.0))
_PERIODIC = {"aa": (0.0, 0.0), "abab": (0.0, 0.0)}
TABLE_5: dict[str, dict[str, tuple[float, float]]] = {
    "lstm": _ALL,
    "transformer": _ALL | _PERIODIC | {"parity": (46.4, 0.0)},
    "linear_attention": _PERIODIC | {"parity": (78.1, 0.0)},
    "deltanet": _PERIODIC | {"parity": (98.2, 10.1)},
    "hope": _ALL,
}
# table 4, %
TABLE_4: dict[str, dict[str, float]] = {
    "compression": {"transformer": 49.4, "titans_lmm": 49.8, "hope": 51.2},
    "in_context_recall": {"transformer": 100.0, "titans_lmm": 100.0, "hope": 100.0},
    "fuzzy_recall": {"transformer": 47.9, "titans_lmm": 50.0, "hope": 52.1},
    "selective_copying": {"transformer": 96.2, "titans_lmm": 99.4, "hope": 99.7},
    "memorization": {"transformer": 83.7, "titans_lmm": 83.4, "hope": 85.2},
}
# table 6, perplexity; its row without the inner projection of q is our HOPE, whose query is a fixed projection
TABLE_6 = {
    "hope": 12.19,
    "without_dgd": 13.41,
    "without_momentum": 13.58,
    "without_weight_decay": 13.71,
    "without_cms": 13.04,
    "static_key": 13.77,
    "static_value": 13.90,
    "adaptive_query": 12.24,
}


@dataclass(frozen=True)
class Verdict:
    """One claim of a paper, our result, and whether it reproduces the claim."""

    claim: str
    result: str
    word: str

    def line(self) -> str:
        """Return the verdict as a list item."""
        return f"- {self.claim}: {self.result}: **{self.word}**"


def judge_share(shares: Sequence[float], paper: float) -> str:
    """Judge whether every seed agrees with a paper (accuracy in %) that a task is solved, or is not."""
    agree = {(share >= SOLVED) == (paper >= 100 * SOLVED) for share in shares}
    if len(agree) != 1:
        return UNDECIDED
    return REPRODUCED if agree.pop() else NOT_REPRODUCED


def judge_difference(mean: float, error: float | None, least: float) -> str:
    """Judge a difference that is positive in the paper: it must exceed its standard errors and `least`."""
    if error is None or abs(mean) < max(NUM_ERRORS * error, least):
        return UNDECIDED
    return REPRODUCED if mean > 0 else NOT_REPRODUCED


def unless_rising(word: str, rise: float) -> str:
    """Return `word`, but undecided instead of not reproduced while the model's accuracy still rises."""
    return UNDECIDED if word == NOT_REPRODUCED and rise > MIN_ACCURACY else word


def count(words: Sequence[str]) -> str:
    """Write how many claims have each verdict."""
    return ", ".join(f"{words.count(word)} {word}" for word in MARKS if word in words)
