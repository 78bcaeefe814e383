"""The packs measure what they say, on real data and real models."""

from pathlib import Path

import pytest
import torch
from tiny import tiny

from nested_learning.data.tasks.parity import ParityConfig
from nested_learning.data.text.text import TextConfig
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.evals.language.validation import ValidationPack
from nested_learning.evals.protocol import EvalContext
from nested_learning.evals.reading import buckets
from nested_learning.evals.runner import evaluate
from nested_learning.inference.config import MemoryConfig
from nested_learning.objective.next_token import NextToken
from nested_learning.train.validation import validate
from nested_learning.world.joining import open_world

MODEL = tiny(Path(), model="titans_lmm", data="parity").model


def text_subject(tmp_path, policy="online"):
    # many short documents, so that targets that are no text are among those measured
    (tmp_path / "texts").mkdir(exist_ok=True)
    for name in range(80):
        (tmp_path / "texts" / f"{name}.txt").write_text(
            "".join(f"{line}: fox {line * name}\n" for line in range(name % 5 + 1))
        )
    data = TextConfig(name="text", path=str(tmp_path / "texts"), seq_len=64, batch_size=4, val_rows=6, val_fraction=0.4)
    return EvalContext(
        model=MODEL.build(257, seed=1),
        tokenizer=ByteTokenizer(),
        data=data,
        seed=0,
        policy=MemoryConfig(name=policy),
        run=tmp_path,
    )


def parity_subject(tmp_path):
    data = ParityConfig(name="parity", batch_size=4, val_rows=6)
    vocab_size = data.build(0).vocab_size
    return EvalContext(
        model=MODEL.build(vocab_size, seed=1),
        tokenizer=None,
        data=data,
        seed=0,
        policy=MemoryConfig(name="online"),
        run=tmp_path,
    )


def report_on(pack, ctx):
    return evaluate(pack, ctx, ctx.run / "evals/draft.jsonl", {"policy": ctx.policy.name})


def values(report):
    return {name: metric.value for name, metric in report.metrics.items()}


@pytest.mark.parametrize("task", ["text", "parity"])
def test_validation_gives_the_metrics_of_training(tmp_path, task):
    ctx = text_subject(tmp_path) if task == "text" else parity_subject(tmp_path)
    with open_world("cpu") as world:
        expected = validate(ctx.model, NextToken(), ctx.open_source(), num_rows=6, batch_size=3, world=world)
    report = report_on(ValidationPack(3, resets=False), ctx)
    assert {f"val/{name}": value for name, value in values(report).items()} == pytest.approx(expected, rel=1e-5)
    assert all(metric.n == 6 and metric.stderr is not None for metric in report.metrics.values())
    assert len(report.records) == 6


def test_position_buckets_double_in_length():
    assert buckets(1024) == [(0, 32), (32, 128), (128, 256), (256, 512), (512, 1024)]
    assert buckets(600) == [(0, 32), (32, 128), (128, 256), (256, 512), (512, 600)]
    assert buckets(32) == [(0, 32)]
    assert buckets(20) == [(0, 20)]


def test_the_memory_policy_reaches_the_model(tmp_path):
    with torch.no_grad():
        online, frozen = (text_subject(tmp_path, policy) for policy in ("online", "frozen"))
        for parameter in online.model.parameters():
            parameter.mul_(3)
        frozen.model.load_state_dict(online.model.state_dict())
    one, other = (report_on(ValidationPack(3, resets=False), ctx) for ctx in (online, frozen))
    assert values(one) != pytest.approx(values(other), rel=1e-4)
