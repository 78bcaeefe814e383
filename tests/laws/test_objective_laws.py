"""What every objective must satisfy; a new one joins by a line in OBJECTIVES."""

import pytest
import torch

from nested_learning.data.batch import IGNORE, Batch
from nested_learning.model.levels import ContextConfig, LevelConfig
from nested_learning.model.transformer import TransformerConfig
from nested_learning.objective.loss import TokenLoss
from nested_learning.objective.next_token import NextToken
from nested_learning.objective.online import Online
from nested_learning.objective.reconstruct import Reconstruct

OBJECTIVES = {
    "next_token": NextToken(),
    "online": Online(),
    "online_in_segments": Online(segment=3),
    "next_token_in_chunks": NextToken(TokenLoss(chunk=3)),
    "online_in_chunks": Online(loss=TokenLoss(chunk=5)),
    "reconstruct": Reconstruct(),
}
# objectives that see the whole row before they predict
PARALLEL = (Reconstruct,)
LEVELS = {
    "plain": [LevelConfig(name="mlp", period=0)],
    "context": [
        LevelConfig(name="fast", period=3, context=ContextConfig(rule="gd", lr=0.05)),
        LevelConfig(name="slow", period=0),
    ],
}
# two tokens for each of eight positions, for objectives that tell positions apart
VOCAB = 16


@pytest.fixture(params=OBJECTIVES.values(), ids=OBJECTIVES.keys())
def objective(request):
    return request.param


@pytest.fixture(params=LEVELS.values(), ids=LEVELS.keys())
def model(request):
    return make_model(request.param)


def make_model(levels):
    values = {"dim": 16, "num_layers": 1, "num_heads": 2, "window": None, "tie_embedding": True, "expansion": 2.0}
    return TransformerConfig(name="transformer", levels=levels, **values).build(VOCAB, 0).double()


def make_batch(rows: int) -> Batch:
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCAB, (rows, 8), generator=draw)
    targets = torch.randint(VOCAB, (rows, 8), generator=draw)
    targets[:, ::3] = IGNORE
    return Batch(tokens, targets, torch.zeros_like(tokens))


def micro_batch(batch: Batch, rows: slice) -> Batch:
    return Batch(*(tensor[rows] for tensor in batch))


def test_micro_batches_add_up_to_the_batch(objective, model):
    batch = make_batch(5)
    whole = objective(model, batch, model.init_state(5))
    parts = [
        objective(model, micro_batch(batch, rows), model.init_state(n))
        for rows, n in ((slice(0, 2), 2), (slice(2, 5), 3))
    ]
    torch.testing.assert_close(sum(part.loss for part in parts), whole.loss)
    assert sum(part.num_targets for part in parts) == whole.num_targets == int((batch.targets != IGNORE).sum())
    for name, total in whole.metrics.items():
        assert sum(part.metrics[name] for part in parts) == total
    torch.testing.assert_close(torch.cat([part.nats for part in parts]), whole.nats)


def test_ignored_targets_change_neither_loss_nor_gradient(objective, model):
    batch = make_batch(3)
    nothing = batch._replace(targets=torch.full_like(batch.targets, IGNORE))
    step = objective(model, nothing, model.init_state(3))
    step.loss.backward()
    assert step.loss == 0 and step.num_targets == 0
    assert all(parameter.grad is None or parameter.grad.eq(0).all() for parameter in model.parameters())


def test_the_loss_reaches_every_parameter(objective, model):
    objective(model, make_batch(3), model.init_state(3)).loss.backward()
    unreached = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert unreached == []


def test_loss_and_nats_agree_and_metrics_are_sums_in_range(objective, model):
    step = objective(model, make_batch(4), model.init_state(4))
    torch.testing.assert_close(step.nats.sum(), step.loss.detach(), check_dtype=False)
    assert 0 <= step.metrics["correct"] <= step.num_targets
    assert 0 <= step.metrics["rows_correct"] <= step.metrics["rows"] == 4


def test_rows_are_read_as_if_each_were_alone(objective, model):
    batch = make_batch(3)
    together = objective(model, batch, model.init_state(3))
    for row in range(3):
        alone = objective(model, micro_batch(batch, slice(row, row + 1)), model.init_state(1))
        torch.testing.assert_close(alone.nats, together.nats[row : row + 1], atol=1e-12, rtol=0)


@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_later_token_changes_no_earlier_loss_to_the_bit(objective, model, at):
    if isinstance(objective, PARALLEL):
        pytest.skip("predicts every position from the end of the row")
    batch, changed = make_batch(3), make_batch(3)
    changed.tokens[:, at:] = (changed.tokens[:, at:] + 1) % VOCAB
    # the target of a position is the token after it
    changed.targets[:, at - 1 :] = (changed.targets[:, at - 1 :].clamp(min=0) + 1) % VOCAB
    before, after = (objective(model, each, model.init_state(3)).nats for each in (batch, changed))
    assert torch.equal(before[:, : at - 1], after[:, : at - 1])
    assert not torch.equal(before[:, at:], after[:, at:])


def test_online_is_next_token_to_the_bit_where_no_level_has_a_context():
    model, batch = make_model(LEVELS["plain"]), make_batch(3)
    online, parallel = (each(model, batch, model.init_state(3)) for each in (Online(), NextToken()))
    assert torch.equal(online.loss, parallel.loss) and torch.equal(online.nats, parallel.nats)
    ours, theirs = (torch.autograd.grad(step.loss, list(model.parameters())) for step in (online, parallel))
    assert all(map(torch.equal, ours, theirs))
