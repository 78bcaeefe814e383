"""The plan of a dry run equals what is measured on small runs."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny

from nested_learning.command.compose import make_job, make_jobs
from nested_learning.config.option_files import open_option_files
from nested_learning.config.schema import Config
from nested_learning.errors import ConfigError, DataError
from nested_learning.objective.config import NextTokenConfig
from nested_learning.phase.train import build, run
from nested_learning.planning.flops import flops
from nested_learning.planning.hardware import GPUS, peak
from nested_learning.world.joining import open_world

FILES = open_option_files(None)
LADDER = {"pilot": (160e6, 3e9), "mid": (760e6, 30e9), "target": (1.3e9, 100e9)}
# the sparsest, the baseline and the densest; others with -m slow
QUICK = ("hope", "transformer", "ttt_mlp")


def rung(name: str, *lines: str) -> Config:
    """Compose a scaling preset."""
    return make_job(FILES, [f"experiment={name}", *lines]).config


def count_parameters(config: Config) -> int:
    """Count the numbers that are trained, on the meta device."""
    assert config.plan.vocab_size is not None
    with torch.device("meta"):
        model = config.model.build(config.plan.vocab_size, config.seed)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    "model",
    [*QUICK, *(pytest.param(each, marks=pytest.mark.slow) for each in FILES.options("model") if each not in QUICK)],
)
@pytest.mark.parametrize("name", LADDER)
def test_every_model_has_the_number_of_parameters_of_its_preset(name: str, model: str) -> None:
    assert count_parameters(rung(name, f"model={model}")) == pytest.approx(LADDER[name][0], rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("name", LADDER)
def test_a_preset_is_planned_without_weights_or_data(
    name: str, empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = rung(name, "dry_run=true", "device=cpu", "model=deltanet")
    metrics = run(config).metrics
    parameters, tokens = LADDER[name]
    assert metrics["parameters"] == pytest.approx(parameters, rel=0.03)
    assert metrics["tokens"] == pytest.approx(tokens, rel=0.001)
    # six operations for each parameter, and what memories add
    assert 6 < metrics["train_flops_per_token"] / metrics["parameters"] < 7.5
    fastest = peak("H100", "bfloat16")
    assert fastest is not None
    seconds = metrics["train_flops_per_token"] * metrics["tokens"] / (fastest * 0.4 * config.plan.num_gpus)
    assert metrics["hours"] == pytest.approx(seconds / 3600)
    assert metrics["dollars"] == pytest.approx(metrics["hours"] * config.plan.num_gpus * GPUS["h100"].dollars_per_hour)
    shards = config.world.num_shards(config.plan.num_gpus)
    assert metrics["weights_bytes"] == 4 * metrics["parameters"] / shards
    out = capsys.readouterr().out
    assert "planned with a vocabulary of 50257" in out and "of 80: fits" in out
    assert list(empty_folder.iterdir()) == []


def test_the_commands_that_launch_the_presets_compose() -> None:
    page = (Path(__file__).parents[2] / "docs/scaling.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.partition("train.py ")[2] for line in page.splitlines() if " train.py " in line]
    assert len(lines) == 7
    for words in map(shlex.split, lines):
        if words[0] == "-m":
            assert {job.config.launcher.name for job in make_jobs(FILES, words[1:])} == {"submitit"}
        else:
            make_job(FILES, words)


def test_the_long_context_comes_last_with_equal_tokens_per_step() -> None:
    config = rung("target")
    (short,) = config.stages
    assert (short.seq_len, vars(config.data)["seq_len"]) == (2048, 8192)
    assert short.seq_len * short.batch_size == 8192 * config.data.batch_size
    assert short.steps / config.steps == pytest.approx(0.9, abs=0.001)


@pytest.mark.parametrize("optim", ["adamw", "mixed_muon", "m3"])
@pytest.mark.parametrize("model", ["transformer", "hope"])
def test_bytes_of_weights_and_optimizer_are_those_of_a_real_run(model: str, optim: str, tmp_path: Path) -> None:
    config = tiny(tmp_path, model=model, optim=optim, dry_run="true")
    metrics = run(config).metrics
    with open_world("cpu") as world:
        parts = build(config, world)
    real = sum(parameter.nbytes for parameter in parts.model.parameters())
    assert metrics["weights_bytes"] == metrics["gradients_bytes"] == real
    assert metrics["optimizer_bytes"] == sum(each.nbytes for each in parts.optimizer.state_dict().values()) > 0


@pytest.mark.slow
def test_shards_of_parameters_and_rows_of_each_gpu_are_counted(tmp_path: Path) -> None:
    def planned(**given: Any) -> dict[str, float]:
        given = {"plan__num_gpus": 4, "data__batch_size": 16, **given}
        return run(tiny(tmp_path, dry_run="true", **given)).metrics

    copies, parts, pairs = planned(), planned(world__parallel="fsdp"), planned(world__parallel="fsdp", world__shards=2)
    for name in ("weights_bytes", "gradients_bytes", "optimizer_bytes"):
        assert copies[name] == 4 * parts[name] == 2 * pairs[name]
    assert (
        copies["gathered_bytes"]
        == 0
        < parts["gathered_bytes"]
        == pairs["gathered_bytes"]
        < copies["weights_bytes"] * 1.01
    )
    # four rows each, or one at a time
    assert copies["activations_bytes"] == pytest.approx(4 * planned(micro_batches=16)["activations_bytes"], rel=0.05)


def test_the_flops_of_a_run_are_those_of_its_stages(tmp_path: Path) -> None:
    stages = "[{steps: 4, batch_size: 8, seq_len: 8}]"
    config = tiny(tmp_path, dry_run="true", steps=10, stages=stages)
    metrics = run(config).metrics
    short, long = (flops(config.model, NextTokenConfig(name="next_token"), 257, seq_len).total for seq_len in (8, 32))
    assert metrics["tokens"] == 4 * 64 + 6 * 128
    assert metrics["train_flops_per_token"] * metrics["tokens"] == pytest.approx(4 * 64 * short + 6 * 128 * long)


def test_missing_data_is_an_error_unless_a_vocabulary_is_planned(empty_folder: Path) -> None:
    with pytest.raises(DataError, match=r"shards/fineweb_edu"):
        run(rung("pilot", "dry_run=true", "plan.vocab_size=null"))
    # rows of labelled texts have no length before they are there
    labelled = {"data": "classes", "data__path": "none.jsonl", "plan__vocab_size": 300}
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        run(tiny(empty_folder, dry_run="true", **labelled))


@pytest.mark.parametrize(
    "line, words",
    [
        ("plan.gpu=h10", "did you mean h100"),
        ("plan.num_gpus=0", "at least 1"),
        ("plan.mfu=40", r"\(0, 1\]"),
        ("plan.price=-1", "0 or more"),
        ("plan.vocab_size=0", "or null"),
    ],
)
def test_an_impossible_plan_is_refused(line: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_job(FILES, [line])


def test_a_run_that_does_not_fit_is_reported_with_what_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny(tmp_path, dry_run="true", model__dim=65536, plan__gpu="l4"))
    assert "does not fit; try world.parallel=fsdp" in capsys.readouterr().out
    run(tiny(tmp_path, dry_run="true", data__batch_size=1048576, plan__gpu="l4"))
    assert "does not fit; try micro_batches=2" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="multiple of the GPUs"):
        run(tiny(tmp_path, dry_run="true", micro_batches=3, plan__num_gpus=2))
