"""A checkpoint has the whole state of a run, all of it is needed, and when it is saved changes nothing."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import fingerprints, tiny, trace

from nested_learning import checkpoint
from nested_learning.checkpoint import Progress
from nested_learning.config.registry import CHOICES
from nested_learning.config.schema import Config
from nested_learning.errors import CheckpointError, NestedLearningError
from nested_learning.files import hash_file
from nested_learning.optim.build import build_optimizer
from nested_learning.phase.train import run
from nested_learning.train.trainer import Trainer

# a step of 128 tokens leaves gradients of this level over
SLOW = "[{name: fast, period: 0}, {name: slow, period: 384}]"
FIRST, LAST = 5, 8


def parts_of(config: Config, seed: int = 0) -> tuple[Any, Any]:
    """Build a model and an optimizer whose rules record the inputs they need."""
    model = config.model.build(17, seed)
    optimizer = build_optimizer(config.optim, list(model.named_parameters()), model.levels, 128, 20)
    optimizer.record_inputs(model)
    return model, optimizer


def learn(parts: tuple[Any, Any], first: int, last: int) -> None:
    """Make the steps from `first` to `last` on made-up tokens."""
    model, optimizer = parts
    for step in range(first, last):
        tokens = torch.randint(17, (2, 8), generator=torch.Generator().manual_seed(step))
        logits, _ = model(tokens[:, :-1], model.init_state(2))
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step(step)
        optimizer.zero_grad()


def bits(parts: tuple[Any, Any]) -> list[bytes]:
    tensors = {**parts[0].state_dict(), **parts[1].state_dict()}
    return [tensors[name].numpy().tobytes() for name in sorted(tensors)]


@pytest.mark.parametrize("optim", sorted(CHOICES["optim"]))
def test_each_slot_of_each_optimizer_matters_and_none_may_be_missing(optim: str, tmp_path: Path) -> None:
    config = tiny(
        tmp_path, model="transformer", optim=optim, model__dim=8, model__num_layers=1, model__num_heads=1,
        model__levels=SLOW, optim__ema=0.9,
    )  # fmt: skip
    for group in config.optim.groups:
        if group.rule == "m3":
            group.slow_every = 3
    # two steps into the second period of three, and of M3's slow momentum
    started = parts_of(config)
    learn(started, 0, FIRST)
    saved = {name: tensor.clone() for name, tensor in started[1].state_dict().items()}
    weights = {name: tensor.clone() for name, tensor in started[0].state_dict().items()}

    def end_of(state: dict[str, torch.Tensor]) -> list[bytes]:
        parts = parts_of(config, seed=1)
        parts[0].load_state_dict(weights)
        parts[1].load_state_dict(state)
        learn(parts, FIRST, LAST)
        return bits(parts)

    learn(started, FIRST, LAST)
    assert end_of(saved) == bits(started)
    slots = {name.rsplit("/", 1)[1] for name in saved}
    assert {"gradient_sum", "gradient_count", "ema"} <= slots
    for slot in sorted(slots):
        of_slot = [name for name in saved if name.endswith(f"/{slot}")]
        if any(saved[name].any() for name in of_slot):
            without = {name: tensor.clone().zero_() for name, tensor in saved.items() if name in of_slot}
            assert end_of(saved | without) != bits(started), slot
        with pytest.raises(CheckpointError, match="lacks"):
            started[1].load_state_dict({name: saved[name] for name in saved if name != of_slot[0]})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Train a run of 4 steps with a checkpoint in the middle; return its configuration."""
    config = tiny(
        tmp_path_factory.mktemp("state"), name="whole", model__num_layers=1, steps=4, save_every=2, val_every=2,
        data__val_rows=2, model__dropout=0.1,
    )  # fmt: skip
    run(config)
    return config


