"""Reconstruction predicts every token from the output at the last token, with a slice of the logits per position."""

import pytest
import torch

from nested_learning.data.batch import IGNORE, Batch, collate
from nested_learning.data.tasks.mad import MadConfig
from nested_learning.errors import ConfigError
from nested_learning.model.levels import LevelConfig
from nested_learning.model.lstm import LSTMConfig
from nested_learning.objective.reconstruct import Reconstruct

LENGTH, TOKENS = 6, 4


def make_batch() -> Batch:
    source = MadConfig(task="compression", length=LENGTH, vocabulary=TOKENS).build(0)
    return collate([source.row("train", 0, index) for index in range(3)])


class FixedLogits(torch.nn.Module):
    """Returns the logits `last` at the last token, and zeros before."""

    def __init__(self, last: torch.Tensor) -> None:
        super().__init__()
        self.last = last

    def forward(self, tokens: torch.Tensor, state: None) -> tuple[torch.Tensor, None]:
        logits = torch.zeros(*tokens.shape, LENGTH * TOKENS)
        logits[:, -1] = self.last
        return logits, state


def test_a_model_that_names_all_tokens_at_the_end_has_no_errors() -> None:
    batch = make_batch()
    last = torch.zeros(3, LENGTH * TOKENS).scatter(1, batch.targets, 20.0)
    step = Reconstruct()(FixedLogits(last), batch, None)
    assert step.metrics["correct"] == step.num_targets == 3 * LENGTH
    assert step.metrics["rows_correct"] == 3 and step.loss < 1e-3


def test_each_position_has_its_own_slice_of_the_logits() -> None:
    batch = make_batch()
    last = torch.zeros(3, LENGTH * TOKENS).scatter(1, batch.targets, 20.0)
    # the wrong token at position 2, with larger logits than at the others
    last[:, 2 * TOKENS : 3 * TOKENS] = 30 * torch.eye(TOKENS)[(batch.tokens[:, 2] + 1) % TOKENS]
    step = Reconstruct()(FixedLogits(last), batch, None)
    wrong = step.nats > 1
    assert wrong[:, 2].all() and wrong.sum() == 3


def test_a_position_without_target_has_no_part_in_the_loss() -> None:
    batch = make_batch()
    batch.targets[0, 1] = IGNORE
    step = Reconstruct()(FixedLogits(torch.zeros(3, LENGTH * TOKENS)), batch, None)
    assert step.num_targets == 3 * LENGTH - 1 and step.nats[0, 1] == 0
    assert step.loss.item() == pytest.approx((3 * LENGTH - 1) * torch.tensor(TOKENS).log().item())


def test_a_vocabulary_that_is_no_multiple_of_the_positions_is_refused() -> None:
    model = LSTMConfig(
        name="lstm", dim=8, num_layers=1, num_heads=1, expansion=1.0, tie_embedding=True,
        levels=[LevelConfig(name="mlp", period=0)],
    ).build(LENGTH * TOKENS + 1, 0)  # fmt: skip
    with pytest.raises(ConfigError, match=r"vocabulary of 25 is no multiple of rows of 6 .*data\.task=compression"):
        Reconstruct()(model, make_batch(), model.init_state(3))
