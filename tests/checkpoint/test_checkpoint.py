"""Checkpoints are written atomically, verified, and read strictly."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from shared import damage
from tiny import tiny

from nested_learning import checkpoint
from nested_learning.checkpoint import Progress, saving
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.data.tokenizers.tokenizer_files import open_tokenizer
from nested_learning.errors import CheckpointError
from nested_learning.optim.build import build_optimizer

CONFIG = {"model": {"name": "transformer", "dim": 16}, "data": {"name": "text"}, "name": None, "lr": 1e-5}


@pytest.fixture
def config(tmp_path):
    return tiny(tmp_path)


@pytest.fixture
def parts(config):
    model = config.model.build(257, 0)
    return model, build_optimizer(config.optim, list(model.named_parameters()), model.levels, 128, 6)


def take_step(model, optimizer, step: int) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.1 * (step + 1))
    optimizer.step(step)


def save(run: Path, parts, step: int, keep_every: int = 0) -> Path:
    run.mkdir(exist_ok=True)
    progress = Progress(step=step, tokens=128 * step, seed=3, source="abc", tokenizer=None, metrics={"val/loss": 2.5})
    return checkpoint.save(run, *parts, ByteTokenizer(), CONFIG, progress, keep_every=keep_every)


def test_a_saved_model_is_loaded_bit_for_bit(tmp_path, config, parts):
    take_step(*parts, 0)
    saved = save(tmp_path / "a", parts, 1)
    model = config.model.build(257, 1)
    optimizer = build_optimizer(config.optim, list(model.named_parameters()), model.levels, 128, 6)
    checkpoint.verify(saved)
    checkpoint.load_model(saved, model)
    checkpoint.load_optimizer(saved, optimizer)
    for (name, before), after in zip(parts[0].named_parameters(), model.parameters(), strict=True):
        assert torch.equal(before, after), name
    states = parts[1].state_dict()
    assert states and all(torch.equal(states[name], tensor) for name, tensor in optimizer.state_dict().items())
    assert checkpoint.read_config(saved) == CONFIG
    assert checkpoint.read_progress(saved).metrics == {"val/loss": 2.5}
    assert open_tokenizer(saved).fingerprint == ByteTokenizer().fingerprint
    again = save(tmp_path / "b", (model, optimizer), 1)
    assert (again / "hashes.json").read_bytes() == (saved / "hashes.json").read_bytes()


def test_a_run_directory_means_its_latest_checkpoint_and_keeps_the_one_before(tmp_path, parts):
    for step in (2, 4, 6):
        save(tmp_path / "a", parts, step)
    assert checkpoint.find(tmp_path / "a").name == "step_00000006"
    assert checkpoint.find(tmp_path / "a" / "checkpoints" / "step_00000004").name == "step_00000004"
    assert sorted(path.name for path in (tmp_path / "a" / "checkpoints").iterdir()) == [
        "latest", "step_00000004", "step_00000006",
    ]  # fmt: skip


def test_kept_checkpoints_stay_and_those_after_a_rollback_do_not(tmp_path, parts):
    def there() -> list[int]:
        return [int(path.name[5:]) for path in sorted((tmp_path / "a" / "checkpoints").glob("step_*"))]

    for step in (0, 2, 3, 4, 5, 6, 7, 8):
        save(tmp_path / "a", parts, step, keep_every=4)
    assert there() == [0, 4, 7, 8]
    save(tmp_path / "a", parts, 6, keep_every=4)
    assert there() == [0, 4, 6]


def test_a_model_card_names_the_model_its_step_and_its_metrics(tmp_path, parts):
    card = (save(tmp_path / "a", parts, 2) / "README.md").read_text()
    assert "transformer, step 2" in card and "| val/loss | 2.5 |" in card


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "config.yaml", "progress.json", "hashes.json"]
)
@pytest.mark.parametrize("harm", ["flip", "truncate", "delete"])
def test_any_damage_is_found_and_the_error_names_the_file_and_an_older_checkpoint(tmp_path, parts, name, harm):
    save(tmp_path / "a", parts, 2)
    saved = save(tmp_path / "a", parts, 4)
    damage(saved / name, harm)
    with pytest.raises(CheckpointError, match=r"resume=.*step_00000002") as caught:
        checkpoint.verify(saved)
    # when hashes.json itself is damaged, the error names the file of the wrong hash
    assert str(saved) in str(caught.value) and (name in str(caught.value) or name == "hashes.json")


def test_a_latest_that_names_a_missing_checkpoint_is_an_error_with_a_fix(tmp_path, parts):
    save(tmp_path / "a", parts, 2)
    shutil.rmtree(save(tmp_path / "a", parts, 4))
    with pytest.raises(CheckpointError, match=r"step_00000004, which is missing; .*resume=.*step_00000002"):
        checkpoint.find(tmp_path / "a")


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"\xff\xfe", b"step_4", b"step_00000004/", b"../../b/checkpoints/step_00000002", b"/", b"checkpoints"],
)
def test_a_latest_that_names_no_checkpoint_of_this_run_is_as_if_missing(tmp_path, parts, content):
    for step in (2, 4):
        save(tmp_path / "a", parts, step)
    save(tmp_path / "b", parts, 2)
    (tmp_path / "a" / "checkpoints" / "latest").write_bytes(content)
    found = r"there are step_00000002, step_00000004; .*resume=.*a/checkpoints/step_00000004"
    with pytest.raises(CheckpointError, match=found):
        checkpoint.find(tmp_path / "a")
    assert checkpoint.has_checkpoint(tmp_path / "a"), "the run must not start again from step 0"
    # a run that resumes from one of them repairs it, and touches nothing outside
    assert checkpoint.find(save(tmp_path / "a", parts, 6).parents[1]).name == "step_00000006"
    assert sorted(path.name for path in (tmp_path / "b" / "checkpoints").iterdir()) == ["latest", "step_00000002"]


def test_a_latest_that_names_a_draft_elsewhere_moves_nothing(tmp_path, parts):
    save(tmp_path / "a", parts, 2)
    elsewhere = tmp_path / ".draft_step_00000004"
    elsewhere.mkdir()
    (tmp_path / "a" / "checkpoints" / "latest").write_text("../../.draft_step_00000004")
    checkpoint.tidy(tmp_path / "a")
    assert elsewhere.is_dir() and not (tmp_path / "step_00000004").exists()


@pytest.mark.parametrize("lost", ["delete", "folder"])
def test_a_lost_latest_does_not_lose_the_run(tmp_path, parts, lost):
    save(tmp_path / "a", parts, 2)
    latest = tmp_path / "a" / "checkpoints" / "latest"
    latest.unlink()
    if lost == "folder":
        latest.mkdir()
    assert checkpoint.has_checkpoint(tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"there are step_00000002"):
        checkpoint.find(tmp_path / "a")


def test_links_are_read_and_only_they_are_removed(tmp_path, parts):
    archived = tmp_path / "archive"
    save(tmp_path / "a", parts, 2).rename(archived)
    folder = tmp_path / "a" / "checkpoints"
    (folder / "step_00000002").symlink_to(archived)
    checkpoint.verify(checkpoint.find(tmp_path / "a"))
    assert checkpoint.run_of(checkpoint.find(tmp_path / "a")) == tmp_path / "a"
    for step in (2, 4, 6):
        save(tmp_path / "a", parts, step)
    assert (archived / "hashes.json").is_file() and not (folder / "step_00000002").exists()


def test_files_of_the_user_between_checkpoints_stay(tmp_path, parts):
    save(tmp_path / "a", parts, 2)
    (tmp_path / "a" / "checkpoints" / "step_the_best").mkdir()
    for step in (4, 6):
        save(tmp_path / "a", parts, step)
    assert (tmp_path / "a" / "checkpoints" / "step_the_best").is_dir()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused_and_change_nothing(tmp_path, config, parts, value):
    save(tmp_path / "a", parts, 2)
    with torch.no_grad():
        parts[0].embedding.weight[3, 0] = value
    saved = save(tmp_path / "a", parts, 4)
    model = config.model.build(257, 1)
    before = model.embedding.weight.clone()
    with pytest.raises(CheckpointError, match=r"not finite: embedding.weight \(1 in all\).*resume=.*step_00000002"):
        checkpoint.load_model(saved, model)
    assert torch.equal(before, model.embedding.weight)


def test_a_directory_without_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        checkpoint.find(tmp_path)


def test_a_checkpoint_of_another_model_is_refused_by_name_and_changes_nothing(tmp_path, parts):
    saved = save(tmp_path / "a", parts, 2)
    deeper = tiny(tmp_path, model__num_layers=3).model.build(257, 0)
    wider = tiny(tmp_path, model__dim=32).model.build(257, 0)
    before = {name: tensor.clone() for name, tensor in wider.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"blocks\.2\..* is missing.*in all"):
        checkpoint.load_model(saved, deeper)
    with pytest.raises(CheckpointError, match=r"float32\[.*16.*\], the model's is float32\[.*32.*\]"):
        checkpoint.load_model(saved, wider)
    assert all(torch.equal(before[name], tensor) for name, tensor in wider.state_dict().items())


def test_progress_of_another_version_is_refused(tmp_path, parts):
    saved = save(tmp_path / "a", parts, 2)
    values = json.loads((saved / "progress.json").read_text())
    (saved / "progress.json").write_text(json.dumps(values | {"rng_state": 1}))
    with pytest.raises(CheckpointError, match=r"another version of nested_learning, .*rng_state; .*environment\.json"):
        checkpoint.read_progress(saved)


class PowerCut(BaseException):
    """Nothing that runs after it in the same process may tidy up."""


def test_a_power_cut_at_any_moment_of_saving_leaves_a_whole_checkpoint(tmp_path, parts, monkeypatch):
    run = tmp_path / "a"
    save(run, parts, 2)
    moments, fail_at = 0, 0
    real = {"replace": os.replace, "rename": os.rename, "fsync": os.fsync, "mkdir": os.mkdir, "rmdir": os.rmdir}

    def interrupted(name):
        def call(*arguments, **options):
            nonlocal moments
            moments += 1
            if moments == fail_at:
                raise PowerCut
            return real[name](*arguments, **options)

        return call

    for name in real:
        monkeypatch.setattr(os, name, interrupted(name))
    for step in range(3, 200):
        moments, fail_at = 0, step - 2
        try:
            save(run, parts, step)
        except PowerCut:
            found = checkpoint.find(run)
            checkpoint.verify(found)
            assert checkpoint.read_progress(found).step in (step, step - 1)
            moments, fail_at = 0, 0
            save(run, parts, step)
            assert {path.name for path in (run / "checkpoints").iterdir()} >= {f"step_{step:08d}", "latest"}
            assert not list((run / "checkpoints").glob(".draft_*"))
        else:
            break
    assert step > 15


def test_saving_a_step_again_replaces_it(tmp_path, parts):
    first = save(tmp_path / "a", parts, 2)
    before = (first / "model.safetensors").read_bytes()
    take_step(*parts, 0)
    assert save(tmp_path / "a", parts, 2) == first
    assert (first / "model.safetensors").read_bytes() != before
    checkpoint.verify(first)


def test_every_file_has_reached_the_disk_before_the_checkpoint_gets_its_name(tmp_path, parts, monkeypatch):
    synced = []
    monkeypatch.setattr(saving, "sync", lambda path: synced.append(path.name))
    saved = save(tmp_path / "a", parts, 2)
    assert {path.name for path in saved.iterdir()} | {".draft_step_00000002"} <= set(synced[:-1])
    # the rename itself, in the folder
    assert synced[-1] == "checkpoints"
