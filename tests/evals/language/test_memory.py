"""Memory metrics along the context, in an evaluation of a trained model and logged during training."""

import json
from dataclasses import replace
from statistics import fmean

import pytest
import torch
from tiny import reading, tiny, trace

from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.errors import ConfigError
from nested_learning.evals.language.config import MemoryPackConfig
from nested_learning.evals.language.memory import MemoryPack
from nested_learning.evals.protocol import EvalContext
from nested_learning.evals.runner import evaluate
from nested_learning.inference.config import MemoryConfig
from nested_learning.phase.eval import run as run_eval
from nested_learning.phase.train import run

METRICS = {"norm", "rank", "surprise", "retention"}


def ctx(folder, model="hope", policy="online", **given):
    config = tiny(folder, model=model, **given)
    return EvalContext(
        model=config.model.build(257, seed=1),
        tokenizer=ByteTokenizer(),
        data=config.data,
        seed=0,
        policy=MemoryConfig(name=policy),
        run=folder,
    )


def report_on(context, **options):
    return evaluate(MemoryPack(**options), context, context.run / "evals/draft.jsonl", {})


def test_every_metric_of_every_memory_has_an_error_at_every_position(tmp_path):
    report = report_on(ctx(tmp_path), length_factor=4, num_rows=3, batch_size=2)
    names = {tuple(name.split("/")) for name in report.metrics}
    assert names == {
        (memory, metric, position)
        for memory in ("key", "value", "gates", "read")
        for metric in METRICS
        for position in ("0-32", "32-128")
    }
    assert all(metric.n == 3 and metric.stderr is not None for metric in report.metrics.values())
    assert len(report.records) == 3 * 2 * 4 * 2
    assert {(row["row"], row["layer"]) for row in report.records} == {
        (row, layer) for row in range(3) for layer in (0, 1)
    }


def test_a_metric_is_the_mean_over_layers_and_rows_of_the_state(tmp_path):
    context = ctx(tmp_path, "titans_lmm")
    report = report_on(context, length_factor=1, num_rows=5, batch_size=5)
    source = context.open_source()
    count = source.num_rows("validation")
    tokens = torch.stack([torch.from_numpy(source.row("validation", 0, i * count // 5).tokens) for i in range(5)])
    with torch.no_grad():
        _, state = context.model(tokens.long(), context.model.init_state(5))
    norms = [block.mixer.memory.weight[0].flatten(1).norm(dim=1) for block in state]
    assert report.metrics["read/norm/0-32"].value == pytest.approx(torch.stack(norms).mean().item(), rel=1e-5)
    of_row = [row["norm"] for row in report.records if row["row"] == 4]
    assert of_row == pytest.approx([norm[4].item() for norm in norms], rel=1e-5)


def test_the_batch_size_changes_nothing(tmp_path):
    context = ctx(tmp_path)
    one, many = (
        report_on(replace(context, run=tmp_path / str(size)), length_factor=1, num_rows=5, batch_size=size).metrics
        for size in (1, 5)
    )
    assert {name: metric.value for name, metric in one.items()} == pytest.approx(
        {name: metric.value for name, metric in many.items()}, rel=1e-4
    )


def test_curves_follow_the_positions(tmp_path):
    report = report_on(ctx(tmp_path), length_factor=4, num_rows=2, batch_size=2)
    assert set(report.curves) == METRICS
    points = report.curves["surprise"]["read"]
    metrics = [report.metrics[f"read/surprise/{position}"] for position in ("0-32", "32-128")]
    assert points == [(end, each.value, each.stderr) for end, each in zip((32, 128), metrics, strict=True)]


@pytest.mark.parametrize(
    ("given", "factor", "problem"),
    [
        ({"policy": "frozen"}, 1, "use memory=online"),
        ({"model": "transformer"}, 1, "no memory that writes"),
        ({"data": "parity"}, 2, r"use evals\.memory\.length_factor=1"),
    ],
)
def test_invalid_settings_are_refused_in_one_line(tmp_path, given, factor, problem):
    with pytest.raises(ConfigError, match=problem):
        report_on(ctx(tmp_path, **given), length_factor=factor, num_rows=2, batch_size=2)


def test_a_key_below_one_is_refused():
    with pytest.raises(ConfigError, match=r"evals\.memory\.num_rows=0"):
        MemoryPackConfig(name="memory", length_factor=1, num_rows=0, batch_size=1)


@pytest.mark.parametrize("model", ["hope", "titans_lmm", "transformer"])
def test_training_logs_the_memory_metrics_at_every_validation(tmp_path, model):
    directory = run(tiny(tmp_path, model=model, steps=2, val_every=1)).directory
    lines = trace(directory)
    memories = {"hope": ("key", "value", "gates", "read"), "titans_lmm": ("read",), "transformer": ()}[model]
    expected = {f"memory/{memory}/{metric}" for memory in memories for metric in METRICS}
    for line in lines:
        metrics = {name for name in line if name.startswith("memory/")}
        assert metrics == (expected if line["split"] == "validation" else set())
    if expected:
        values = [line["memory/read/norm"] for line in lines if line["split"] == "validation"]
        assert len(values) == 3 and min(values) > 0 and len(set(values)) > 1


def test_levels_that_learn_online_log_their_rank_next_to_the_validation_metrics(tmp_path):
    levels = "[{name: quick, period: 8, context: {rule: gd, lr: 0.1}}, {name: slow, period: 0}]"
    config = tiny(tmp_path, model="hope_attention", objective="online", steps=1, model__levels=levels)
    line = [line for line in trace(run(config).directory) if line["split"] == "validation"][-1]
    assert {name for name in line if name.startswith("memory/")} == {"memory/quick/rank"}
    assert line["memory/quick/rank"] >= 1 and "val/memory/quick/norm" in line


def test_an_evaluation_writes_a_report_records_and_a_plot(tmp_path):
    trained = run(tiny(tmp_path, model="titans_lmm", steps=1)).directory
    config = reading(trained, "eval", device="cpu", evals="[memory]")
    config.evals["memory"].num_rows = 3
    run_eval(config)
    report = json.loads((trained / "evals/memory.json").read_text())
    rows = [json.loads(line) for line in (trained / "evals/memory.jsonl").read_text().splitlines()]
    norms = [row["norm"] for row in rows if row["end"] == 32]
    assert report["metrics"]["read/norm/0-32"]["value"] == pytest.approx(fmean(norms))
    assert (trained / "evals/memory.png").read_bytes().startswith(b"\x89PNG")
