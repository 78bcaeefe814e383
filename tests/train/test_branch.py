"""A run can start from a checkpoint of another: a decay branched off a stable run equals the whole run, to the bit."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny import fingerprints, tiny, trace

from nested_learning import Session, checkpoint
from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.errors import CheckpointError, ConfigError
from nested_learning.phase.eval import run as evaluate
from nested_learning.phase.train import run

FILES = open_option_files(None)
WSD = {
    "optim__schedule__kind": "wsd",
    "optim__schedule__unit": "steps",
    "optim__schedule__warmup": 2,
    "optim__schedule__decay": 0,
}
SHORT = {"save_every": 4, "val_every": 4}


def train(folder: Path, name: str, **given: Any) -> Path:
    directory = run(tiny(folder, name=name, **SHORT | WSD | given)).directory
    assert directory is not None
    return directory


@pytest.mark.parametrize("model, optim", [("transformer", "mixed_muon"), ("hope", "adamw")])
def test_a_decay_from_a_stable_checkpoint_is_the_uninterrupted_run_to_the_bit(
    model: str, optim: str, tmp_path: Path
) -> None:
    given = {"model": model, "optim": optim, "optim__ema": 0.9}
    whole = train(tmp_path, "whole", steps=7, optim__schedule__decay=3, **given)
    stable = train(tmp_path, "stable", steps=6, optim__schedule__decay=0, **given)
    origin = stable / "checkpoints" / "step_00000004"
    branched = train(tmp_path, "branched", steps=7, optim__schedule__decay=3, branch_from=origin, **given)
    assert trace(branched) == [line for line in trace(whole) if line["step"] > 4]
    assert fingerprints(branched) == fingerprints(whole)
    rates = [line["optim/lr"] for line in trace(branched) if line["split"] == "train"]
    assert rates == sorted(rates, reverse=True) and rates[-1] < rates[0]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps, with averaged weights."""
    return train(tmp_path_factory.mktemp("origin"), "origin", steps=4, optim__ema=0.5, optim__clip=0.5)


