"""The driver keeps every answer, goes on where it was interrupted, and does not take answers to another question."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import memorize_policy, tiny

from nested_learning.errors import DataError, DivergedError
from nested_learning.evals.files import differences
from nested_learning.evals.metrics import Samples
from nested_learning.evals.protocol import EvalContext, Report
from nested_learning.evals.runner import evaluate
from nested_learning.inference.config import MemoryConfig

VOCAB = 23
STUDY = memorize_policy(lr=0.5, chunk=4, surprise_metric="loss")


class Nats:
    """Asks what a text costs; where it may be studied, it was. `fails_at` is an example that ends the program."""

    reads_text = False

    def __init__(self, batch_size=2, fails_at=None):
        self.batch_size, self.fails_at, self.asked = batch_size, fails_at, []

    def examples(self, ctx):
        generator = torch.Generator().manual_seed(0)
        return list(enumerate(torch.randint(VOCAB, (5, 9), generator=generator)))

    def answer(self, session, examples):
        numbers, texts = zip(*examples, strict=True)
        if self.fails_at in numbers:
            raise KeyboardInterrupt
        self.asked += numbers
        texts, memorized = torch.stack(texts), [{} for _ in numbers]
        if session.memorizes:
            memorized = session.memorize(texts).records()
        session.feed(texts[:, :1])
        nats = session.score(texts[:, 1:]).sum(1).tolist()
        return [[{"example": n, "nats": x} | row] for n, x, row in zip(numbers, nats, memorized, strict=True)]

    def summarise(self, ctx, records):
        return Report(samples={"nats": Samples.mean([row["nats"] for row in records], "lower")}, records=list(records))


@pytest.fixture
def ctx(tmp_path):
    config = tiny(Path(), model="titans_lmm", data="parity")
    model = config.model.build(VOCAB, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return EvalContext(
        model=model, tokenizer=None, data=config.data, seed=0, policy=MemoryConfig(name="online"), run=tmp_path
    )


def draft(ctx):
    return ctx.run / "evals" / "draft.jsonl"


def report_on(ctx, pack=None, about=None, said=None):
    return evaluate(pack or Nats(), ctx, draft(ctx), about or {"pack": 1}, (said if said is not None else []).append)


@pytest.mark.parametrize("fails_at", [2, 3, 4])
def test_an_interrupted_evaluation_goes_on_where_it_was(ctx, fails_at):
    whole = report_on(replace(ctx, run=ctx.run / "whole"))
    with pytest.raises(KeyboardInterrupt):
        report_on(ctx, Nats(fails_at=fails_at))
    with draft(ctx).open("a") as file:
        file.write('[{"example": 9, "na')
    pack, said = Nats(), []
    report = report_on(ctx, pack, said=said)
    assert pack.asked == list(range(fails_at // 2 * 2, 5)) and "resuming after" in said[0]
    assert (report.records, report.metrics) == (whole.records, whole.metrics)


def test_answers_of_half_a_batch_are_asked_again_so_that_batches_are_what_they_were(ctx):
    report_on(ctx, Nats(batch_size=1, fails_at=None))
    lines = draft(ctx).read_text().splitlines(keepends=True)
    draft(ctx).write_text("".join(lines[:4]))
    pack = Nats()
    report_on(ctx, pack)
    assert pack.asked == [2, 3, 4]


def test_answers_to_another_question_are_not_taken(ctx):
    report_on(ctx)
    pack = Nats()
    report_on(ctx, pack, {"pack": 2})
    assert pack.asked == [0, 1, 2, 3, 4]
    assert json.loads(draft(ctx).read_text().splitlines()[0]) == {"pack": 2}


def test_the_batch_size_changes_nothing(ctx):
    one, many = (report_on(replace(ctx, run=ctx.run / str(n)), Nats(n)).records for n in (1, 5))
    assert [row["nats"] for row in one] == pytest.approx([row["nats"] for row in many], rel=1e-5)


def test_nothing_to_ask_is_told(ctx):
    pack = Nats()
    pack.examples = lambda ctx: []
    with pytest.raises(DataError, match="no example"):
        report_on(ctx, pack)


def test_numbers_that_are_none_stop_the_evaluation_and_what_was_answered_stays(ctx):
    report_on(ctx, Nats(batch_size=2))
    lines = draft(ctx).read_text().splitlines(keepends=True)
    draft(ctx).write_text("".join(lines[:3]))
    with torch.no_grad():
        ctx.model.head.weight[0] = torch.nan
    with pytest.raises(DivergedError, match="not finite"):
        report_on(ctx)
    assert draft(ctx).read_text() == "".join(lines[:3])


def test_what_study_wrote_is_reported_and_the_difference_is_of_pairs(ctx):
    online = report_on(ctx, about={"policy": "online"})
    report = report_on(replace(ctx, policy=STUDY), about={"policy": "memorize"})
    assert report.metrics["memory/titan/writes"].value == 3 and report.metrics["memory/mlp/norm"].value > 0
    found = differences(report, online)
    pairs = [one["nats"] - other["nats"] for one, other in zip(report.records, online.records, strict=True)]
    assert found.keys() == {"nats"}
    assert found["nats"].value == pytest.approx(sum(pairs) / 5)
    assert found["nats"].stderr == pytest.approx(float(torch.tensor(pairs).std() / 5**0.5), rel=1e-5)


def test_what_is_carried_makes_every_example_know_those_before_it(ctx):
    alone = report_on(replace(ctx, policy=STUDY), Nats(1)).records
    carried = report_on(replace(ctx, policy=replace(STUDY, reset="carry")), Nats(4), {"policy": "carry"}).records
    assert carried[0] == alone[0]
    assert all(one["nats"] != other["nats"] for one, other in zip(carried[1:], alone[1:], strict=True))
