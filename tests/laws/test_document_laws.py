"""What holds at the border of two documents, for every model: read apart, neither knows of the other."""

import pytest
import torch
from laws.models import MODELS, VOCAB, make_model

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


# of each way to mix tokens one
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


def test_a_document_read_apart_does_not_know_the_one_before_it_to_the_bit(any_model):
    training, batch = Training(any_model, NextToken(), resets=True), make_batch()
    other = change(batch, (torch.arange(2)[:, None] == 0) & (batch.documents == 0))
    first, second = training(batch), training(other)
    # what was changed is the first document of the first row, and its loss alone is another
    assert not torch.equal(first.nats[0, :9], second.nats[0, :9])
    assert torch.equal(first.nats[0, 9:], second.nats[0, 9:])
    assert torch.equal(first.nats[1], second.nats[1])
    # all are no longer than 32 tokens: one part, whose rows are the documents
    (before,), (after,) = first.state, second.state
    for name, leaf in tree.named_leaves(before).items():
        assert torch.equal(leaf[1:], tree.named_leaves(after)[name][1:]), name
    # the model would know if it could: carried on, the state tells the second document of the first
    training.resets = False
    assert not torch.equal(training(batch).nats[0, 9:18], training(other).nats[0, 9:18])


def test_a_document_is_read_as_if_it_were_alone(model):
    training, batch = Training(model, NextToken(), resets=True), make_batch()
    together = training(batch)
    total = 0.0
    for row, start, end in ((0, 0, 9), (0, 9, 18), (1, 0, 3), (1, 3, 20)):
        alone = model(batch.tokens[row : row + 1, start:end], model.init_state(1))[0]
        nats = -alone.log_softmax(-1).gather(2, batch.targets[row : row + 1, start:end, None])[0, :, 0]
        torch.testing.assert_close(together.nats[row, start:end], nats.detach(), atol=1e-9, rtol=1e-9)
        total += nats.sum()
    torch.testing.assert_close(together.loss, total, atol=1e-9, rtol=1e-9)
    assert together.num_targets == 9 + 9 + 3 + 17


def test_what_stands_where_nothing_is_asked_changes_neither_loss_nor_gradient_to_the_bit(model):
    # padding comes last: nothing that is asked comes after it
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
