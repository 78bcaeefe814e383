"""`data=facts`: sentences that state facts, repeat them, or change them, such as "The lantern of Mira is jade ."

Every word is a token. `evals=needle` queries the same facts, also of models trained on text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.source import IGNORE, require_at_least, require_one_of
from nested_learning.data.tasks.synthetic import SyntheticConfig
from nested_learning.errors import ConfigError
from nested_learning.typed import Count

THINGS, NAMES, VALUES = map(
    str.split,
    (
        "anchor apron basket bell blanket bottle bowl box brush bucket candle carpet chain chair clock coat comb cup "
        "curtain desk door drum fan lantern",
        "Ada Boris Clara Dora Edgar Fiona Gustav Hanna Igor Jonas Karla Leo Mira Nora Oskar Paula Quentin Rosa Samuel "
        "Tilda Ulrich Vera Walter Yara",
        "amber ash azure beige black blue brass bronze brown copper coral cream crimson gold gray green indigo iron "
        "ivory jade lilac marble ochre olive orange pearl pink purple red silver violet white",
    ),
)
WORDS = ["The", "of", "is", ".", *THINGS, *NAMES, *VALUES]
NUMBERS = {word: number for number, word in enumerate(WORDS)}
# words of a sentence, and the position of "is", whose target is the value
LENGTH, BEFORE_VALUE = 7, 4


class Fact(NamedTuple):
    """The content of a sentence: the `thing` of the person `name` has the colour `value`."""

    thing: str
    name: str
    value: str

    @property
    def question(self) -> list[str]:
        """Return the words of the sentence before its value."""
        return ["The", self.thing, "of", self.name, "is"]

    @property
    def sentence(self) -> list[str]:
        """Return the words of the sentence."""
        return [*self.question, self.value, "."]


def draw_facts(rng: np.random.Generator, count: int) -> list[Fact]:
    """Draw facts about `count` distinct pairs of thing and name. Values may repeat."""
    keys = rng.choice(len(THINGS) * len(NAMES), count, replace=False)
    values = rng.integers(len(VALUES), size=count)
    return [
        Fact(THINGS[key // len(NAMES)], NAMES[key % len(NAMES)], VALUES[value])
        for key, value in zip(keys, values, strict=True)
    ]


def numbers_of(words: Sequence[str]) -> NDArray[np.int64]:
    """Return the tokens of `words`."""
    return np.array([NUMBERS[word] for word in words])


@dataclass(kw_only=True)
class FactsConfig(SyntheticConfig):
    """Rows of `num_sentences`: first the facts, `min_facts` to `num_facts` of them, then sentences that repeat one.

    `changes`: fraction of repeated sentences in which a new value is drawn, which holds from there on.
    `train_on`: all, every next word is a target; or asked, only the repeated values, which the row determines.
    """

    name: str = "facts"
    num_facts: Count = 4
    min_facts: int = 1
    num_sentences: Count = 8
    changes: float = 0.0
    train_on: str = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of(("all", "asked"), train_on=self.train_on)
        require_at_least(1, min_facts=self.min_facts)
        require_at_least(self.min_facts, num_facts=self.num_facts)
        require_at_least(self.num_facts + 1, num_sentences=self.num_sentences)
        if not 0 <= self.changes < 1:
            raise ConfigError(f"data.changes={self.changes}: must be at least 0 and below 1, e.g. data.changes=0.1")
        if self.num_facts > len(THINGS) * len(NAMES):
            most = len(THINGS) * len(NAMES)
            raise ConfigError(
                f"data.num_facts={self.num_facts}: there are only {most} facts; use data.num_facts={most}"
            )

    @property
    def evaluation(self) -> list[str]:
        """Return the overrides of `phase=eval` that test what this data teaches."""
        return ["evals=needle", "memory=memorize"]

    @property
    def vocab_size(self) -> int:
        """Count the words."""
        return len(WORDS)

    @property
    def seq_len(self) -> int:
        """Count the words of all sentences."""
        return LENGTH * self.num_sentences

    def make_row(self, rng: np.random.Generator, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the tokens and the targets, both [seq_len], of one row."""
        facts = draw_facts(rng, int(rng.integers(self.min_facts, self.num_facts, endpoint=True)))
        sentences, is_known = list(facts), [False] * len(facts)
        while len(sentences) < self.num_sentences:
            which, is_new = int(rng.integers(len(facts))), bool(rng.random() < self.changes)
            if is_new:
                facts[which] = facts[which]._replace(value=VALUES[rng.integers(len(VALUES))])
            sentences.append(facts[which])
            is_known.append(not is_new)
        tokens = np.concatenate([numbers_of(fact.sentence) for fact in sentences])
        targets = np.append(tokens[1:], IGNORE)
        if self.train_on == "asked":
            is_scored = np.zeros((self.num_sentences, LENGTH), dtype=bool)
            is_scored[:, BEFORE_VALUE] = is_known
            targets = np.where(is_scored.reshape(-1), targets, IGNORE)
        return tokens, targets