def test_a_stopped_branch_resumes_from_its_own_checkpoint(origin: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(origin, tmp_path / "copy")
    given = {"branch_from": copy, "optim__ema": 0.5, "optim__schedule__decay": 2, "steps": 8, "save_every": 2}
    whole = train(tmp_path, "whole", **given)
    branch = train(tmp_path, "again", **given)
    # as if it had been killed after step 6; its origin has gone on meanwhile, and left no such checkpoint
    shutil.rmtree(copy / "checkpoints")
    config = tiny(tmp_path, **SHORT | WSD | given | {"resume": branch / "checkpoints" / "step_00000006"})
    assert run(config).directory is not None
    assert fingerprints(branch) == fingerprints(whole)
    assert trace(branch) == trace(whole)


def test_a_branch_does_not_change_its_origin_and_keeps_its_step_count(origin: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in origin.rglob("*") if path.is_file()}
    # a rate that spoils it: what was best in the origin was not made here
    spoiled = {"optim__groups__0__lr": 100.0, "optim__ema": 0.5}
    branch = train(tmp_path, "branch", branch_from=origin, steps=6, seed=5, **spoiled)
    assert {path: path.read_bytes() for path in origin.rglob("*") if path.is_file()} == before
    progress = checkpoint.read_progress(checkpoint.find(branch))
    assert (progress.step, progress.seed, progress.tokens) == (6, 5, 6 * 4 * 32)
    assert [line["step"] for line in trace(branch) if line["split"] == "train"] == [5, 6]
    assert progress.best["step"] == 6


@pytest.mark.parametrize(
    "given, error, message",
    [
        ({"steps": 4}, ConfigError, r"has made 4 of steps=4 already; give more, such as steps=8"),
        ({"steps": 5, "data__tokenizer": "bpe", "data__vocab_size": 300}, CheckpointError, "another tokenizer"),
        ({"steps": 5, "optim__ema": "null"}, CheckpointError, r"unexpected .*/ema"),
        ({"steps": 5, "model__dim": 32}, CheckpointError, "made for another model"),
        ({"steps": 5, "optim": "muon"}, CheckpointError, "made for other groups"),
    ],
    ids=["no steps", "tokens", "ema", "model", "optimizer"],
)
def test_a_branch_that_does_not_fit_is_refused_and_no_file_is_created(
    given: dict[str, Any], error: type[Exception], message: str, origin: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        train(tmp_path, "branch", **{"branch_from": origin, "optim__ema": 0.5} | given)
    assert not (tmp_path / "runs" / "branch").exists()


def test_a_branch_has_the_options_of_its_origin_but_for_those_of_the_command_line(origin: Path) -> None:
    config = make_job(FILES, [f"branch_from={origin}", "steps=6", "optim.schedule.decay=2"]).config
    assert (config.model.dim, config.data.name, config.optim.ema) == (16, "text", 0.5)
    assert (config.optim.schedule.unit, config.optim.schedule.warmup, config.optim.schedule.decay) == ("steps", 2, 2)


@pytest.mark.parametrize(
    "lines, message",
    [
        (["branch_from={origin}", "stack_from={origin}"], "leave stack_from out"),
        (["phase=eval", "checkpoint={origin}", "branch_from={origin}"], "is for phase=train"),
        (["branch_from={origin}/no"], "no run here"),
        (["weights=ema"], "weights=ema is for phase=eval, sample and export"),
        (["weights=best"], "weights=best: no such weights"),
    ],
)
def test_keys_that_exclude_each_other_are_refused(lines: list[str], message: str, origin: Path) -> None:
    with pytest.raises((ConfigError, CheckpointError), match=message):
        make_job(FILES, [line.format(origin=origin) for line in lines])


def test_averaged_weights_are_validated_in_training_and_opened_on_demand(origin: Path) -> None:
    last = [line for line in trace(origin) if line["split"] == "validation"][-1]
    assert last["val/ema_loss"] != last["val/loss"]
    reports = {}
    for weights in ("model", "ema"):
        lines = ["phase=eval", f"checkpoint={origin}", f"weights={weights}", "device=cpu", "evals=[validation]"]
        reports[weights] = evaluate(make_job(FILES, lines).config).metrics
    assert reports["model"]["validation/loss"] == pytest.approx(last["val/loss"], rel=1e-5)
    assert reports["ema"]["validation_ema/loss"] == pytest.approx(last["val/ema_loss"], rel=1e-5)
    assert {path.name for path in (origin / "evals").glob("*.json")} == {"validation.json", "validation_ema.json"}
    trained, averaged = (Session.open(origin, device="cpu", weights=weights).model for weights in ("model", "ema"))
    assert any(not a.equal(b) for a, b in zip(trained.parameters(), averaged.parameters(), strict=True))


def test_without_an_average_there_is_none_to_open(tmp_path: Path) -> None:
    directory = train(tmp_path, "plain", steps=2)
    with pytest.raises(CheckpointError, match=r"optim.ema=null; use weights=model"):
        Session.open(directory, device="cpu", weights="ema")
    assert not any(name.startswith("val/ema") for line in trace(directory) for name in line)


@pytest.mark.parametrize("clip", ["null", 0.4, 1e-6])
def test_the_fraction_of_clipped_steps_is_counted(clip: str | float, tmp_path: Path) -> None:
    directory = train(tmp_path, "clipped", steps=6, optim__clip=clip)
    lines = [line for line in trace(directory) if line["split"] == "train"]
    too_long = [clip != "null" and line["optim/grad_norm"] > clip for line in lines]
    assert [line["optim/clipped"] for line in lines] == pytest.approx([sum(too_long[:n]) / n for n in range(1, 7)])
    assert lines[-1]["optim/clipped"] == {"null": 0, 1e-6: 1}.get(clip, lines[-1]["optim/clipped"])
