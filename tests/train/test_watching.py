"""The time of a whole run by phase, across restarts; logging and profiling change no result."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import fingerprints, tiny, trace

from nested_learning.logger.jsonl import JsonlLogger, read_lines
from nested_learning.logger.tensorboard import TensorboardLogger
from nested_learning.phase import train
from nested_learning.phase.train import run
from nested_learning.train import trainer
from nested_learning.train.stopwatch import PHASES, TRAINING, Stopwatch
from nested_learning.train.trainer import Trainer

# what is slowed down, how often it is called in a run of 6 steps, and the phase that its time must be found in
SLOW = {"data": 1.0, "forward_backward": 10.0, "optimizer": 2.0, "validation": 30.0, "checkpoint": 20.0, "log": 0.5}


class KilledError(Exception):
    """A kill of the process, which saves nothing."""


@pytest.fixture
def ticks(monkeypatch) -> Callable[[float], None]:
    """A clock that moves only when something sleeps, so that the test does not depend on real time."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(train, "Stopwatch", lambda: Stopwatch(lambda: now[0]))

    def slow(owner: object, name: str, phase: str) -> None:
        real = vars(owner)[name]

        def slowly(*arguments, **keywords):
            sleep(SLOW[phase])
            return real(*arguments, **keywords)

        monkeypatch.setattr(owner, name, slowly)

    slow(Trainer, "micro_batches", "data")
    slow(Trainer, "backward", "forward_backward")
    slow(Trainer, "update", "optimizer")
    slow(trainer, "validate", "validation")
    slow(trainer.checkpoint, "save", "checkpoint")
    slow(JsonlLogger, "log", "log")
    return sleep


def summary(directory: Path) -> dict:
    return json.loads((directory / "summary.json").read_text())


def test_every_second_of_a_run_is_in_its_phase_and_they_sum_to_the_wall(tmp_path, ticks):
    directory = run(tiny(tmp_path, steps=6, val_every=3, save_every=2)).directory
    found = summary(directory)
    expected = {"data": 6 * 1.0, "forward_backward": 6 * 10.0, "optimizer": 6 * 2.0, "validation": 3 * 30.0}
    # the last checkpoint says what was spent until its start
    expected |= {"checkpoint": 2 * 20.0, "log": 9 * 0.5}
    assert found["phase_seconds"] == dict.fromkeys(PHASES, 0.0) | expected
    assert found["wall_seconds"] == sum(expected.values()) and found["lost_seconds"] == 0
    assert found["seconds"] == 6 * 13.0 and found["goodput"] == 6 * 13.0 / found["wall_seconds"]
    assert found["tokens_per_second"] == found["tokens"] / (6 * 13.0)
    for line in read_lines(directory / "metrics.jsonl"):
        assert sum(line[f"perf/seconds/{name}"] for name in PHASES) == line["perf/wall_seconds"]
        assert sum(line[f"perf/seconds/{name}"] for name in TRAINING) == line["perf/seconds"]
        assert line["perf/memory_bytes"] > 1e6
    rates = [line["perf/tokens_per_second"] for line in read_lines(directory / "metrics.jsonl") if "train/loss" in line]
    assert rates == [4 * 32 / 13.0] * 6


def test_time_is_counted_across_a_kill_and_discarded_steps_are_lost(tmp_path, ticks, monkeypatch):
    config = tiny(tmp_path, name="a", steps=6, val_every=6, save_every=2)
    real = Trainer.count_targets

    def die(self, batches):
        if self.progress.step == 5:
            raise KilledError
        return real(self, batches)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(Trainer, "count_targets", die)
        run(config)
    directory = tmp_path / "runs" / "a"
    before = read_lines(directory / "metrics.jsonl")[-1]
    assert before["step"] == 5
    found = summary(run(config).directory)
    # of the process that was killed, what it logged after the checkpoint of step 4: that checkpoint, and a step
    assert found["lost_seconds"] == 20.0 + 13.0
    assert found["seconds"] == 6 * 13.0
    assert found["wall_seconds"] == sum(found["phase_seconds"].values()) + 33.0
    assert found["wall_seconds"] > before["perf/wall_seconds"]
    steps = [line["step"] for line in read_lines(directory / "metrics.jsonl") if line["split"] == "train"]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_steps_that_a_rollback_discards_are_lost(tmp_path, ticks, monkeypatch):
    slowly = Trainer.backward

    def backward(self, batches, num_targets, step):
        result = slowly(self, batches, num_targets, step)
        if step == 3:
            next(self.model.parameters()).grad *= float("nan")
        return result

    monkeypatch.setattr(Trainer, "backward", backward)
    found = summary(run(tiny(tmp_path, steps=6, val_every=6, save_every=2, divergence="rollback")).directory)
    # since the start of the checkpoint of step 2: it, a step, its line, a step that was not finite and is read again
    assert found["lost_seconds"] == 20.0 + 13.0 + 0.5 + 11.0 + 10.0
    assert found["seconds"] == 5 * 13.0


def test_a_logger_that_fails_in_the_middle_changes_nothing(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorboard")
    plain = run(tiny(tmp_path, name="plain", steps=4)).directory
    real = TensorboardLogger.log

    def log(self, step, values):
        if step == 3:
            raise OSError("no space left")
        real(self, step, values)

    monkeypatch.setattr(TensorboardLogger, "log", log)
    watched = run(tiny(tmp_path, name="watched", steps=4, logger="[tensorboard]")).directory
    assert trace(watched) == trace(plain) and fingerprints(watched) == fingerprints(plain)
    assert capsys.readouterr().err.count("no space left") == 1
