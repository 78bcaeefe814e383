"""Reconstruction reads the output at the last token, a part of it for each place."""

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


class Said(torch.nn.Module):
    """Says `last` at the last token, and nothing before."""

    def __init__(self, last: torch.Tensor) -> None:
        super().__init__()
        self.last = last

    def forward(self, tokens: torch.Tensor, state: None) -> tuple[torch.Tensor, None]:
        logits = torch.zeros(*tokens.shape, LENGTH * TOKENS)
        logits[:, -1] = self.last
        return logits, state


def test_whoever_says_all_tokens_at_the_end_is_right() -> None:
    batch = make_batch()
    last = torch.zeros(3, LENGTH * TOKENS).scatter(1, batch.targets, 20.0)
    step = Reconstruct()(Said(last), batch, None)
    assert step.metrics["correct"] == step.num_targets == 3 * LENGTH
    assert step.metrics["rows_correct"] == 3 and step.loss < 1e-3


def test_each_place_is_read_from_a_part_of_its_own() -> None:
    batch = make_batch()
    last = torch.zeros(3, LENGTH * TOKENS).scatter(1, batch.targets, 20.0)
    # the wrong token at place 2, however loud the other places are
    last[:, 2 * TOKENS : 3 * TOKENS] = 30 * torch.eye(TOKENS)[(batch.tokens[:, 2] + 1) % TOKENS]
    step = Reconstruct()(Said(last), batch, None)
    wrong = step.nats > 1
    assert wrong[:, 2].all() and wrong.sum() == 3


def test_a_place_without_target_counts_for_nothing() -> None:
    batch = make_batch()
    batch.targets[0, 1] = IGNORE
    step = Reconstruct()(Said(torch.zeros(3, LENGTH * TOKENS)), batch, None)
    assert step.num_targets == 3 * LENGTH - 1 and step.nats[0, 1] == 0
    assert step.loss.item() == pytest.approx((3 * LENGTH - 1) * torch.tensor(TOKENS).log().item())


def test_outputs_that_are_no_pairs_of_place_and_token_are_refused() -> None:
    model = LSTMConfig(
        name="lstm", dim=8, num_layers=1, num_heads=1, expansion=1.0, tie_embedding=True,
        levels=[LevelConfig(name="mlp", period=0)],
    ).build(LENGTH * TOKENS + 1, 0)  # fmt: skip
    with pytest.raises(ConfigError, match=r"vocabulary of 25 is no multiple of rows of 6 .*data\.task=compression"):
        Reconstruct()(model, make_batch(), model.init_state(3))
