"""Needle-in-a-haystack tasks, their needles and wordings: RULER's eight, and the pass key.

Sources: RULER, arXiv 2404.06654, `scripts/synthetic.yaml` and `data/synthetic/niah.py`; the pass key: Mohtashami and
Jaggi, arXiv 2305.16300, section 4.2.
"""

from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

import numpy as np

# keys are two words, such as sunny-harbour
ADJECTIVES, NOUNS = map(
    str.split,
    (
        "amber ancient bitter bold brave bright broad calm clever cold crisp curious dark deep dry eager early faint "
        "fancy fierce gentle giant golden grand happy heavy hidden hollow humble icy jolly kind late lively lonely "
        "loud lucky mellow mighty narrow noble odd pale plain proud quick quiet rapid rare rough rusty sharp shy "
        "silent simple slow small smooth soft steady stern sunny swift tall tame tender tiny vast warm wild wise witty",
        "anchor apple arrow badge barrel basin beacon bell bottle bridge bucket button cabin candle canyon carpet "
        "castle cellar chapel cherry circle cloud coast comet copper cradle desert dragon engine falcon feather "
        "fiddle forest fountain garden goblet hammer harbour helmet hunter island jacket kettle ladder lantern lemon "
        "market meadow mirror needle orchard otter palace pepper pillow planet pocket quarry ribbon river saddle "
        "sailor shadow shelter spider spoon table temple thunder ticket tunnel turtle valley velvet violin wagon",
    ),
)
HAYSTACKS = ("noise", "essay", "needles")


class Wording(NamedTuple):
    """The sentences of a task. {thing} is the kind of value, such as number or numbers.

    `opening`, `question` and `answer` have two forms: for one value and for several.
    """

    opening: tuple[str, str]
    needle: str
    question: tuple[str, str]
    answer: tuple[str, str]


MAGIC = Wording(
    (
        "A special magic {thing} is hidden within the following text. Make sure to memorize it. "
        "I will quiz you about the {thing} afterwards.\n",
        "Some special magic {thing} are hidden within the following text. Make sure to memorize it. "
        "I will quiz you about the {thing} afterwards.\n",
    ),
    "One of the special magic {things} for {key} is: {value}.",
    (
        "What is the special magic {thing} for {key} mentioned in the provided text?",
        "What are all the special magic {thing} for {key} mentioned in the provided text?",
    ),
    (
        " The special magic {thing} for {key} mentioned in the provided text is",
        " The special magic {thing} for {key} mentioned in the provided text are",
    ),
)
_HIDDEN = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. "
    "I will quiz you about the important information there.\n"
)
PASS_KEY = Wording(
    (_HIDDEN, _HIDDEN),
    "The pass key is {value}. Remember it. {value} is the pass key.",
    ("What is the pass key?", "What is the pass key?"),
    (" The pass key is", " The pass key is"),
)


@dataclass(frozen=True)
class NeedleTask:
    """A task that hides `num_values` values for each of `num_keys` keys and queries `num_queries` of the keys.

    `haystack`: noise, essay, or needles, which are sentences about other keys. `key`, `value`: words, numbers or uuids.
    `digits`: of a number.
    """

    haystack: str
    key: str = "words"
    value: str = "numbers"
    num_keys: int = 1
    num_values: int = 1
    num_queries: int = 1
    digits: int = 7
    wording: Wording = MAGIC

    @property
    def num_answers(self) -> int:
        """Count the values that the question asks for."""
        return self.num_values * self.num_queries

    def sentence(self, text: str) -> str:
        """Return a sentence of the haystack: in an essay running text, elsewhere a line of its own."""
        return f" {text}" if self.haystack == "essay" else f"{text}\n"

    def needle(self, key: str, value: str) -> str:
        """Return the sentence that gives `key` its `value`."""
        return self.wording.needle.format(things=self.value, key=key, value=value)

    def opening(self) -> str:
        """Return the instruction before the haystack."""
        return self._format(self.wording.opening, "")

    def question(self, keys: list[str]) -> str:
        """Return the question about `keys` and the beginning of its answer, up to the value."""
        listed = keys[0] if len(keys) == 1 else f"{', '.join(keys[:-1])}, and {keys[-1]}"
        start = "\n" if self.haystack == "essay" else ""
        return start + self._format(self.wording.question, listed) + self._format(self.wording.answer, listed)

    def _format(self, forms: tuple[str, str], key: str) -> str:
        several = self.num_answers > 1
        thing = self.value if several else self.value.removesuffix("s")
        return forms[several].format(thing=thing, key=key)


TASKS = {
    "niah_single_1": NeedleTask("noise"),
    "niah_single_2": NeedleTask("essay"),
    "niah_single_3": NeedleTask("essay", value="uuids"),
    "niah_multikey_1": NeedleTask("essay", num_keys=4),
    "niah_multikey_2": NeedleTask("needles"),
    "niah_multikey_3": NeedleTask("needles", key="uuids", value="uuids"),
    "niah_multivalue": NeedleTask("essay", num_values=4),
    "niah_multiquery": NeedleTask("essay", num_keys=4, num_queries=4),
}
PASSKEY = "passkey"
ALL_TASKS = TASKS | {PASSKEY: NeedleTask("noise", digits=5, wording=PASS_KEY)}


def draw_value(kind: str, digits: int, rng: np.random.Generator) -> str:
    """Draw a number of `digits` digits, two words, or a uuid."""
    match kind:
        case "numbers":
            return str(rng.integers(10 ** (digits - 1), 10**digits))
        case "words":
            return f"{ADJECTIVES[rng.integers(len(ADJECTIVES))]}-{NOUNS[rng.integers(len(NOUNS))]}"
        case _:
            return str(UUID(bytes=rng.bytes(16), version=4))


def draw_distinct(kind: str, digits: int, count: int, taken: list[str], rng: np.random.Generator) -> list[str]:
    """Draw `count` different values that are not in `taken`."""
    # a dictionary keeps the order in which values were drawn, a set would not
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        value = draw_value(kind, digits, rng)
        if value not in taken:
            drawn[value] = None
    return list(drawn)
