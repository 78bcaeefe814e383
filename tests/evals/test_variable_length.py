"""Texts of different lengths are read in one batch as each is read alone; what is carried on lies in the session."""

from pathlib import Path

import pytest
import torch
from tiny import memorize_policy, tiny

from nested_learning.evals.variable_length import memorize_each, read_each, score_each
from nested_learning.inference.session import Session

VOCAB = 23
MODEL = tiny(Path(), model="titans_lmm", data="parity").model.build(VOCAB, seed=1)
MEMORIZE = memorize_policy(lr=0.5, chunk=4)
TEXTS = [torch.randint(VOCAB, (length,), generator=torch.Generator().manual_seed(length)) for length in (5, 9, 2, 5)]


def after(session):
    return session.score(torch.arange(6)[None])


def test_each_row_reads_its_own_text_as_if_it_were_alone():
    for text, reader in zip(TEXTS, read_each(Session(MODEL, batch=4), TEXTS), strict=True):
        alone = Session(MODEL)
        alone.feed(text)
        assert torch.allclose(after(reader), after(alone), atol=1e-5)


def test_each_row_memorizes_its_own_text_and_the_session_keeps_its_position():
    session = Session(MODEL, batch=4, policy=MEMORIZE)
    readers, written = memorize_each(session, TEXTS)
    for text, reader, row in zip(TEXTS, readers, written, strict=True):
        alone = Session(MODEL, policy=MEMORIZE)
        assert row == pytest.approx(alone.memorize(text).records()[0], rel=1e-4)
        for each in (reader, alone):
            each.feed(torch.zeros(1, dtype=torch.int64))
        assert torch.allclose(after(reader), after(alone), atol=1e-5)
    assert session.position == 0 and all(level.writes == 0 for level in session.state[0].cms)


def test_with_reset_carry_the_session_itself_memorizes():
    session = Session(MODEL, policy=memorize_policy(lr=0.5, chunk=4, reset="carry"))
    (reader,), _ = memorize_each(session, TEXTS[:1])
    assert reader is session and session.state[0].cms[0].writes == 2


def test_padding_behind_a_shorter_choice_costs_nothing():
    session = Session(MODEL)
    session.feed(TEXTS[1])
    scores = score_each(session, [TEXTS[0], TEXTS[2]])
    for choice, score in zip((TEXTS[0], TEXTS[2]), scores, strict=True):
        assert torch.allclose(score.nats, session.fork().score(choice)[0], atol=1e-5)
