"""TensorBoard for real: what is logged can be read back from the run directory."""

import sys

import pytest

from nested_learning.errors import ConfigError
from nested_learning.logger.protocol import LoggedRun
from nested_learning.logger.tensorboard import TensorboardConfig


def test_scalars_can_be_read_back_and_a_resume_replaces_later_steps(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start_step, steps, loss in ((0, (1, 2, 3), 2.0), (2, (3, 4), 1.0)):
        logger = TensorboardConfig(name="tensorboard").build(LoggedRun(tmp_path, "tiny", {}, 4, start_step))
        for step in steps:
            logger.log(step, {"train/loss": loss, "split": "train"})
        logger.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [
        (1, 2.0),
        (2, 2.0),
        (3, 1.0),
        (4, 1.0),
    ]


def test_a_missing_package_is_an_error_that_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install -e '.\[tensorboard\]'"):
        TensorboardConfig(name="tensorboard").build(LoggedRun(tmp_path, "tiny", {}, 4, 0))
