"""Forgetting by weights over a trained sequence of domains, and by memories that read it."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from tiny import tiny
from torch.nn import functional as F

from nested_learning import checkpoint
from nested_learning.command.main import main
from nested_learning.errors import CheckpointError, ConfigError
from nested_learning.evals.continual.continual import Continual
from nested_learning.evals.continual.continual_memory import ContinualMemory
from nested_learning.evals.continual.weights import all_levels, count_updates, drift
from nested_learning.evals.protocol import EvalContext
from nested_learning.evals.runner import evaluate
from nested_learning.hub.open_run import open_trained
from nested_learning.inference.config import MemorizeConfig, MemoryConfig
from nested_learning.inference.session import Session
from nested_learning.phase.train import run

TEXTS = {
    "numbers": "{0} {1} {0} {1}\n",
    "letters": "the {0}th fox says {1}\n",
    "code": "def f{0}(x):\n    return {1}\n",
}
STEPS = 4


def configure(folder, **given):
    for name, form in TEXTS.items():
        (folder / f"{name}.txt").write_text("".join(form.format(i, i * i % 97) for i in range(200)))
    sources = ",".join(f"{name}:{{name:text,path:{name}.txt}}" for name in TEXTS)
    values = {
        "data": "sequence", "data__sources": f"{{{sources}}}", "data__folder": str(folder), "data__steps_each": STEPS,
        "data__seq_len": 32, "steps": 3 * STEPS, "keep_every": STEPS, "val_every": 100, "model": "titans_lmm",
        "model__levels": "[{name: fast, period: 0}, {name: slow, period: 500}, {name: still, period: 9999999}]",
    }  # fmt: skip
    return tiny(folder, **(values | given))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("continual")
    return run(configure(folder, name="run", optim__ema=0.5)).directory


def ctx(directory, **given):
    opened = open_trained(directory, "cpu")
    values = {
        "model": opened.model, "tokenizer": opened.tokenizer, "data": opened.config.data, "seed": opened.config.seed,
        "policy": MemoryConfig(name="online"), "run": opened.run,
    }  # fmt: skip
    return EvalContext(**(values | given))


def report_on(pack, context):
    draft = context.run / "evals/draft.jsonl"
    draft.unlink(missing_ok=True)
    return evaluate(pack, context, draft, {})


def memorize(**given):
    values = {
        "name": "memorize", "steps": 1, "lr": 0.1, "chunk": 16, "surprise_threshold": None, "surprise_metric": "l2",
        "levels": ["all"], "layers": None, "reset": "per_example",
    }  # fmt: skip
    return MemorizeConfig(**(values | given))


def cost(model, rows):
    """Bits per byte of rows of ASCII, from empty states."""
    tokens, targets, _ = (torch.stack(list(map(torch.from_numpy, column))) for column in zip(*rows, strict=True))
    with torch.no_grad():
        logits, _ = model(tokens, model.init_state(len(tokens)))
    nats = F.cross_entropy(logits.mT, targets.clamp(min=0), reduction="none")
    return (nats[(targets >= 0) & (targets < 256)].mean() / math.log(2)).item()


@pytest.mark.parametrize("batch_size", [5, 64])
def test_each_cell_is_the_loss_on_one_domain_after_training_on_another(trained, batch_size):
    context = ctx(trained)
    report = report_on(Continual(4, batch_size, resets=False), context)
    source = context.open_source()
    for stage in range(4):
        model = open_trained(trained / "checkpoints" / f"step_{stage * STEPS:08d}", "cpu").model
        for name, part in source.sources.items():
            rows = [part.row("validation", 0, i * part.num_rows("validation") // 4) for i in range(4)]
            assert report.metrics[f"bpb/{stage}/{name}"].value == pytest.approx(cost(model, rows), rel=1e-5)
    assert len(report.records) == 4 * 3 * 4
    assert report.metrics["bpb/0/code"].value > report.metrics["learned"].value
    assert set(report.curves) == {"bits per byte", "drift"} and list(report.grids) == ["bits per byte"]


def test_averaged_weights_are_evaluated_on_request(trained):
    one, other = (
        report_on(Continual(2, 6, resets=False), ctx(trained, weights=kind)).metrics for kind in ("model", "ema")
    )
    assert one["bpb/1/code"] != other["bpb/1/code"]


def test_a_level_drifts_by_its_clock(trained):
    model = open_trained(trained, "cpu").model
    saved = [trained / "checkpoints" / f"step_{step:08d}" for step in (0, STEPS, 2 * STEPS, 3 * STEPS)]
    far = drift(model, saved)
    assert set(far) == {"fast", "slow", "still", "rest"} and all(each[0] == 0 for each in far.values())
    assert far["still"] == [0.0] * 4 and 0 < far["slow"][-1] < far["fast"][-1]
    # 128 tokens a step: 512 tokens a domain, and the first 500 are full at its last step
    assert count_updates(all_levels(model), saved[-1]) == {"fast": 12, "slow": 3, "still": 0}
    for stage in (1, 2, 3):
        assert count_updates(all_levels(model), saved[stage])["slow"] == stage
        assert far["slow"][stage] != far["slow"][stage - 1]


def test_the_evaluation_is_repeatable_and_prints_its_progress(trained, capsys):
    line = ["phase=eval", f"checkpoint={trained}", "device=cpu", "evals.continual.num_rows=1"]
    path, metrics = trained / "evals" / "continual.json", []
    for _ in range(2):
        assert main([*line, "evals=[continual]"]) == 0
        metrics.append(json.loads(path.read_text())["metrics"])
    assert (
        metrics[0] == metrics[1] and path.with_suffix(".csv").exists() and "continual.json" in capsys.readouterr().out
    )


def test_a_run_without_kept_checkpoints_is_refused_and_the_error_names_the_fix(trained, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    shutil.rmtree(copy / "checkpoints" / f"step_{STEPS:08d}")
    with pytest.raises(CheckpointError, match=r"no checkpoint after numbers; train .* steps=12 with keep_every=4"):
        report_on(Continual(2, 4, resets=False), ctx(copy))


@pytest.mark.parametrize("pack", [Continual(2, 4, resets=False), ContinualMemory(2, 2, 2, 2)])
def test_data_other_than_a_sequence_of_domains_is_refused(trained, tmp_path, pack):
    other = tiny(tmp_path).data
    with pytest.raises(
        ConfigError, match=r"evals=continual.*: data=text is not a sequence of domains; .* data=sequence"
    ):
        report_on(pack, ctx(trained, data=other))


def test_a_memory_is_not_carried_from_weights_to_weights(trained):
    with pytest.raises(ConfigError, match=r"use memory\.reset=per_example, or evals=continual_memory"):
        report_on(Continual(2, 4, resets=False), ctx(trained, policy=memorize(reset="carry")))


def test_domains_are_evaluated_in_the_order_of_training(trained):
    context = ctx(trained)
    with pytest.raises(ConfigError, match=r"data\.order=reverse, but the run was trained with data\.order=forward"):
        report_on(Continual(2, 4, resets=False), replace(context, data=replace(context.data, order="reverse")))


def without_memory(folder):
    config = configure(folder, model="transformer", model__levels="[{name: mlp, period: 0}]")
    model = config.model.build(257, 0)
    tokenizer = config.data.build(0).tokenizer
    return EvalContext(
        model=model, tokenizer=tokenizer, data=config.data, seed=0, policy=MemoryConfig(name="online"), run=folder
    )


def test_a_model_without_memory_is_unchanged_after_every_domain(tmp_path):
    report = report_on(ContinualMemory(2, 2, 2, 2), without_memory(tmp_path))
    for name in TEXTS:
        costs = {report.metrics[f"bpb/{stage}/{name}"].value for stage in range(4)}
        assert len(costs) == 1
    assert report.metrics["forgetting"].value == report.metrics["bwt"].value == 0


def test_memorizing_changes_the_loss_and_not_the_parameters(tmp_path):
    online = without_memory(tmp_path)
    before = [parameter.clone() for parameter in online.model.parameters()]
    report = report_on(ContinualMemory(2, 8, 2, 2), replace(online, policy=memorize(lr=0.3)))
    assert report.metrics["bpb/1/numbers"].value < report.metrics["bpb/0/numbers"].value
    assert report.metrics["memory/mlp/writes"].value > 0
    assert all(map(torch.equal, before, online.model.parameters()))
    nothing = report_on(ContinualMemory(2, 2, 2, 2), replace(online, policy=memorize(lr=0.0)))
    assert nothing.metrics["bpb/3/code"].value == nothing.metrics["bpb/0/code"].value


def test_streams_do_not_affect_each_other(trained):
    context = ctx(trained)
    together, alone = (report_on(ContinualMemory(3, 3, 2, size), context).records for size in (3, 1))
    assert len(together) == 3 * 4 * 3
    order = [(row["stream"], row["stage"], row["domain"]) for row in alone]
    assert order == [(row["stream"], row["stage"], row["domain"]) for row in together]
    for one, other in zip(together, alone, strict=True):
        assert one["text_nats"] == pytest.approx(other["text_nats"], rel=1e-4)
    assert len({row["text_nats"] for row in alone if (row["stage"], row["domain"]) == (1, "code")}) == 3


def test_only_training_text_is_memorized(trained, monkeypatch):
    memorized = []
    read = Session.memorize
    monkeypatch.setattr(Session, "memorize", lambda session, text: (memorized.append(text), read(session, text))[1])
    monkeypatch.setattr(
        Session, "read_and_memorize", lambda session, tokens, targets: pytest.fail("other text was memorized")
    )
    context = ctx(trained, policy=memorize())
    report_on(ContinualMemory(1, 3, 2, 1), context)
    source = context.open_source()
    for text, (name, part) in zip(memorized, source.sources.items(), strict=True):
        known = [part.row("train", 0, index).tokens for index in range(3)]
        assert torch.equal(text[0], torch.cat([torch.from_numpy(row) for row in known])), name


def test_checkpoints_are_verified_before_they_are_evaluated(trained, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    path = copy / "checkpoints" / f"step_{STEPS:08d}" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged"):
        report_on(Continual(2, 4, resets=False), ctx(copy))
    assert checkpoint.find(copy).name == f"step_{3 * STEPS:08d}"
