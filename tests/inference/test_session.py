"""A session reads a stream in any cuts, remembers it as a value, and draws from nothing but its own generator."""

from functools import cache
from math import log
from pathlib import Path

import pytest
import torch
from tiny import memorize_policy, tiny

from nested_learning import tree
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.errors import ConfigError, DataError, DivergedError
from nested_learning.inference.session import Session

TEXT = "def read(path):\n    return path.open().read()\n"
MEMORY_MODELS = ("titans_lmm", "hope")
MODELS = ("transformer", "transformer_window", "hope_attention", *MEMORY_MODELS)


def build(name, vocab_size=257):
    """Build a tiny model whose memories visibly change its answers."""
    model = configure(name).build(vocab_size, seed=3)
    with torch.no_grad():
        # the scaled initialisation of the outputs hides what the blocks do
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2)
    return model


@cache
def configure(name):
    options = {"transformer_window": {"model": "transformer", "model__window": 7}}.get(name, {"model": name})
    chunk = {"model__memory__chunk": 4} if name in MEMORY_MODELS else {}
    return tiny(Path(), data="parity", **options, **chunk).model


@pytest.fixture(params=MODELS)
def session(request):
    return Session(build(request.param), ByteTokenizer())


def tokens_of(text):
    return torch.from_numpy(ByteTokenizer().encode(text))


def close(first, second):
    return torch.allclose(first, second, atol=1e-4)


def test_prefill_then_decode_equals_one_forward_pass(session):
    tokens = torch.cat([torch.tensor([256]), tokens_of(TEXT)])[None]
    with torch.inference_mode():
        whole, _ = session.model(tokens, session.model.init_state(1))
    assert close(session.feed(TEXT[:20]), whole[:, 20])
    for place, token in enumerate(tokens_of(TEXT[20:]), start=21):
        assert close(session.feed(token[None]), whole[:, place])


@pytest.mark.parametrize("size", [1, 3, 16])
def test_feeding_in_parts_equals_feeding_at_once(session, size):
    parts, whole = session.fork(), session.fork()
    for start in range(0, len(TEXT), size):
        last = parts.feed(TEXT[start : start + size])
    assert close(last, whole.feed(TEXT))
    assert parts.position == whole.position == 1 + len(TEXT)


def test_a_long_text_is_read_in_segments_with_the_same_result(session, monkeypatch):
    whole = session.fork().score(TEXT)
    monkeypatch.setattr("nested_learning.inference.session.PREFILL_TOKENS", 5)
    assert close(session.score(TEXT), whole)


def test_score_gives_the_nats_of_every_token_given_all_before(session):
    other = session.fork()
    nats = session.score("abc")
    assert nats.shape == (1, 3)
    for place, token in enumerate(tokens_of("abc")):
        expected = -other.feed("").log_softmax(-1)[0, token]
        assert close(nats[0, place], expected)
        other.feed(token[None])


def test_scoring_a_text_also_reads_it(session):
    other = session.fork()
    session.score(TEXT)
    assert close(session.feed("x"), other.feed(TEXT + "x"))


def test_a_fork_starts_from_the_same_state_and_is_independent_afterwards(session):
    session.feed(TEXT)
    before = session.feed("").clone()
    fork = session.fork()
    mine, forks = tree.leaves(session.state), tree.leaves(fork.state)
    assert mine and all(one.data_ptr() == other.data_ptr() for one, other in zip(mine, forks, strict=True))
    fork.feed("something else entirely")
    fork.generate(3)
    assert torch.equal(session.feed(""), before)
    assert fork.position > session.position


def test_reset_forgets_everything(session):
    fresh = session.fork().feed("abc")
    session.feed(TEXT)
    session.reset()
    assert torch.equal(session.feed("abc"), fresh)


def test_rows_do_not_see_each_other(session):
    rows = torch.stack([tokens_of("abcdefgh"), tokens_of("zyxwvuts")])
    both = Session(session.model, session.tokenizer, batch=2).feed(rows)
    for row in range(2):
        assert close(both[row], Session(session.model, session.tokenizer).feed(rows[row])[0])


def test_one_text_is_read_by_every_row():
    model = build("transformer")
    logits = Session(model, ByteTokenizer(), batch=3).feed("abc")
    assert close(logits, Session(model, ByteTokenizer()).feed("abc").expand(3, -1))


def test_equal_seeds_generate_equal_tokens_and_the_global_generator_is_not_used(session):
    session.feed("def ")
    before = torch.get_rng_state()
    first, second, other = (session.fork().generate(12, seed=seed) for seed in (1, 1, 2))
    assert first.shape == (1, 12)
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_generating_in_two_calls_gives_what_one_call_gives(session):
    whole = session.fork().generate(8, seed=4)
    halves = [session.generate(3, seed=4), session.generate(5, seed=4)]
    assert torch.equal(torch.cat(halves, dim=1), whole)


def test_greedy_generation_takes_the_likeliest_token_each_time(session):
    other = session.fork()
    for token in session.generate(5, temperature=0)[0]:
        assert token == other.feed("").argmax()
        other.feed(token[None])


def test_top_k_of_one_is_greedy(session):
    assert torch.equal(session.fork().generate(5, top_k=1), session.generate(5, temperature=0))


