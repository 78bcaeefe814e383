"""The run directory: one process at a time, one configuration, no file created too early."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import tiny

from nested_learning.errors import CheckpointError, ConfigError
from nested_learning.train import run as runs
from nested_learning.train.run import command_to_continue, lock_run, make_up_directory, program, refuse_changes
from nested_learning.world.world import World

ALONE = World(0, 1, 0, torch.device("cpu"), "gloo")


def begin(config) -> Path:
    with lock_run(config, ALONE) as lock:
        return lock.open_run(0).directory


def test_a_named_run_is_created_in_its_directory_with_configuration_and_environment(tmp_path):
    directory = begin(tiny(tmp_path, name="a", seed=7))
    assert directory == tmp_path / "runs" / "a"
    assert "seed: 7\n" in (directory / "config.yaml").read_text()
    environment = json.loads((directory / "environment.json").read_text())
    assert environment["packages"]["torch"] and environment["python"] and environment["command"]
    assert environment["git"] is None or len(environment["git"]["commit"]) == 40


def test_locking_a_new_run_creates_nothing(tmp_path):
    with lock_run(tiny(tmp_path, name="a"), ALONE) as lock:
        assert lock.directory is None and lock.checkpoint is None
    assert not (tmp_path / "runs").exists()


def test_made_up_names_differ_even_in_the_same_second(tmp_path, monkeypatch):
    draws = iter(["aa", "aa", "bb"])
    monkeypatch.setattr(runs.secrets, "token_hex", lambda _: next(draws))

    class Noon:
        @staticmethod
        def now():
            return runs_datetime(2026, 1, 2, 12)

    runs_datetime = runs.datetime
    monkeypatch.setattr(runs, "datetime", Noon)
    first, second = make_up_directory(tmp_path, "hope"), make_up_directory(tmp_path, "hope")
    assert (first.name, second.name) == ("2026-01-02_12-00-00_hope_aa", "2026-01-02_12-00-00_hope_bb")


def test_resume_never_refuses_a_run_that_exists(tmp_path):
    begin(tiny(tmp_path, name="a"))
    with pytest.raises(ConfigError, match=r"resume=never: .* exists"):
        begin(tiny(tmp_path, name="a", resume="never"))


def test_a_directory_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="is not a run"):
        begin(tiny(tmp_path, name="a"))
    assert [path.name for path in (tmp_path / "runs" / "a").iterdir()] == ["letter.txt"]


def test_resume_of_a_path_that_is_not_there_or_has_another_name_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such directory"):
        begin(tiny(tmp_path, resume=tmp_path / "nowhere"))
    directory = begin(tiny(tmp_path, name="a"))
    with pytest.raises(ConfigError, match="not name=b"):
        begin(tiny(tmp_path, name="b", resume=directory))


@pytest.mark.parametrize(
    "change", [{"steps": 7}, {"model__dim": 32}, {"seed": 1}, {"overfit": "true"}, {"dtype": "bfloat16"}]
)
def test_a_run_does_not_resume_with_another_configuration(tmp_path, change):
    begin(tiny(tmp_path, name="a"))
    (key,) = change
    with pytest.raises(ConfigError, match=rf"{key.replace('__', '.')} was .*, is (?i:{change[key]});"):
        begin(tiny(tmp_path, name="a", **change))


def test_more_steps_for_a_run_are_answered_with_the_way_to_train_further(tmp_path):
    begin(tiny(tmp_path, name="a"))
    with pytest.raises(ConfigError, match=r"another name=; to train further from it give branch_from=.* too$"):
        begin(tiny(tmp_path, name="a", steps=9))
    with pytest.raises(ConfigError, match=r"another name=$"):
        begin(tiny(tmp_path, name="a", steps=9, seed=1))


def test_how_a_run_is_logged_saved_and_divided_may_change(tmp_path):
    begin(tiny(tmp_path, name="a"))
    begin(tiny(tmp_path, name="a", save_every=1, val_every=2, log_every=5, micro_batches=2, prompt="x"))


def test_a_key_that_only_one_configuration_has_counts_as_a_change(tmp_path):
    saved = {"optim": {"groups": [{"lr": 1}]}, "model": {"name": "a"}, "world": {"reduction": "fast"}}
    given = {"optim": {"groups": [{"lr": 2}]}, "model": {"name": "b", "window": None}, "world": {"reduction": "fast"}}
    with pytest.raises(ConfigError, match=r"model.window was absent, is None; optim.groups.0.lr was 1, is 2"):
        refuse_changes(tmp_path, saved, given)


def test_a_key_that_another_version_did_not_have_is_named(tmp_path):
    rest = {"log_every": 1, "world": {"reduction": "fast"}}
    saved = {"model": {"name": "a"}, **rest}
    with pytest.raises(CheckpointError, match=r"another version .*has no model.window, stages; .*environment.json"):
        refuse_changes(tmp_path, saved, {"model": {"name": "a", "window": None}, "stages": None, **rest})
    # what may change may also be new
    refuse_changes(tmp_path, saved, {"model": {"name": "a"}, "save_every": 2, **rest})


def test_environment_keeps_what_earlier_processes_wrote(tmp_path):
    directory = begin(tiny(tmp_path, name="a"))
    begin(tiny(tmp_path, name="a"))
    environment = json.loads((directory / "environment.json").read_text())
    assert len(environment["earlier"]) == 1 and environment["earlier"][0]["from_step"] == 0


HOLD = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tiny import tiny
from nested_learning.train.run import lock_run
from nested_learning.world.world import World
with lock_run(tiny(Path(sys.argv[2]), name="a"), World(0, 1, 0, torch.device("cpu"), "gloo")) as lock:
    lock.open_run(0)
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_with_the_id_of_the_one_that_holds_the_run(tmp_path):
    command = [sys.executable, "-c", HOLD, str(Path(__file__).parents[1]), str(tmp_path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=f"in use by process {holder.pid}"):
            begin(tiny(tmp_path, name="a"))
    finally:
        holder.kill()
        holder.communicate()
    # the lock of a killed process is gone with it
    begin(tiny(tmp_path, name="a"))


def test_two_locks_of_a_new_name_make_one_run(tmp_path):
    with lock_run(tiny(tmp_path, name="a"), ALONE) as first, lock_run(tiny(tmp_path, name="a"), ALONE) as second:
        first.open_run(0)
        with pytest.raises(ConfigError, match="just created by another process"):
            second.open_run(0)


def test_the_command_to_continue_is_the_same_command_with_the_run_to_resume(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    monkeypatch.setattr(sys, "argv", ["../x/train.py", "model=hope", "resume=never", "prompt=def f"])
    ends = "../x/train.py model=hope 'prompt=def f' resume=runs/a"
    assert command_to_continue(Path("runs/a"), 1) == f".venv/bin/python {ends}"
    assert command_to_continue(Path("runs/a"), 2) == f".venv/bin/torchrun --nproc-per-node 2 {ends}"


def test_a_program_that_its_name_finds_is_called_by_its_name(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/bin/{name}")
    monkeypatch.setattr(sys, "executable", "/opt/bin/python")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert program() == ["python", "train.py"]
    monkeypatch.setattr(sys, "argv", ["/opt/bin/nl"])
    assert program() == ["nl"]
    monkeypatch.setattr(sys, "argv", ["/other/bin/nl"])
    assert program() == ["/other/bin/nl"]


def test_a_folder_where_no_run_can_be_created_is_refused_with_the_override_that_helps(tmp_path):
    (tmp_path / "file").touch()
    with (
        lock_run(tiny(tmp_path, out=tmp_path / "file"), ALONE) as lock,
        pytest.raises(ConfigError, match="another out="),
    ):
        lock.open_run(0)


def test_the_context_has_the_values_of_the_configuration(tmp_path):
    config = replace(tiny(tmp_path), dtype="bfloat16")
    with lock_run(config, ALONE) as lock:
        ctx = lock.open_run(0)
        assert (ctx.seed, ctx.dtype, ctx.device.type, ctx.world) == (0, torch.bfloat16, "cpu", ALONE)
        assert ctx.directory.parent == tmp_path / "runs"
