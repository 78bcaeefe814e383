"""`evals=needle`: a fact is told, then asked about when it is gone. Who did not memorise it can only guess."""

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

# words to tokens; `goes_on`: whether they follow other words
Encode = Callable[[Sequence[str], bool], Text]

# the conditions under which something else is asked, or something else is right
ACCURACY, IN_CONTEXT, CONTRADICTION = "accuracy", "accuracy_in_context", "contradiction"


class Needle(NamedTuple):
    """An example: the `context`, which tells a fact; the `question`, which does not; the `candidates` to answer it.

    `change` tells that the fact has changed, `elsewhere` tells as many facts about other things; `prompt` is the
    context and the question in one. `gold` and `changed`: which of the candidates was true, and which is true then.
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
        """Return the lengths of all that is studied or asked."""
        return tuple(len(text) for text in (self.context, self.change, self.elsewhere, self.question, self.prompt))


class NeedlePack:
    """Tells and asks in two phases: the context is studied, then the question comes as another text.

    Figures, all over `num_candidates` answers of which the likeliest is taken: `accuracy`, of the question alone, after
    study where the session studies. Where it does, as controls, `accuracy_wrong_context`, after study of facts about
    other things; `accuracy_reset`, when all was forgotten after study; `contradiction`, when it was studied later that
    the fact has changed, and what was said last is right. Where it does not, `accuracy_in_context`, of context and
    question in one text, which says whether the model could answer at all. `nats`: what the answer cost.
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
        """Return the row of each example: whether it was `right`, which was `chosen`, what the answer cost."""
        records: dict[int, Record] = {}
        for shape in sorted({example.shape for example in examples}):
            here = [place for place, example in enumerate(examples) if example.shape == shape]
            # what is carried on must be studied by the session itself
            part = session if len(here) == len(examples) else session.fork(here)
            records |= zip(here, self._evaluate(part, [examples[place] for place in here]), strict=True)
        return [[records[place]] for place in range(len(examples))]

    def summarise(self, ctx: EvalContext, records: Sequence[Record]) -> Report:
        """Return the figures."""
        chance = 1 / self.num_candidates
        metrics = {
            name.removeprefix("right/"): Samples.mean([record[name] for record in records], "higher", chance)
            for name in records[0]
            if name.startswith("right/")
        }
        metrics["nats"] = Samples.mean([record["nats"] for record in records], "lower")
        return Report(samples=dict(metrics), records=list(records))

    def _evaluate(self, session: Session, examples: Sequence[Needle]) -> list[Record]:
        """Ask examples of one shape under all conditions; `session` keeps what it studied."""
        candidates = [example.candidates for example in examples]
        records: list[Record] = [
            {"example": each.number, "gold": each.gold, "changed": each.changed} for each in examples
        ]
        readers, written = _conditions(session, examples)
        for name, reader in readers.items():
            reader.feed(torch.stack([each.prompt if name == IN_CONTEXT else each.question for each in examples]))
            for record, scores in zip(records, score_choices(reader, candidates), strict=True):
                costs = [float(score.nats.sum()) for score in scores]
                chosen = costs.index(min(costs))
                gold = record["changed" if name == CONTRADICTION else "gold"]
                record |= {f"chosen/{name}": chosen, f"right/{name}": int(chosen == gold)}
                if name == ACCURACY:
                    record["nats"] = costs[gold]
        return [record | each for record, each in zip(records, written, strict=True)]

    def _example(self, seed: int, number: int, encode: Encode) -> Needle:
        rng = np.random.default_rng(derive_seed(seed, "needle", number))
        told = draw_facts(rng, 2 * self.num_facts)
        facts, others = told[: self.num_facts], told[self.num_facts :]
        fact = facts[int(rng.integers(self.num_facts))]
        drawn = rng.permutation([value for value in VALUES if value != fact.value]).tolist()
        # the values of the other facts come first: to know what was told, but not of what, does not help
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
    """Return a session that is ready for the question under each condition, and what was written for `accuracy`."""
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
    """Return the words of a text that tells `facts`."""
    return [word for fact in facts for word in fact.sentence]


def encoder(ctx: EvalContext) -> Encode:
    """Return what makes tokens of words: the model's tokenizer, or the numbers of data=facts. Raises ConfigError."""
    tokenizer = ctx.tokenizer
    if tokenizer is None:
        if not isinstance(ctx.data, FactsConfig):
            raise ConfigError(
                f"evals=needle: a model of data={ctx.data.name} knows no words; "
                "ask one that was trained on text, or with data=facts, which experiment=needle does"
            )
        return lambda words, _: torch.from_numpy(numbers_of(words))
    return lambda words, continues: torch.from_numpy(
        tokenizer.encode(" " * continues + " ".join(words).replace(" .", "."))
    )