def test_generated_tokens_are_read_like_any_other(session):
    other = session.fork()
    tokens = session.generate(4)
    assert close(session.feed(""), other.feed(tokens))


@pytest.mark.parametrize("name", MEMORY_MODELS)
def test_frozen_memories_answer_differently_from_those_that_write(name):
    model = build(name)
    online, frozen = (Session(model, ByteTokenizer(), policy=policy) for policy in ("online", "frozen"))
    assert not torch.allclose(online.feed(TEXT), frozen.feed(TEXT), atol=1e-4)


@pytest.mark.parametrize("name", MEMORY_MODELS)
def test_the_state_of_a_memory_model_does_not_grow(name):
    session = Session(build(name), ByteTokenizer())
    before = tree.nbytes(session.state)
    session.feed(TEXT)
    assert tree.nbytes(session.state) == before


def test_text_is_recovered_from_tokens():
    session = Session(build("transformer"), ByteTokenizer(), batch=2)
    assert session.text(tokens_of("héllo").expand(2, -1)) == ["héllo", "héllo"]


def test_without_a_tokenizer_tokens_are_read_and_text_is_refused():
    session = Session(build("transformer", vocab_size=9))
    assert session.position == 0
    with pytest.raises(ConfigError, match="no tokenizer"):
        session.feed("abc")
    with pytest.raises(ConfigError, match="nothing was read"):
        session.generate(1)
    assert session.feed(torch.tensor([1, 2, 3])).shape == (1, 9)
    assert session.generate(2).shape == (1, 2)


@pytest.mark.parametrize(
    ("tokens", "problem"),
    [
        (torch.tensor([1, 9]), "1 to 9: the vocabulary is 0 to 8"),
        (torch.tensor([-1, 3]), "-1 to 3"),
        (torch.zeros(3, 4, dtype=torch.int64), r"\[3, 4\]: this session reads \[2 t\]"),
    ],
)
def test_tokens_that_do_not_fit_are_refused_in_one_line(tokens, problem):
    with pytest.raises(DataError, match=problem):
        Session(build("transformer", vocab_size=9), batch=2).feed(tokens)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [({"temperature": -1}, "temperature=-1"), ({"top_p": 0}, "top_p=0"), ({"top_k": -1}, "top_k=-1")],
)
def test_settings_out_of_range_are_refused(settings, problem):
    session = Session(build("transformer"), ByteTokenizer())
    with pytest.raises(ConfigError, match=problem):
        session.generate(1, **settings)


def test_an_unknown_policy_is_refused():
    with pytest.raises(ConfigError, match="memory=of_gold"):
        Session(build("transformer"), policy="of_gold")


def test_every_position_samples_anew():
    model = build("transformer")
    with torch.no_grad():
        model.embedding.weight.zero_()
    tokens = Session(model, ByteTokenizer()).generate(50)
    assert len(tokens.unique()) > 30


def test_the_loss_of_a_uniform_model_is_the_logarithm_of_the_vocabulary_size():
    model = build("transformer")
    with torch.no_grad():
        model.embedding.weight.zero_()
    assert torch.allclose(Session(model, ByteTokenizer()).score("abc"), torch.tensor(log(257)))


def test_an_empty_text_is_memorized_as_its_opening_token_or_refused():
    alone = Session(build("titans_lmm"), ByteTokenizer(), policy=memorize_policy())
    assert alone.memorize("").nats.shape == (1, 1) and alone.position == 1
    with pytest.raises(DataError, match="nothing to memorize"):
        Session(build("titans_lmm"), policy=memorize_policy()).memorize(torch.zeros(0, dtype=torch.int64))


def test_only_a_session_with_memory_memorize_memorizes():
    with pytest.raises(ConfigError, match="MemorizeConfig"):
        Session(build("titans_lmm"), ByteTokenizer()).memorize("abc")
    with pytest.raises(ConfigError, match="MemorizeConfig"):
        Session(build("titans_lmm"), ByteTokenizer(), policy="memorize")


def test_memorizing_stops_at_non_finite_numbers():
    session = Session(build("titans_lmm"), policy=memorize_policy())
    with torch.no_grad():
        session.model.head.weight[0] = torch.nan
    with pytest.raises(DivergedError, match="not finite"):
        session.memorize(torch.zeros(3, dtype=torch.int64))


EVENTS = {
    "opening": lambda session: None,
    "reading": lambda session: session.feed(TEXT),
    "memorizing": lambda session: session.memorize(TEXT),
    "a new document": lambda session: (session.feed(TEXT), session.reset_context()),
}


@pytest.mark.parametrize("name", ["hope", "titans_mac", "lstm"])
def test_a_restored_session_memorizes_as_if_it_had_never_stopped(name, tmp_path):
    model = build(name)
    for event in EVENTS.values():
        session, again = (Session(model, ByteTokenizer(), policy=memorize_policy()) for _ in range(2))
        event(session)
        again.feed("something else")
        session.save(tmp_path / "state")
        again.restore(tmp_path / "state")
        assert torch.equal(again.feed(""), session.feed("")) and again.position == session.position
        for each in (session, again):
            each.memorize("abc")
        assert torch.equal(again.feed("d"), session.feed("d"))
