import pytest
import torch

from nested_learning.data.batch import IGNORE, Batch
from nested_learning.model.levels import LevelConfig
from nested_learning.model.transformer import TransformerConfig
from nested_learning.objective.documents import group_documents, merge_parts, read_documents
from nested_learning.objective.next_token import NextToken
from nested_learning.objective.training import Training


def make_batch(*rows: list[int]) -> Batch:
    """Return rows of documents of the given lengths; no two tokens are equal."""
    documents = torch.stack([torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in rows])
    tokens = torch.arange(documents.numel()).view_as(documents)
    return Batch(tokens, tokens + 1, documents)


def test_documents_are_sorted_by_length_and_padded_without_targets():
    batch = make_batch([50, 150, 56], [256], [20, 236], [32, 33, 191])
    parts = group_documents(batch)
    # up to 32, 64, 128 (none), 256 tokens
    assert [part.batch.tokens.shape for part in parts] == [(2, 32), (3, 56), (4, 256)]
    assert [part.batch.tokens[:, 0].tolist() for part in parts] == [[512, 768], [0, 200, 800], [50, 256, 532, 833]]
    short = parts[0].batch
    assert short.targets[0].tolist() == [*range(513, 533), *[IGNORE] * 12]
    # a document is padded with its own first token
    assert short.tokens[0, 20:].tolist() == [512] * 12
    assert all(part.batch.documents.eq(0).all() for part in parts)
    kept = torch.cat([part.batch.targets[part.batch.targets != IGNORE] for part in parts])
    assert kept.sort().values.tolist() == batch.targets.flatten().tolist()


def test_values_of_documents_return_to_the_positions_of_their_tokens():
    batch = make_batch([50, 150, 56], [20, 200, 36])
    batch.targets[0, 200:] = IGNORE
    parts = group_documents(batch)
    whole = merge_parts(batch, parts, [10 * part.batch.tokens for part in parts])
    assert whole[:, :200].tolist() == (10 * batch.tokens[:, :200]).tolist()
    # a document without a target is not read
    assert whole[0, 200:].eq(0).all() and whole[1, 200:].ne(0).all()
    twice, again = read_documents(batch, lambda part: (2 * part.tokens, part.targets == IGNORE))
    assert twice[0, :200].tolist() == (2 * batch.tokens[0, :200]).tolist() and not again[0, :200].any()


@pytest.mark.parametrize("lengths", [[256], [1] * 256, [3, 253], [32, 33, 65, 126]])
def test_with_sharded_parameters_the_number_of_passes_is_the_same_for_any_documents(lengths):
    batch = make_batch(lengths)
    parts = group_documents(batch, every_length=True)
    assert len(parts) == 4
    assert sum(int((part.batch.targets != IGNORE).sum()) for part in parts) == 256


def make_training(**options: bool) -> Training:
    values = {"dim": 16, "num_layers": 1, "num_heads": 2, "window": None, "tie_embedding": True, "expansion": 2.0}
    config = TransformerConfig(name="transformer", levels=[LevelConfig(name="mlp", period=0)], **values)
    return Training(config.build(300, 0).double(), NextToken(), **options)


def test_passes_over_empty_parts_change_nothing():
    batch = make_batch([70, 186])
    losses, gradients = [], []
    for fixed_passes in (False, True):
        training = make_training(resets=True, fixed_passes=fixed_passes)
        step = training(batch)
        step.loss.backward()
        losses.append(step)
        gradients.append([parameter.grad for parameter in training.parameters()])
    assert torch.equal(losses[0].loss, losses[1].loss) and losses[0].num_targets == losses[1].num_targets == 256
    assert losses[0].metrics == losses[1].metrics and losses[0].metrics["rows"] == 2
    torch.testing.assert_close(*gradients, atol=0, rtol=0)


def test_a_batch_of_nothing_but_padding_has_a_loss_of_zero_with_a_gradient():
    batch = make_batch([32, 32])
    training = make_training(resets=True)
    step = training(batch._replace(targets=torch.full_like(batch.targets, IGNORE)))
    step.loss.backward()
    assert step.loss == 0 and step.num_targets == 0 and step.nats.shape == (1, 64)


def test_rows_of_one_document_are_read_alike_whether_or_not_documents_reset():
    batch = make_batch([64], [64])
    carried, reset = make_training()(batch), make_training(resets=True)(batch)
    assert torch.equal(carried.nats, reset.nats) and torch.equal(carried.loss, reset.loss)
