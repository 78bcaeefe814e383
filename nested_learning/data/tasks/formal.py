"""`data=formal`: predict the letters that may follow each prefix of a word of a formal language."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.source import IGNORE, require_at_least
from nested_learning.data.tasks.languages import LANGUAGES, Language
from nested_learning.data.tasks.synthetic import SyntheticConfig
from nested_learning.data.tasks.word_problems import WORD_PROBLEMS
from nested_learning.errors import ConfigError
from nested_learning.typed import did_you_mean

ALL_LANGUAGES = LANGUAGES | WORD_PROBLEMS


@dataclass(kw_only=True)
class FormalConfig(SyntheticConfig):
    """Rows of one word of `language`. The target at each letter is the set of symbols that may follow the prefix.

    The task of Bhattamishra et al. (arXiv 2009.11264) and Irie et al. (arXiv 2310.16076), Table 5 of Nested Learning. A
    row is solved when every position is correct. Length generalization is tested with the same task and larger bounds.
    Sets are numbered in the order of `languages.Language.follow`, so that one class per position is enough. In a word
    problem (`word_problems.py`) the target is the product of the letters so far. Tokens: the letters, then blank; no
    token precedes the first letter.

    The length of a word is uniform over the lengths from `min_length` to `max_length` that the language has; blanks
    without target fill the row up to `max_length`.
    """

    name: str = "formal"
    language: str = "parity"
    min_length: int = 2
    max_length: int = 40

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.language not in ALL_LANGUAGES:
            raise ConfigError(
                f"data.language={self.language}: unknown; {did_you_mean(self.language, list(ALL_LANGUAGES))}"
                f"allowed: {', '.join(ALL_LANGUAGES)}"
            )
        require_at_least(1, min_length=self.min_length, max_length=self.max_length)
        if self.max_length // self._rules.unit < self._fewest_units:
            longest = self._fewest_units * self._rules.unit
            raise ConfigError(
                f"data.max_length={self.max_length}: data.language={self.language} has no word of data.min_length="
                f"{self.min_length} to {self.max_length} letters; use at least data.max_length={longest}"
            )

    @property
    def evaluation(self) -> list[str]:
        """Return the overrides of `phase=eval` that test what this data teaches."""
        return ["evals=formal"]

    @property
    def vocab_size(self) -> int:
        """Count the letters and the blank, or the sets, whichever are more: tokens and targets share one vocabulary."""
        return max(len(self._rules.letters) + 1, len(self._rules.follow))

    @property
    def seq_len(self) -> int:
        """The length of every row, blanks included."""
        return self.max_length

    def make_row(self, rng: np.random.Generator, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the tokens and the targets, both [seq_len], of one row."""
        rules = self._rules
        units = rng.integers(self._fewest_units, self.max_length // rules.unit, endpoint=True)
        word = rules.draw(rng, int(units) * rules.unit)
        missing = (0, self.max_length - len(word))
        tokens = np.pad(word, missing, constant_values=len(rules.letters))
        return tokens, np.pad(rules.sets_after(word), missing, constant_values=IGNORE)

    @property
    def _rules(self) -> Language:
        return ALL_LANGUAGES[self.language]

    @property
    def _fewest_units(self) -> int:
        return -(-self.min_length // self._rules.unit)