@contextmanager
def stopped(whole: Config, name: str) -> Iterator[tuple[Config, Path]]:
    """Copy the run as if it had been killed after step 2; the files of its checkpoint may be changed meanwhile."""
    folder = Path(shutil.copytree(Path(whole.out) / "whole", Path(whole.out) / name))
    shutil.rmtree(folder / "checkpoints" / "step_00000004")
    (folder / "checkpoints" / "latest").write_text("step_00000002\n")
    (folder / "summary.json").unlink()
    saved = folder / "checkpoints" / "step_00000002"
    yield replace(whole, name=name), saved
    hashes = {path.name: hash_file(path) for path in sorted(saved.iterdir()) if path.name != "hashes.json"}
    (saved / "hashes.json").write_text(json.dumps(hashes))


def marked(name: str, value: Any) -> Any:
    """Return another value of the same kind, which later steps may add to but not lose."""
    match value:
        case float() | int():
            return value + 1000
        case str():
            return f"another {value}"
        case dict():
            # of phases there are no others; no later validation is better than nothing
            return value | ({"data": 1000.0} if name == "phases" else {"val/loss": 0.0, "data": 1000.0})
        case list():
            return [*value, 1000]
    return 1000


# the seconds of training are those of its phases
@pytest.mark.parametrize("name", [field.name for field in fields(Progress) if field.name != "seconds"])
def test_each_field_of_the_progress_is_restored_or_refused(whole: Config, name: str) -> None:
    with stopped(whole, f"progress_{name}") as (config, saved):
        values = json.loads((saved / "progress.json").read_text())
        (saved / "progress.json").write_text(json.dumps(values | {name: marked(name, values[name])}))
    try:
        run(config)
    except NestedLearningError:
        return
    last = vars(checkpoint.read_progress(checkpoint.find(Path(config.out) / str(config.name))))[name]
    match last:
        case dict():
            assert last["data"] >= 1000
        case list():
            assert 1000 in last
        case _:
            assert last >= marked(name, values[name])


def test_a_checkpoint_of_another_run_is_refused_even_where_it_fits(whole: Config) -> None:
    with stopped(whole, "foreign") as (config, saved):
        text = (saved / "config.yaml").read_text()
        (saved / "config.yaml").write_text(text.replace("dropout: 0.1", "dropout: 0.2"))
    with pytest.raises(NestedLearningError, match=r"step_00000002 was made with another .*model.dropout was 0.2"):
        run(config)


def test_a_checkpoint_of_an_older_version_is_refused_with_a_fix(whole: Config) -> None:
    with stopped(whole, "older") as (config, saved):
        text = (saved / "config.yaml").read_text()
        (saved / "config.yaml").write_text(text.replace("  dropout: 0.1\n", ""))
    with pytest.raises(CheckpointError, match=r"another version .* no model.dropout; .*environment.json"):
        run(config)


@pytest.mark.parametrize("optim", ["adamw", "m3"])
def test_saving_at_step_0_at_every_step_or_never_changes_nothing(
    optim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(tmp_path, name="never", optim=optim, model__num_layers=1, steps=3, save_every=9, data__val_rows=2)
    run(config)
    run(replace(config, name="always", save_every=1))
    real = Trainer.fit

    def fit_saved(trainer: Trainer) -> Progress:
        trainer.save()
        return real(trainer)

    monkeypatch.setattr(Trainer, "fit", fit_saved)
    run(replace(config, name="first"))
    runs = tmp_path / "runs"
    assert trace(runs / "never") == trace(runs / "always") == trace(runs / "first")
    assert fingerprints(runs / "never") == fingerprints(runs / "always") == fingerprints(runs / "first")
    # the checkpoint of the step was kept and can be resumed from
    monkeypatch.setattr(Trainer, "fit", real)
    saved = runs / "first" / "checkpoints" / "step_00000000"
    run(replace(config, name="first", resume=str(saved)))
    assert trace(runs / "never") == trace(runs / "first") and fingerprints(runs / "never") == fingerprints(
        runs / "first"
    )
