"""The runner keeps every answer, resumes an interrupted evaluation, and reuses no answers of another configuration."""

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
from nested_learning.evals.runner import evaluate, memory_metrics
from nested_learning.inference.config import MemoryConfig

VOCAB = 23
MEMORIZE = memorize_policy(lr=0.5, chunk=4, surprise_metric="loss")


class Nats:
    """Measures the loss of a text, memorized first where the policy says so. `fails_at` is an example that raises."""

    reads_text = False

    def __init__(self, batch_size=2, fails_at=None):
        self.batch_size, self.fails_at, self.evaluated = batch_size, fails_at, []

    def examples(self, ctx):
        generator = torch.Generator().manual_seed(0)
        return list(enumerate(torch.randint(VOCAB, (5, 9), generator=generator)))

    def answer(self, session, examples):
        numbers, texts = zip(*examples, strict=True)
        if self.fails_at in numbers:
            raise KeyboardInterrupt
        self.evaluated += numbers
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
def test_an_interrupted_evaluation_resumes_after_its_last_full_batch(ctx, fails_at):
    whole = report_on(replace(ctx, run=ctx.run / "whole"))
    with pytest.raises(KeyboardInterrupt):
        report_on(ctx, Nats(fails_at=fails_at))
    with draft(ctx).open("a") as file:
        file.write('[{"example": 9, "na')
    pack, said = Nats(), []
    report = report_on(ctx, pack, said=said)
    assert pack.evaluated == list(range(fails_at // 2 * 2, 5)) and "resuming after" in said[0]
    assert (report.records, report.metrics) == (whole.records, whole.metrics)


def test_a_half_finished_batch_is_evaluated_again_as_a_whole(ctx):
    report_on(ctx, Nats(batch_size=1, fails_at=None))
    lines = draft(ctx).read_text().splitlines(keepends=True)
    draft(ctx).write_text("".join(lines[:4]))
    pack = Nats()
    report_on(ctx, pack)
    assert pack.evaluated == [2, 3, 4]


def test_answers_of_another_configuration_are_not_reused(ctx):
    report_on(ctx)
    pack = Nats()
    report_on(ctx, pack, {"pack": 2})
    assert pack.evaluated == [0, 1, 2, 3, 4]
    assert json.loads(draft(ctx).read_text().splitlines()[0]) == {"pack": 2}


def test_the_batch_size_changes_nothing(ctx):
    one, many = (report_on(replace(ctx, run=ctx.run / str(n)), Nats(n)).records for n in (1, 5))
    assert [row["nats"] for row in one] == pytest.approx([row["nats"] for row in many], rel=1e-5)


def test_a_pack_without_examples_is_refused(ctx):
    pack = Nats()
    pack.examples = lambda ctx: []
    with pytest.raises(DataError, match="no example"):
        report_on(ctx, pack)


def test_a_non_finite_result_stops_the_evaluation_and_earlier_answers_are_kept(ctx):
    report_on(ctx, Nats(batch_size=2))
    lines = draft(ctx).read_text().splitlines(keepends=True)
    draft(ctx).write_text("".join(lines[:3]))
    with torch.no_grad():
        ctx.model.head.weight[0] = torch.nan
    with pytest.raises(DivergedError, match="not finite"):
        report_on(ctx)
    assert draft(ctx).read_text() == "".join(lines[:3])


def test_memory_writes_are_reported_and_the_difference_is_paired(ctx):
    online = report_on(ctx, about={"policy": "online"})
    report = report_on(replace(ctx, policy=MEMORIZE), about={"policy": "memorize"})
    assert report.metrics["memory/titan/writes"].value == 3 and report.metrics["memory/mlp/norm"].value > 0
    paired = differences(report, online)
    pairs = [one["nats"] - other["nats"] for one, other in zip(report.records, online.records, strict=True)]
    assert paired.keys() == {"nats"}
    assert paired["nats"].value == pytest.approx(sum(pairs) / 5)
    assert paired["nats"].stderr == pytest.approx(float(torch.tensor(pairs).std() / 5**0.5), rel=1e-5)


def test_with_reset_carry_every_example_depends_on_those_before_it(ctx):
    alone = report_on(replace(ctx, policy=MEMORIZE), Nats(1)).records
    carried = report_on(replace(ctx, policy=replace(MEMORIZE, reset="carry")), Nats(4), {"policy": "carry"}).records
    assert carried[0] == alone[0]
    assert all(one["nats"] != other["nats"] for one, other in zip(carried[1:], alone[1:], strict=True))


def test_examples_with_nothing_to_memorize_do_not_hide_what_the_others_wrote():
    wrote, nothing = [{"memory/titan/writes": 2.0, "nats": 1.0}], [{"nats": 1.0}]
    for answers in ([nothing, wrote, wrote], [wrote, nothing, wrote], [wrote, wrote, nothing]):
        metric = memory_metrics(answers)["memory/titan/writes"].metric()
        assert (metric.value, metric.n) == (2.0, 2)
