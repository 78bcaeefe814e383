"""`evals=needle`: recall a fact after its context is removed. A model that did not memorize it can only guess."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from nested_learning.data.tasks.facts import VALUES, Fact, FactsConfig, draw_facts, numbers_of
from nested_learning.errors import ConfigError
from nested_learning.evals.metrics import Samples
from nested_learning.evals.protocol import EvalContext, Record, Report
from nested_learning.evals.variable_length import Text, score_choices
from nested_learning.inference.session import Session
from nested_learning.seeds import derive_seed

# encodes words; the flag says whether they follow other words, and so begin with a space
Encode = Callable[[Sequence[str], bool], Text]

# conditions, which are names of metrics: question alone, question in its context, fact changed later
ACCURACY, IN_CONTEXT, CONTRADICTION = "accuracy", "accuracy_in_context", "contradiction"


class Needle(NamedTuple):
    """An example: a `context` that states a fact, a `question` about it, and the `candidates` to answer with.

    `change` states that the fact has changed; `elsewhere` states as many facts about other things; `prompt` is the
    context with the question. `gold` and `changed` are the indices of the right candidate before and after the change.
    """

    number: int
    context: Text
    change: Text
    elsewhere: Text
    question: Text
    prompt: Text
    candidates: list[Text]
    gold: int
    changed: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the lengths of all texts that are read or memorized; examples of one shape share a batch."""
        return tuple(len(text) for text in (self.context, self.change, self.elsewhere, self.question, self.prompt))


class NeedlePack:
    """Has the model memorize a context, then queries a fact in a new document.

    The answer is the likeliest of `num_candidates`. `accuracy`: the question alone, after the context was memorized.
    Controls under memory=memorize: `accuracy_wrong_context`, other facts were memorized; `accuracy_reset`, the memory
    was cleared; `contradiction`, a change of the fact was memorized later, and the new value counts as right. Under
    other policies nothing is memorized, and `accuracy_in_context`, where the question follows the context, says whether
    the model can answer at all. `nats`: the loss of the right answer.
    """

    reads_text = True

    def __init__(self, num_examples: int, num_facts: int, num_candidates: int, batch_size: int) -> None:
        self.num_examples, self.num_facts = num_examples, num_facts
        self.num_candidates, self.batch_size = num_candidates, batch_size

    def examples(self, ctx: EvalContext) -> list[Needle]:
        """Return the examples. Raises ConfigError for a model that reads neither text nor data=facts."""
        encode = encoder(ctx)
        return [self._example(ctx.seed, number, encode) for number in range(self.num_examples)]

    def answer(self, session: Session, examples: Sequence[Needle]) -> list[list[Record]]:
        """Return a record of each example: the `chosen` candidate, whether it is `right`, the nats of the right one."""
        records: dict[int, Record] = {}
        for shape in sorted({example.shape for example in examples}):
            rows = [row for row, example in enumerate(examples) if example.shape == shape]
            # under memory.reset=carry the session itself must memorize, not a fork of it
            group = session if len(rows) == len(examples) else session.fork(rows)
            records |= zip(rows, self._evaluate(group, [examples[row] for row in rows]), strict=True)
        return [[records[row]] for row in range(len(examples))]

    def summarise(self, ctx: EvalContext, records: Sequence[Record]) -> Report:
        """Return the accuracy under each condition, and the nats of the right answer."""
        chance = 1 / self.num_candidates
        metrics = {
            name.removeprefix("right/"): Samples.mean([record[name] for record in records], "higher", chance)
            for name in records[0]
            if name.startswith("right/")
        }
        metrics["nats"] = Samples.mean([record["nats"] for record in records], "lower")
        return Report(samples=dict(metrics), records=list(records))

    def _evaluate(self, session: Session, examples: Sequence[Needle]) -> list[Record]:
        """Evaluate examples of one shape under all conditions; `session` keeps what it memorized."""
        candidates = [example.candidates for example in examples]
        records: list[Record] = [
            {"example": each.number, "gold": each.gold, "changed": each.changed} for each in examples
        ]
        readers, written = _conditions(session, examples)
        for name, reader in readers.items():
            reader.feed(torch.stack([each.prompt if name == IN_CONTEXT else each.question for each in examples]))
            for record, scores in zip(records, score_choices(reader, candidates), strict=True):
                nats = [float(score.nats.sum()) for score in scores]
                chosen = nats.index(min(nats))
                gold = record["changed" if name == CONTRADICTION else "gold"]
                record |= {f"chosen/{name}": chosen, f"right/{name}": int(chosen == gold)}
                if name == ACCURACY:
                    record["nats"] = nats[gold]
        return [record | each for record, each in zip(records, written, strict=True)]

    def _example(self, seed: int, number: int, encode: Encode) -> Needle:
        rng = np.random.default_rng(derive_seed(seed, "needle", number))
        drawn_facts = draw_facts(rng, 2 * self.num_facts)
        facts, others = drawn_facts[: self.num_facts], drawn_facts[self.num_facts :]
        fact = facts[int(rng.integers(self.num_facts))]
        drawn = rng.permutation([value for value in VALUES if value != fact.value]).tolist()
        # the other facts' values come first among the wrong candidates: knowing which values occurred is not enough
        known = list(dict.fromkeys(other.value for other in facts if other.value != fact.value))
        wrong = list(dict.fromkeys([*known, *drawn]))[: self.num_candidates - 1]
        changed = wrong[min(len(known), len(wrong) - 1)]
        candidates = rng.permutation([fact.value, *wrong]).tolist()
        return Needle(
            number,
            encode(words_of(facts), False),
            encode(fact._replace(value=changed).sentence, False),
            encode(words_of(others), False),
            encode(fact.question, False),
            encode([*words_of(facts), *fact.question], False),
            [encode([value], True) for value in candidates],
            candidates.index(fact.value),
            candidates.index(changed),
        )


def _conditions(session: Session, examples: Sequence[Needle]) -> tuple[dict[str, Session], list[Record]]:
    """Return by condition a session that is ready for the question, and what was written for `accuracy`."""
    if not session.memorizes:
        return {IN_CONTEXT: session.fork(), ACCURACY: session.fork()}, [{} for _ in examples]
    context = torch.stack([each.context for each in examples])
    change = torch.stack([each.change for each in examples])
    elsewhere = torch.stack([each.elsewhere for each in examples])
    misled = session.fork()
    misled.memorize(elsewhere)
    written = session.memorize(context).records()
    forgotten, contradicted = session.fork(), session.fork()
    forgotten.reset()
    contradicted.memorize(change)
    return {
        ACCURACY: session.fork(),
        "accuracy_wrong_context": misled,
        "accuracy_reset": forgotten,
        CONTRADICTION: contradicted,
    }, written


def words_of(facts: Sequence[Fact]) -> list[str]:
    """Return the words of a text that states `facts`."""
    return [word for fact in facts for word in fact.sentence]


def encoder(ctx: EvalContext) -> Encode:
    """Return the encoder of words: the tokenizer, or the numbers of data=facts. Raises ConfigError without one."""
    tokenizer = ctx.tokenizer
    if tokenizer is None:
        if not isinstance(ctx.data, FactsConfig):
            raise ConfigError(
                f"evals=needle: a model of data={ctx.data.name} knows no words; "
                "use one that was trained on text, or with data=facts, which experiment=needle does"
            )
        return lambda words, _: torch.from_numpy(numbers_of(words))
    return lambda words, continues: torch.from_numpy(
        tokenizer.encode(" " * continues + " ".join(words).replace(" .", "."))
    )
