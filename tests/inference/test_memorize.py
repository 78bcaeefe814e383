"""A large batch memorizes row by row: what a row writes, and keeps, depends on that row only."""

import pytest
import torch
from inference.test_session import build
from tiny import memorize_policy

from nested_learning import tree
from nested_learning.inference.session import Session

ROWS, VOCAB = 9, 32
# rows that surprise in different degrees: the number of different tokens in a row grows with its index
TEXTS = torch.stack([torch.arange(12) % (row + 1) * 3 % VOCAB for row in range(ROWS)])
QUESTIONS = TEXTS.flip(0)
MODELS = ("titans_lmm", "hope")


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return build(request.param, VOCAB)


def open_session(model, batch, threshold=None):
    policy = memorize_policy(chunk=5, lr=0.7, surprise_metric="loss", surprise_threshold=threshold)
    return Session(model, batch=batch, policy=policy)


def test_each_of_nine_rows_memorizes_and_answers_as_it_does_alone(model):
    together = open_session(model, ROWS)
    result = together.memorize(TEXTS)
    logits = together.feed(QUESTIONS)
    for row in range(ROWS):
        alone = open_session(model, 1)
        assert torch.allclose(alone.memorize(TEXTS[row : row + 1]).nats, result.nats[row : row + 1], atol=1e-4)
        assert torch.allclose(alone.feed(QUESTIONS[row : row + 1]), logits[row : row + 1], atol=1e-4)


def test_only_rows_above_the_surprise_threshold_write_at_any_batch_size(model):
    surprise = open_session(model, ROWS).memorize(TEXTS).surprise[:, 0]
    threshold = float(surprise.median())
    session = open_session(model, ROWS, threshold)
    result = session.memorize(TEXTS)
    for row in range(ROWS):
        alone = open_session(model, 1, threshold)
        expected = alone.memorize(TEXTS[row : row + 1])
        assert all(result.writes[name][row] == expected.writes[name][0] for name in result.writes)
        assert all(torch.allclose(result.norms[name][row], expected.norms[name][0], atol=1e-4) for name in result.norms)
    writes = next(iter(result.writes.values()))
    assert int((writes > 0).sum()) > 0 and int(writes.min()) < int(writes.max())


def test_a_fork_of_chosen_rows_keeps_the_memory_of_each(model):
    session = open_session(model, ROWS)
    session.memorize(TEXTS)
    order = [8, 3, 3, 0, 5, 1, 7, 2, 6, 4]
    leaves = tree.leaves(session.fork(order).state)
    for old, new in zip(tree.leaves(session.state), leaves, strict=True):
        assert torch.equal(new, old[torch.tensor(order)])
    answers = session.fork().feed(QUESTIONS)
    assert torch.allclose(session.fork(order).feed(QUESTIONS[order]), answers[order], atol=1e-4)
