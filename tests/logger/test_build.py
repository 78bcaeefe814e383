"""The console and metrics.jsonl are always on; the chosen loggers come with them."""

import json

from nested_learning.logger.build import open_loggers
from nested_learning.logger.protocol import LoggedRun
from nested_learning.logger.tensorboard import TensorboardConfig


def test_console_and_jsonl_are_always_on(tmp_path, capsys):
    logger = open_loggers({}, LoggedRun(tmp_path, "tiny", {}, 4, 0))
    logger.log(1, {"train/loss": 1.5})
    logger.close()
    assert "step 1/4  train/loss 1.5" in capsys.readouterr().out
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "train/loss": 1.5}


def test_a_configured_logger_is_opened_as_well(tmp_path):
    logger = open_loggers({"tensorboard": TensorboardConfig(name="tensorboard")}, LoggedRun(tmp_path, "tiny", {}, 4, 0))
    logger.log(1, {"train/loss": 1.5})
    logger.close()
    assert list((tmp_path / "tensorboard").iterdir())
    assert (tmp_path / "metrics.jsonl").exists()
