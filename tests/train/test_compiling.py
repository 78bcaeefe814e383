"""Compiling is tried at the start; where it fails, the run continues uncompiled."""

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import fingerprints, tiny, trace
from torch import nn

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.data.batch import Batch
from nested_learning.errors import ConfigError
from nested_learning.nn.dropout import evaluating
from nested_learning.objective.training import Training
from nested_learning.phase.train import run
from nested_learning.train.compiling import Compiled, compile_training
from nested_learning.world.joining import open_world

TOKENS = torch.arange(32).view(2, 16)
BATCH = Batch(TOKENS, TOKENS.roll(-1), torch.zeros_like(TOKENS))


def apart(task, *given) -> None:
    """Run `task` in a new process: the compiler cannot trace the shape checks that tests install."""
    process = multiprocessing.get_context("spawn").Process(target=task, args=given)
    process.start()
    process.join()
    assert process.exitcode == 0


def training(*line: str) -> Training:
    sizes = ("model.dim=16", "model.num_layers=2", "model.num_heads=2")
    config = make_job(open_option_files(None), [*sizes, *line]).config
    return Training(config.model.build(32, seed=0), config.objective.build())


def compile_without_a_compiler(folder: Path) -> None:
    """Request compiled blocks without a C++ compiler and without a cache."""
    os.environ |= {"CC": "/nowhere/cc", "CXX": "/nowhere/c++", "TORCHINDUCTOR_CACHE_DIR": str(folder / "cache")}
    with open_world("cpu") as world:
        found = compile_training(training("model=transformer"), "regional", BATCH, torch.float32, world)
    (folder / "found").write_text(json.dumps(found))


def test_without_a_compiler_there_is_a_reason(tmp_path):
    apart(compile_without_a_compiler, tmp_path)
    asked, active, reason = json.loads((tmp_path / "found").read_text())
    assert (asked, active) == ("regional", "off")
    assert "No working C++ compiler" in reason and len(reason) < 400


def refuse(function, **_):
    """Replace the compiler by one that compiles nothing."""

    def call(*args, **kwargs):
        raise torch._dynamo.exc.TorchRuntimeError("no such thing\n\nand much more")

    return call


def test_a_run_that_cannot_be_compiled_continues_and_prints_the_reason(tmp_path, capsys, monkeypatch):
    plain = run(tiny(tmp_path, name="plain", steps=2)).directory
    monkeypatch.setattr(torch, "compile", refuse)
    asked = run(tiny(tmp_path, name="asked", steps=2, compile="regional")).directory
    line = "compile=regional: not possible here, training continues uncompiled (no such thing)"
    assert line in capsys.readouterr().out
    summary, environment = (json.loads((asked / f"{n}.json").read_text()) for n in ("summary", "environment"))
    assert summary["compile"] == environment["compile"]
    assert summary["compile"] == {"asked": "regional", "active": "off", "reason": "no such thing"}
    # the trial left nothing behind
    assert fingerprints(asked) == fingerprints(plain)


def test_a_run_without_compiling_records_that_too(tmp_path, capsys):
    result = run(tiny(tmp_path, name="a", steps=1))
    summary = json.loads((result.directory / "summary.json").read_text())
    assert summary["compile"] == {"asked": "off", "active": "off", "reason": ""}
    # the peak of a CPU is unknown
    assert summary["mfu_12"] is None and summary["mfu_causal"] is None
    assert not any("mfu" in line for line in (result.directory / "metrics.jsonl").read_text().splitlines())


@pytest.mark.parametrize(("how", "compiled"), [("regional", 2), ("full", 1)])
def test_the_trial_leaves_no_trace(monkeypatch, how, compiled):
    calls = []

    def stand_in(function, **_):
        def call(*args, **kwargs):
            calls.append(1)
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(torch, "compile", stand_in)
    subject = training("model=hope", "model.dropout=0.2")
    before = torch.get_rng_state()
    with open_world("cpu") as world:
        assert compile_training(subject, how, BATCH, torch.float32, world) == Compiled(how, how, "")
    assert len(calls) == compiled
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in subject.parameters())


def test_evaluation_runs_uncompiled(monkeypatch):
    stances = []
    monkeypatch.setattr(
        torch.compiler, "set_stance", lambda stance: stances.append(stance) or evaluating(nn.Identity())
    )
    model = training("model=transformer").model
    with evaluating(model):
        assert stances == []
    model.blocks[0]._compiled_call_impl = model.blocks[0]._call_impl
    with evaluating(model):
        assert stances == ["force_eager"]


def test_rules_that_read_inputs_and_levels_that_are_taught_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"compile=regional: a rule of optim reads the inputs .* try compile=off"):
        run(tiny(tmp_path, optim="dgd", compile="regional"))
    levels = "[{name: fast, period: 8, context: {rule: gd, lr: 0.05}}, {name: slow, period: 0}]"
    with pytest.raises(ConfigError, match=r"compile=full: .*levels with signal=teach .*use compile=off"):
        tiny(tmp_path, model="hope_attention", objective="online", model__levels=levels, compile="full")
    with pytest.raises(ConfigError, match="compile=some: no such compile"):
        tiny(tmp_path, compile="some")


def run_compiled(folder: Path, model: str, how: str) -> None:
    """Train uncompiled and compiled, and count the graphs that were compiled before each step."""
    from torch._dynamo.utils import counters

    from nested_learning.train.trainer import Trainer

    given = {"model": model, "steps": 5, "val_every": 5, "model__dropout": 0.1}
    run(tiny(folder, name="plain", **given))
    step, seen = Trainer.train_step, []

    def watched(self: Trainer, stop_asked: Callable[[], bool]) -> bool:
        seen.append(counters["stats"]["unique_graphs"])
        return step(self, stop_asked)

    Trainer.train_step = watched
    run(tiny(folder, name="compiled", compile=how, **given))
    (folder / "graphs.json").write_text(json.dumps([*seen, counters["stats"]["unique_graphs"]]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "how"),
    [("transformer", "full"), ("transformer", "regional"), ("titans_lmm", "regional")],
)
def test_a_compiled_run_learns_the_same_and_compiles_once(tmp_path, model, how):
    apart(run_compiled, tmp_path, model, how)
    compiled, plain = tmp_path / "runs" / "compiled", tmp_path / "runs" / "plain"
    assert json.loads((compiled / "summary.json").read_text())["compile"]["active"] == how
    graphs = json.loads((tmp_path / "graphs.json").read_text())
    assert graphs[0] > 0 and graphs[3] == graphs[-1]
    losses = [[line["train/loss"] for line in trace(each) if "train/loss" in line] for each in (compiled, plain)]
    assert len(losses[0]) == 5 and losses[0] == pytest.approx(losses[1], abs=1e-4)
