"""Translation: lesson and question, with and without the lesson, and after memorizing it."""

import json
from pathlib import Path

import pytest
from oracle import Oracle
from shared import shared
from tiny import tiny

from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.errors import DataError
from nested_learning.evals.language.translation import Translation
from nested_learning.evals.protocol import EvalContext
from nested_learning.evals.runner import evaluate
from nested_learning.inference.config import MemorizeConfig, MemoryConfig

pytest.importorskip("sacrebleu")

BYTES = ByteTokenizer()
TINY = tiny(Path(), model="titans_lmm", data="parity")
MODEL = TINY.model.build(257, seed=1).eval()
LESSONS = {"Adna": "tebu: taro\nngase: water", "Vaomi": "setima: blue"}


def ctx(tmp_path, model=MODEL, reset=None):
    how = MemoryConfig(name="online")
    if reset is not None:
        how = MemorizeConfig(
            name="memorize", steps=1, lr=1.0, chunk=16, surprise_threshold=None, surprise_metric="l2",
            levels=["all"], layers=None, reset=reset,
        )  # fmt: skip
    return EvalContext(model=model, tokenizer=BYTES, data=TINY.data, seed=0, policy=how, run=tmp_path)


def write(folder, *questions):
    lines = [
        {"context": f"{LESSONS[name]}\n\nNow translate.\n{name}: {word}\nENGLISH:", "continuation": right}
        for name, word, right in questions
    ]
    path = folder / "lessons.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def report_on(pack, ctx):
    (ctx.run / "draft.jsonl").unlink(missing_ok=True)
    return evaluate(pack, ctx, ctx.run / "draft.jsonl", {})


def values(report):
    return {name: metric.value for name, metric in report.metrics.items()}


def test_a_model_with_the_lesson_translates_and_one_with_the_question_alone_does_not(tmp_path):
    path = write(tmp_path, ("Adna", "tebu", "taro"), ("Vaomi", "setima", "blue"), ("Adna", "ngase", "water"))
    pack = Translation(path, 2, None, 20)
    questions = pack.examples(ctx(tmp_path))
    known = [
        ([BYTES.end, *each.prompt.tolist()], [*each.answer.tolist(), *BYTES.encode("\nmore").tolist()])
        for each in questions
    ]
    report = report_on(pack, ctx(tmp_path, Oracle(known)))
    assert [row["text"] for row in report.records] == ["taro", "blue", "water"]
    metrics = values(report)
    assert (metrics["chrf"], metrics["exact"], metrics["exact_question_only"]) == (100.0, 1.0, 0.0)
    assert metrics["bpb"] < 1e-3 and metrics["bpb_question_only"] == pytest.approx(8.0056, abs=1e-3)
    assert "chrf_another_lesson" not in metrics


def test_memorizing_the_lesson_helps_the_question_read_alone_and_has_controls(tmp_path):
    path = write(tmp_path, ("Adna", "tebu", "taro"), ("Vaomi", "setima", "blue"))
    pack = Translation(path, 2, None, 2)
    reports = [report_on(pack, ctx(tmp_path, reset=how)) for how in (None, "per_example")]
    online, memorized = map(values, reports)
    assert online["bpb_question_only"] != pytest.approx(memorized["bpb_question_only"], rel=1e-4)
    different = {memorized[f"bpb{name}"] for name in ("", "_question_only", "_another_lesson", "_after_another")}
    assert len(different) == 4
    # alone, each after the other's lesson: what both sentences together say
    alone = pack.examples(ctx(tmp_path))[0]
    session = ctx(tmp_path, reset="per_example").open_session(1, reads_text=True)
    session.memorize(alone.another)
    session.feed(alone.question)
    nats = session.score(alone.answer).sum().item()
    assert reports[1].records[0]["nats_another_lesson"] == pytest.approx(nats, rel=1e-4)


def test_with_reset_carry_there_are_no_controls(tmp_path):
    path = write(tmp_path, ("Adna", "tebu", "taro"), ("Vaomi", "setima", "blue"))
    metrics = values(report_on(Translation(path, 2, None, 2), ctx(tmp_path, reset="carry")))
    assert "chrf_question_only" in metrics and "chrf_another_lesson" not in metrics


def test_big_bench_prompts_are_split_into_lesson_and_question(tmp_path):
    pack = Translation(shared("icl/bigbench_conlang_translation.jsonl"), 2, None, 160)
    questions = pack.examples(ctx(tmp_path))
    first = questions[0]
    assert len(questions) == 164 and first.right == "The child grows taro."
    assert BYTES.decode(first.question.tolist()).startswith("Now, translate the following from Adna to English:")
    assert BYTES.decode(first.lesson.tolist()).endswith("He brings the palm tree.")
    languages = {BYTES.decode(each.lesson.tolist()).split(" and their")[0] for each in questions}
    assert len(languages) == 8
    assert all(each.lesson.tolist() != each.another.tolist() for each in questions)
    assert max(len(each.answer) for each in questions) <= 160


def test_a_file_without_lessons_is_refused(tmp_path):
    path = tmp_path / "lessons.jsonl"
    path.write_text('{"context": "no lesson, no empty line", "continuation": "x"}\n')
    with pytest.raises(DataError, match="question 1: its context should be a lesson"):
        Translation(path, 2, None, 8).examples(ctx(tmp_path))
