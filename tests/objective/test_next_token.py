"""`objective=next_token`: sums over valid targets."""

import pytest
import torch
from torch import nn

from nested_learning.data.batch import IGNORE, Batch
from nested_learning.objective.loss import count_correct, cross_entropy, is_correct
from nested_learning.objective.next_token import NextToken


class Table(nn.Module):
    """A model whose logits depend on the token alone; its state counts the tokens read."""

    def __init__(self, vocab_size: int = 5) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(vocab_size, vocab_size, generator=torch.Generator().manual_seed(0)))

    def forward(self, tokens, state):
        return self.logits[tokens], state + tokens.shape[1]


def make_batch(*targets: list[int]) -> Batch:
    tokens = torch.arange(len(targets) * len(targets[0])).view(len(targets), -1) % 5
    return Batch(tokens, torch.tensor(targets), torch.zeros_like(tokens))


def test_the_loss_is_the_sum_of_nats_over_valid_targets_by_hand():
    model, batch = Table(), make_batch([1, IGNORE, 3], [4, 0, IGNORE])
    by_hand = 0.0
    for token, target in zip(batch.tokens.flatten().tolist(), batch.targets.flatten().tolist(), strict=True):
        if target != IGNORE:
            by_hand -= model.logits[token].log_softmax(0)[target].item()
    step = NextToken()(model, batch, 0)
    assert step.loss.item() == pytest.approx(by_hand, rel=1e-6)
    assert step.num_targets == 4 and step.state == 3
    assert step.nats.sum().item() == pytest.approx(by_hand, rel=1e-6)
    assert step.nats[0, 1] == 0 and step.nats[1, 2] == 0 and not step.nats.requires_grad


def test_correct_targets_and_flawless_rows_are_counted_and_rows_without_targets_are_not():
    targets = torch.tensor([[1, IGNORE], [2, 3], [IGNORE, IGNORE]])
    logits = nn.functional.one_hot(torch.tensor([[1, 4], [2, 4], [0, 0]]), 5).float()
    counts = count_correct(is_correct(logits, targets), targets != IGNORE)
    assert {name: int(count) for name, count in counts.items()} == {"correct": 2, "rows": 2, "rows_correct": 1}


def test_an_ignored_position_has_no_part_in_loss_and_gradient():
    model = Table()
    before = NextToken()(model, make_batch([1, IGNORE, 3]), 0)
    before.loss.backward()
    gradient, model.logits.grad = model.logits.grad, None
    assert gradient is not None and gradient[1].eq(0).all() and gradient[0].ne(0).any()


def test_the_loss_of_half_precision_logits_is_computed_in_float32():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1)).bfloat16()
    nats = cross_entropy(logits, torch.zeros(2, 3, dtype=torch.int64))
    assert nats.dtype == torch.float32
    torch.testing.assert_close(nats, -logits.float().log_softmax(-1)[..., 0])
