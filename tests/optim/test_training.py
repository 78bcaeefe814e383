"""Every shipped optimizer trains small models at its shipped rates."""

import pytest
from optim.shipped import SHIPPED
from tiny import tiny, trace

from nested_learning.phase.train import run


@pytest.mark.parametrize("model", ["transformer", "hope"])
@pytest.mark.parametrize("name", SHIPPED)
def test_the_loss_goes_down(name, model, tmp_path):
    config = tiny(tmp_path, model=model, optim=name, steps=10, val_every=10, log_every=10, data__batch_size=8)
    directory = run(config).directory
    assert directory is not None
    losses = [line["val/loss"] for line in trace(directory) if line["split"] == "validation"]
    assert losses[-1] < losses[0] - 0.1, losses
