"""Several loggers act as one; a logger that fails is reported once and never stops the run."""

import pytest

from nested_learning.errors import ConfigError
from nested_learning.logger.protocol import Fanout, Guarded


class Recorder:
    def __init__(self, fail: bool = False) -> None:
        self.lines: list[tuple[int, dict]] = []
        self.fail = fail
        self.closed = False

    def log(self, step, values):
        if self.fail:
            raise OSError("no route to host\nsecond line")
        self.lines.append((step, dict(values)))

    def rewind(self, step):
        self.lines = [line for line in self.lines if line[0] <= step]

    def close(self):
        self.closed = True


def test_everything_reaches_every_logger():
    first, second = Recorder(), Recorder()
    fanout = Fanout([first, second])
    fanout.log(3, {"train/loss": 1.5})
    fanout.close()
    assert first.lines == second.lines == [(3, {"train/loss": 1.5})]
    assert first.closed and second.closed


def test_a_fanout_of_no_loggers_is_silent(capsys):
    silent = Fanout()
    silent.log(1, {"train/loss": 1.0})
    silent.close()
    assert capsys.readouterr() == ("", "")


def test_a_logger_that_fails_is_reported_once_and_the_run_continues(capsys):
    guarded = Guarded("wandb", lambda: Recorder(fail=True))
    for step in range(3):
        guarded.log(step, {"train/loss": 1.0})
    guarded.close()
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert "logger=wandb" in warning and "OSError: no route to host" in warning


def test_a_logger_that_cannot_open_is_reported_once_and_the_run_continues(capsys):
    def refuse():
        raise RuntimeError("service down")

    guarded = Guarded("wandb", refuse)
    guarded.log(1, {"train/loss": 1.0})
    assert capsys.readouterr().err.count("service down") == 1


def test_a_configuration_error_of_a_logger_is_raised():
    def refuse():
        raise ConfigError("pip install something")

    with pytest.raises(ConfigError, match="pip install something"):
        Guarded("tensorboard", refuse)
