"""`data=formal`: after each letter of a word of a formal language, what may come next? Trained short, tested longer."""

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
    """Rows of a word of `language`, then blanks without target: the target at a letter is the set of what may follow.

    The task of Bhattamishra et al. (arXiv 2009.11264) and Irie et al. (arXiv 2310.16076), Table 5 of Nested Learning: a
    row is solved when every position is right, in-length (the lengths of training) and on longer words, which are the
    same task with other bounds. The sets are numbered in the order of `languages.Language.follow`, so that one label a
    position says it all. Tokens: the letters, then blank; there is no token before the first letter. Of a word problem
    (`word_problems.py`) the target is the product of the letters so far.

    Words are `min_length` to `max_length` letters long, each length that the language has as likely.
    """

    name: str = "formal"
    language: str = "parity"
    min_length: int = 2
    max_length: int = 40

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.language not in ALL_LANGUAGES:
            raise ConfigError(
                f"data.language={self.language}: no such language; {did_you_mean(self.language, list(ALL_LANGUAGES))}"
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
    def vocab_size(self) -> int:
        """Count letters and blank, or the sets that are targets, whichever are more."""
        return max(len(self._rules.letters) + 1, len(self._rules.follow))

    @property
    def seq_len(self) -> int:
        """Every row is as long as the longest word may be."""
        return self.max_length

    def make_row(self, rng: np.random.Generator, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the tokens and the targets, both [seq_len], of one row."""
        rules = self._rules
        units = rng.integers(self._fewest_units, self.max_length // rules.unit, endpoint=True)
        word = rules.draw(rng, int(units) * rules.unit)
        missing = (0, self.max_length - len(word))
        tokens = np.pad(word, missing, constant_values=len(rules.letters))
        return tokens, np.pad(rules.after(word), missing, constant_values=IGNORE)

    @property
    def _rules(self) -> Language:
        return ALL_LANGUAGES[self.language]

    @property
    def _fewest_units(self) -> int:
        return -(-self.min_length // self._rules.unit)
