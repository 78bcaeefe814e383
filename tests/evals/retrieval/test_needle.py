"""Needle: a memorized fact is recalled, another is not, and the last statement of a fact wins."""

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

MEMORIZE = memorize_policy(steps=8, lr=3.0)
PACK = NeedlePack(num_examples=16, num_facts=1, num_candidates=8, batch_size=8)


@pytest.fixture
def ctx(tmp_path):
    """A model that was not trained: all that it knows, it has memorized."""
    model = tiny(Path(), model="transformer", data="parity").model.build(len(WORDS), seed=1)
    policy = MemoryConfig(name="online")
    return EvalContext(model=model, tokenizer=None, data=FactsConfig(), seed=0, policy=policy, run=tmp_path)


def report_on(pack, ctx):
    return evaluate(pack, ctx, ctx.run / "evals/draft.jsonl", {"policy": repr(ctx.policy)}, lambda _: None)


def values(report):
    return {name: metric.value for name, metric in report.metrics.items()}


def test_a_memorized_fact_is_recalled_another_is_not_and_clearing_the_memory_restores_the_baseline(ctx):
    online, memorized = (report_on(PACK, each) for each in (ctx, replace(ctx, policy=MEMORIZE)))
    metrics = values(memorized)
    assert min(metrics["accuracy"], metrics["contradiction"]) > 0.9
    assert max(metrics["accuracy_wrong_context"], values(online)["accuracy"]) < 0.4
    assert [row["chosen/accuracy_reset"] for row in memorized.records] == [
        row["chosen/accuracy"] for row in online.records
    ]
    assert metrics["memory/mlp/writes"] == MEMORIZE.steps
    assert memorized.metrics["accuracy"].chance == 1 / 8


@pytest.mark.parametrize("nothing", [{"lr": 0.0}, {"surprise_threshold": math.inf}])
def test_memorizing_without_a_write_equals_the_baseline_bit_for_bit(ctx, nothing):
    online, memorized = (
        report_on(PACK, each) for each in (ctx, replace(ctx, policy=replace(MEMORIZE, steps=2, **nothing)))
    )
    assert [row["nats"] for row in memorized.records] == [row["nats"] for row in online.records]
    assert memorized.metrics["memory/mlp/writes"].value == memorized.metrics["memory/mlp/norm"].value == 0


def test_any_of_several_facts_may_be_queried(ctx):
    places = set()
    for each in replace_facts(3).examples(ctx):
        context = each.context.reshape(3, -1).tolist()
        places.add([line[:5] for line in context].index(each.question.tolist()))
    assert places == {0, 1, 2}


def replace_facts(num_facts):
    return NeedlePack(num_examples=24, num_facts=num_facts, num_candidates=4, batch_size=8)


def test_neither_the_question_nor_another_context_contains_the_answer(ctx):
    for each in replace_facts(2).examples(ctx):
        gold, changed = (each.candidates[place].tolist() for place in (each.gold, each.changed))
        context, question = each.context.tolist(), each.question.tolist()
        assert context[-len(question) :] != question and gold[0] not in question
        assert each.prompt.tolist() == context + question
        # the question and what answers it stand together once in the context, and nowhere else
        assert occurs(question + gold, context) and not occurs(question, each.elsewhere.tolist())
        assert each.change.tolist()[: len(question) + 1] == question + changed != question + gold
        candidates = {candidate.item() for candidate in each.candidates}
        assert len(candidates) == 4 and set(context[5::7]) <= candidates and changed[0] not in context


def occurs(part, whole):
    return any(whole[place : place + len(part)] == part for place in range(len(whole)))


def test_examples_depend_on_the_seed_and_not_on_the_batch(ctx):
    rows = [
        report_on(NeedlePack(num_examples=10, num_facts=1, num_candidates=8, batch_size=size), replace(ctx, run=run))
        for size, run in ((3, ctx.run / "three"), (10, ctx.run / "ten"))
    ]
    assert [row["chosen/accuracy"] for row in rows[0].records] == [row["chosen/accuracy"] for row in rows[1].records]
    assert [row["nats"] for row in rows[0].records] == pytest.approx([row["nats"] for row in rows[1].records], abs=1e-5)
    assert PACK.examples(replace(ctx, seed=1))[0].question.tolist() != PACK.examples(ctx)[0].question.tolist()


def test_a_text_model_answers_with_words_of_several_tokens(ctx):
    model = tiny(Path(), model="transformer", data="parity").model.build(257, seed=1)
    reader = replace(ctx, model=model, tokenizer=ByteTokenizer(), data=TextConfig(path="given"))
    example = PACK.examples(reader)[0]
    answer = reader.tokenizer.decode(example.candidates[example.gold].tolist())
    context = reader.tokenizer.decode(example.context.tolist())
    assert context == reader.tokenizer.decode(example.question.tolist()) + answer + "."
    memorized = report_on(NeedlePack(4, 1, 8, 4), replace(reader, policy=replace(MEMORIZE, steps=1)))
    assert [row["example"] for row in memorized.records] == list(range(4))


def test_with_reset_carry_a_fact_is_known_in_the_next_example(ctx):
    carried, alone = (
        report_on(
            NeedlePack(2, 1, 8, 1),
            replace(ctx, policy=replace(MEMORIZE, steps=1, reset=reset), run=ctx.run / reset),
        )
        for reset in ("carry", "per_example")
    )
    assert carried.records[0] == alone.records[0]
    assert carried.records[1]["nats"] != alone.records[1]["nats"]


def test_a_model_without_words_is_refused_and_the_error_names_suitable_data(ctx):
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
def test_a_model_trained_for_a_minute_recalls_what_it_memorized(tmp_path, model, how):
    train = ["experiment=needle", *model, f"out={tmp_path}", "name=run", "device=cpu"]
    evaluation = ["phase=eval", f"checkpoint={tmp_path / 'run'}", "evals=needle", "evals.needle.num_examples=64", *how]
    assert main(train) == 0 == main([*evaluation, "memory=memorize", "device=cpu"])
    report = json.loads((tmp_path / "run/evals/needle_memorize.json").read_text())
    assert abs(report["baseline"]["accuracy"]["value"] - 0.125) < 3 * 0.042
    assert report["baseline"]["accuracy_in_context"]["value"] >= 0.95
    assert report["metrics"]["accuracy"]["value"] >= 0.75 > 0.30 >= report["metrics"]["accuracy_wrong_context"]["value"]
    assert report["parameters_sha256"] == report["parameters_sha256_after"]


def test_only_contexts_are_memorized_never_a_question_or_an_answer(ctx):
    pack, memorized = replace_facts(2), []

    class Listening(Session):
        """A session that keeps the texts that it memorizes."""

        def memorize(self, text):
            memorized.extend(text.tolist())
            return super().memorize(text)

    examples = pack.examples(ctx)[:9]
    session = Listening(ctx.model, ctx.tokenizer, batch=9, policy=MEMORIZE)
    pack.answer(session, examples)
    allowed = [text.tolist() for each in examples for text in (each.context, each.change, each.elsewhere)]
    assert sorted(memorized) == sorted(allowed)
    for each in examples:
        assert each.elsewhere.tolist() in memorized and each.prompt.tolist() not in memorized
