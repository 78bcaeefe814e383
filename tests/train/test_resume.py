"""Killed at any moment and started again, a run ends with the bytes of one that was never stopped."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tiny import fingerprints, in_new_process, tiny, trace

from nested_learning.errors import CheckpointError
from nested_learning.files import hash_file
from nested_learning.phase.train import run

ROOT = Path(__file__).parents[2]
# levels whose slow clock lies across checkpoints: gradients gathered before one are used after it
LEVELS = "[{name: fast, period: 0}, {name: slow, period: 640}]"


def wait_for_lines(metrics: Path, count: int, process) -> None:
    """Return when the run has logged `count` lines, or has ended."""
    is_alive = process.is_alive if hasattr(process, "is_alive") else lambda: process.poll() is None
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= count) and is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_run_killed_again_and_again_ends_with_the_same_bytes(tmp_path):
    config = tiny(
        tmp_path, model="hope", optim="mixed_muon", name="killed", steps=24, val_every=5, save_every=3,
        model__levels=LEVELS, model__dropout=0.1, micro_batches=2,
    )  # fmt: skip
    metrics = tmp_path / "runs" / "killed" / "metrics.jsonl"
    delay = random.Random(0)
    for lines in (2, 9, 17):
        process = in_new_process(config)
        wait_for_lines(metrics, lines, process)
        time.sleep(delay.uniform(0, 0.02))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the run ended before it was killed"
    for name in ("killed", "whole"):
        process = in_new_process(replace(config, name=name))
        process.join()
        assert process.exitcode == 0
    killed, whole = (tmp_path / "runs" / name for name in ("killed", "whole"))
    assert fingerprints(killed) == fingerprints(whole)
    assert trace(killed) == trace(whole)
    assert [line["step"] for line in trace(killed) if line["split"] == "train"] == list(range(1, 25))


def test_the_same_command_resumes_after_a_kill(tmp_path):
    def start(name: str) -> subprocess.Popen:
        config = tiny(tmp_path)
        command = ["model=transformer", "optim=adamw", "data=text", f"data.path={config.data.path}", "data.seq_len=32"]
        command += ["data.batch_size=4", "data.val_rows=4", "model.dim=16", "model.num_layers=1", "model.num_heads=2"]
        command += ["steps=150", "save_every=20", "val_every=150", "log_every=1", "device=cpu", "evals=[]"]
        command += [f"out={tmp_path / 'runs'}", f"name={name}", "sampling.num_tokens=1"]
        return subprocess.Popen([sys.executable, "train.py", *command], cwd=ROOT, stdout=subprocess.DEVNULL)

    process, other = start("killed"), start("whole")
    wait_for_lines(tmp_path / "runs" / "killed" / "metrics.jsonl", 50, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert start("killed").wait() == 0 and other.wait() == 0
    killed, whole = (tmp_path / "runs" / name for name in ("killed", "whole"))
    assert fingerprints(killed) == fingerprints(whole) and trace(killed) == trace(whole)
    assert json.loads((killed / "environment.json").read_text())["from_step"] >= 40


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Train a run of 6 steps with a checkpoint in the middle; return its configuration."""
    folder = tmp_path_factory.mktemp("resume")
    config = tiny(
        folder, model="hope", optim="mixed_muon", name="whole", save_every=3, val_every=2, model__levels=LEVELS
    )
    run(config)
    return config


def stopped_half_way(config, name: str):
    """Copy the run as if it had been killed after step 3; return the copy's configuration and directory."""
    whole, copy = Path(config.out) / "whole", Path(config.out) / name
    shutil.copytree(whole, copy)
    shutil.rmtree(copy / "checkpoints" / "step_00000006")
    (copy / "checkpoints" / "latest").write_text("step_00000003\n")
    (copy / "summary.json").unlink()
    return replace(config, name=name), copy


def rewrite(saved: Path, name: str, change) -> None:
    """Change the tensors of a checkpoint file, and its hash too."""
    tensors = {key: change(key, tensor) for key, tensor in load_file(saved / name).items()}
    save_file(tensors, saved / name)
    hashes = json.loads((saved / "hashes.json").read_text())
    (saved / "hashes.json").write_text(json.dumps(hashes | {name: hash_file(saved / name)}))


def test_lines_logged_after_the_checkpoint_or_torn_are_dropped(halves):
    config, copy = stopped_half_way(halves, "torn")
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "tok')
    run(config)
    whole = Path(config.out) / "whole"
    assert trace(copy) == trace(whole) and fingerprints(copy) == fingerprints(whole)


def test_every_part_of_the_state_matters(halves):
    saved = Path(halves.out) / "whole" / "checkpoints" / "step_00000003"
    slots = {key.rsplit("/", 1)[1] for key in load_file(saved / "optimizer.safetensors")}
    assert len(slots) >= 5
    whole = fingerprints(Path(halves.out) / "whole")
    for slot in sorted(slots):
        config, copy = stopped_half_way(halves, f"without_{slot}")
        rewrite(
            copy / "checkpoints" / "step_00000003",
            "optimizer.safetensors",
            lambda key, tensor, slot=slot: tensor.clone().zero_() if key.endswith(f"/{slot}") else tensor,
        )
        run(config)
        assert fingerprints(copy)["model.safetensors"] != whole["model.safetensors"], slot


def test_a_checkpoint_without_a_part_of_the_optimizer_is_refused(halves):
    config, copy = stopped_half_way(halves, "lacking")
    saved = copy / "checkpoints" / "step_00000003"
    tensors = load_file(saved / "optimizer.safetensors")
    removed = sorted(tensors)[0]
    del tensors[removed]
    save_file(tensors, saved / "optimizer.safetensors")
    hashes = json.loads((saved / "hashes.json").read_text())
    hashes["optimizer.safetensors"] = hash_file(saved / "optimizer.safetensors")
    (saved / "hashes.json").write_text(json.dumps(hashes))
    with pytest.raises(CheckpointError, match=removed):
        run(config)


def test_a_damaged_checkpoint_stops_the_run_which_can_resume_from_the_older_one(halves):
    copy = Path(halves.out) / "damaged"
    shutil.copytree(Path(halves.out) / "whole", copy)
    (copy / "summary.json").unlink()
    (copy / "checkpoints" / "step_00000006" / "model.safetensors").write_bytes(b"lost")
    before = (copy / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match=r"model.safetensors: damaged.*resume=.*step_00000003"):
        run(replace(halves, name="damaged"))
    assert (copy / "metrics.jsonl").read_bytes() == before
    run(replace(halves, name=None, resume=str(copy / "checkpoints" / "step_00000003")))
    whole = Path(halves.out) / "whole"
    assert fingerprints(copy) == fingerprints(whole) and trace(copy) == trace(whole)


def test_a_run_does_not_resume_with_other_data(halves):
    config, _ = stopped_half_way(halves, "other_data")
    text = Path(config.data.path)
    original = text.read_text()
    try:
        text.write_text(original.replace("def", "fed", 1))
        with pytest.raises(CheckpointError, match="the data is not what this run was trained on"):
            run(config)
    finally:
        text.write_text(original)


def test_a_run_killed_before_its_first_checkpoint_starts_again_and_so_do_its_metrics(halves):
    copy = Path(halves.out) / "early"
    shutil.copytree(Path(halves.out) / "whole", copy, ignore=shutil.ignore_patterns("checkpoints", "summary.json"))
    run(replace(halves, name="early"))
    whole = Path(halves.out) / "whole"
    assert trace(copy) == trace(whole) and fingerprints(copy) == fingerprints(whole)
