"""The needle: who studies the fact knows it, who studies another does not, and what was said last is right."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import memorize_policy, tiny

from nested_learning.command.main import main
from nested_learning.data.tasks.facts import WORDS, FactsConfig
from nested_learning.data.tasks.parity import ParityConfig
from nested_learning.data.text.text import TextConfig
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.errors import ConfigError
from nested_learning.evals.protocol import EvalContext
from nested_learning.evals.retrieval.needle import NeedlePack
from nested_learning.evals.runner import evaluate
from nested_learning.inference.config import MemoryConfig
from nested_learning.inference.session import Session

STUDY = memorize_policy(steps=8, lr=3.0)
PACK = NeedlePack(num_examples=16, num_facts=1, num_candidates=8, batch_size=8)


@pytest.fixture
def ctx(tmp_path):
    """A model that was not trained: what it knows, it studied."""
    model = tiny(Path(), model="transformer", data="parity").model.build(len(WORDS), seed=1)
    policy = MemoryConfig(name="online")
    return EvalContext(model=model, tokenizer=None, data=FactsConfig(), seed=0, policy=policy, run=tmp_path)


def report_on(pack, ctx):
    return evaluate(pack, ctx, ctx.run / "evals/draft.jsonl", {"policy": repr(ctx.policy)}, lambda _: None)


def values(report):
    return {name: metric.value for name, metric in report.metrics.items()}


def test_a_fact_that_was_studied_is_known_and_no_other_and_forgotten_it_was_never_there(ctx):
    asked, memorized = (report_on(PACK, each) for each in (ctx, replace(ctx, policy=STUDY)))
    found = values(memorized)
    assert min(found["accuracy"], found["contradiction"]) > 0.9
    assert max(found["accuracy_wrong_context"], values(asked)["accuracy"]) < 0.4
    assert [row["chosen/accuracy_reset"] for row in memorized.records] == [
        row["chosen/accuracy"] for row in asked.records
    ]
    assert found["memory/mlp/writes"] == STUDY.steps
    assert memorized.metrics["accuracy"].chance == 1 / 8


@pytest.mark.parametrize("nothing", [{"lr": 0.0}, {"surprise_threshold": math.inf}])
def test_study_that_writes_nothing_is_the_baseline_to_the_bit(ctx, nothing):
    asked, memorized = (
        report_on(PACK, each) for each in (ctx, replace(ctx, policy=replace(STUDY, steps=2, **nothing)))
    )
    assert [row["nats"] for row in memorized.records] == [row["nats"] for row in asked.records]
    assert memorized.metrics["memory/mlp/writes"].value == memorized.metrics["memory/mlp/norm"].value == 0


def test_of_several_facts_any_is_asked(ctx):
    places = set()
    for each in replace_facts(3).examples(ctx):
        told = each.context.reshape(3, -1).tolist()
        places.add([line[:5] for line in told].index(each.question.tolist()))
    assert places == {0, 1, 2}


def replace_facts(num_facts):
    return NeedlePack(num_examples=24, num_facts=num_facts, num_candidates=4, batch_size=8)


def test_neither_the_question_nor_the_context_of_another_says_the_answer(ctx):
    for each in replace_facts(2).examples(ctx):
        gold, changed = (each.candidates[place].tolist() for place in (each.gold, each.changed))
        told, question = each.context.tolist(), each.question.tolist()
        assert told[-len(question) :] != question and gold[0] not in question
        assert each.prompt.tolist() == told + question
        # the question and what answers it stand together where it was told, and nowhere else
        assert occurs(question + gold, told) and not occurs(question, each.elsewhere.tolist())
        assert each.change.tolist()[: len(question) + 1] == question + changed != question + gold
        candidates = {candidate.item() for candidate in each.candidates}
        assert len(candidates) == 4 and set(told[5::7]) <= candidates and changed[0] not in told


def occurs(part, whole):
    return any(whole[place : place + len(part)] == part for place in range(len(whole)))


def test_examples_are_those_of_the_seed_whatever_is_asked_at_once(ctx):
    rows = [
        report_on(NeedlePack(num_examples=10, num_facts=1, num_candidates=8, batch_size=size), replace(ctx, run=run))
        for size, run in ((3, ctx.run / "three"), (10, ctx.run / "ten"))
    ]
    assert [row["chosen/accuracy"] for row in rows[0].records] == [row["chosen/accuracy"] for row in rows[1].records]
    assert [row["nats"] for row in rows[0].records] == pytest.approx([row["nats"] for row in rows[1].records], abs=1e-5)
    assert PACK.examples(replace(ctx, seed=1))[0].question.tolist() != PACK.examples(ctx)[0].question.tolist()


def test_a_model_of_text_is_asked_in_letters_of_any_number(ctx):
    model = tiny(Path(), model="transformer", data="parity").model.build(257, seed=1)
    reader = replace(ctx, model=model, tokenizer=ByteTokenizer(), data=TextConfig(path="given"))
    example = PACK.examples(reader)[0]
    answer = reader.tokenizer.decode(example.candidates[example.gold].tolist())
    told = reader.tokenizer.decode(example.context.tolist())
    assert told == reader.tokenizer.decode(example.question.tolist()) + answer + "."
    memorized = report_on(NeedlePack(4, 1, 8, 4), replace(reader, policy=replace(STUDY, steps=1)))
    assert [row["example"] for row in memorized.records] == list(range(4))


def test_what_is_carried_is_known_for_the_next_example(ctx):
    carried, alone = (
        report_on(
            NeedlePack(2, 1, 8, 1),
            replace(ctx, policy=replace(STUDY, steps=1, reset=reset), run=ctx.run / reset),
        )
        for reset in ("carry", "per_example")
    )
    assert carried.records[0] == alone.records[0]
    assert carried.records[1]["nats"] != alone.records[1]["nats"]


def test_a_model_that_knows_no_words_is_told_of_one_that_does(ctx):
    with pytest.raises(ConfigError, match=r"data=parity knows no words; .* experiment=needle"):
        PACK.examples(replace(ctx, data=ParityConfig()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "how"),
    [
        (["model=titans_lmm", "model.memory.chunk=16"], ["memory.levels=[titan]"]),
        (["model=transformer"], ["memory.levels=[mlp]", "memory.steps=20", "memory.lr=0.3"]),
    ],
    ids=["memory", "gradient_steps"],
)
def test_a_model_of_a_minute_knows_what_it_studied(tmp_path, model, how):
    train = ["experiment=needle", *model, f"out={tmp_path}", "name=run", "device=cpu"]
    ask = ["phase=eval", f"checkpoint={tmp_path / 'run'}", "evals=needle", "evals.needle.num_examples=64", *how]
    assert main(train) == 0 == main([*ask, "memory=memorize", "device=cpu"])
    found = json.loads((tmp_path / "run/evals/needle_memorize.json").read_text())
    assert abs(found["baseline"]["accuracy"]["value"] - 0.125) < 3 * 0.042
    assert found["baseline"]["accuracy_in_context"]["value"] >= 0.95
    assert found["metrics"]["accuracy"]["value"] >= 0.75 > 0.30 >= found["metrics"]["accuracy_wrong_context"]["value"]
    assert found["parameters_sha256"] == found["parameters_sha256_after"]


def test_only_contexts_are_memorized_never_a_question_or_an_answer(ctx):
    pack, memorized = replace_facts(2), []

    class Listening(Session):
        """A session that keeps the texts that it memorizes."""

        def memorize(self, text):
            memorized.extend(text.tolist())
            return super().memorize(text)

    examples = pack.examples(ctx)[:9]
    session = Listening(ctx.model, ctx.tokenizer, batch=9, policy=STUDY)
    pack.answer(session, examples)
    allowed = [text.tolist() for each in examples for text in (each.context, each.change, each.elsewhere)]
    assert sorted(memorized) == sorted(allowed)
    for each in examples:
        assert each.elsewhere.tolist() in memorized and each.prompt.tolist() not in memorized
