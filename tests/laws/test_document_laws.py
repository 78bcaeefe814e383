"""What holds where two documents meet, for every model: read apart, no document depends on another."""

import pytest
import torch
from laws.models import MODELS, VOCAB, make_model
from torch.nn import functional as F

from nested_learning import tree
from nested_learning.data.batch import IGNORE, Batch
from nested_learning.objective.next_token import NextToken
from nested_learning.objective.training import Training

LENGTHS = [(9, 9, 6), (3, 17, 4)]


def make_batch(lengths=LENGTHS, seed: int = 0) -> Batch:
    """Rows of documents of random tokens; the last of each row is padding, without a target."""
    rows = [torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in lengths]
    documents = torch.stack(rows)
    draw = torch.Generator().manual_seed(seed)
    tokens, targets = (torch.randint(VOCAB, documents.shape, generator=draw) for _ in range(2))
    targets[documents == len(lengths[0]) - 1] = IGNORE
    return Batch(tokens, targets, documents)


def change(batch: Batch, where: torch.Tensor) -> Batch:
    return batch._replace(tokens=torch.where(where, (batch.tokens + 1) % VOCAB, batch.tokens))


# one of each way to mix tokens
SEVERAL = ("transformer", "sliding_window", "gated_deltanet", "ttt_mlp", "titans_mac", "titans_mal", "hope", "lstm")


@pytest.fixture(params=MODELS)
def any_model(request):
    return make_model(request.param)


@pytest.fixture(params=SEVERAL)
def model(request):
    return make_model(request.param)


def gradients(training: Training) -> list[torch.Tensor | None]:
    found = [parameter.grad for parameter in training.parameters()]
    training.zero_grad()
    return found


def test_a_document_read_apart_does_not_depend_on_the_one_before_it_to_the_bit(any_model):
    training, batch = Training(any_model, NextToken(), resets=True), make_batch()
    other = change(batch, (torch.arange(2)[:, None] == 0) & (batch.documents == 0))
    first, second = training(batch), training(other)
    # only the first document of the first row was changed, and only its loss changes
    assert not torch.equal(first.nats[0, :9], second.nats[0, :9])
    assert torch.equal(first.nats[0, 9:], second.nats[0, 9:])
    assert torch.equal(first.nats[1], second.nats[1])
    # all are no longer than 32 tokens: one part, whose rows are the documents
    (before,), (after,) = first.state, second.state
    for name, leaf in tree.named_leaves(before).items():
        assert torch.equal(leaf[1:], tree.named_leaves(after)[name][1:]), name
    # control: when the state is carried on, the second document depends on the first
    training.resets = False
    assert not torch.equal(training(batch).nats[0, 9:18], training(other).nats[0, 9:18])


# documents of 32 tokens at most are read together, then the longer ones
@pytest.mark.parametrize("lengths", [LENGTHS, [(33, 6, 15, 10), (3, 20, 36, 5)]], ids=["one_part", "two_parts"])
def test_a_document_is_read_as_if_it_were_alone(model, lengths):
    training, batch = Training(model, NextToken(), resets=True), make_batch(lengths)
    together = training(batch)
    total = 0.0
    for row, documents in enumerate(batch.documents):
        for number in documents.unique():
            here = documents == number
            alone = model(batch.tokens[row : row + 1, here], model.init_state(1))[0]
            targets = batch.targets[row : row + 1, here]
            nats = F.cross_entropy(alone.mT, targets, ignore_index=IGNORE, reduction="none")[0]
            torch.testing.assert_close(together.nats[row, here], nats.detach(), atol=1e-9, rtol=1e-9)
            total += nats.sum()
    torch.testing.assert_close(together.loss, total, atol=1e-9, rtol=1e-9)
    assert together.num_targets == (batch.targets != IGNORE).sum()


def test_tokens_of_the_padding_change_neither_loss_nor_gradient_to_the_bit(model):
    # padding comes last: no target comes after it
    for resets in (False, True):
        training, batch = Training(model, NextToken(), resets=resets), make_batch()
        other = change(batch, batch.targets == IGNORE)
        losses, found = [], []
        for each in (batch, other):
            step = training(each)
            step.loss.backward()
            losses.append(step.loss.detach())
            found.append(gradients(training))
        assert torch.equal(*losses)
        for one, two in zip(*found, strict=True):
            assert (one is None and two is None) or torch.equal(one, two)
