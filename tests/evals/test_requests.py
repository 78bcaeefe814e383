"""Requests are answered as one forward pass answers them; candidates are never memorized."""

import math
from pathlib import Path

import pytest
import torch
from oracle import Oracle
from tiny import tiny

from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.errors import DataError
from nested_learning.evals.requests import (
    GenerationRequest,
    LoglikelihoodRequest,
    common_length,
    generate_until,
    loglikelihood,
    loglikelihood_rolling,
    split_after,
    truncate,
)
from nested_learning.inference.config import MemorizeConfig
from nested_learning.inference.session import Session

BYTES = ByteTokenizer()
MODEL = tiny(Path(), model="titans_lmm", data="parity").model.build(257, seed=1).eval()
CASES = [
    ("a lantern", " of jade"),
    ("", "x"),
    ("a lantern of Mira, which is old,", " ñandú, 木"),
    ("b", " of"),
    ("", " of jade"),
]


def tokens(text):
    return torch.from_numpy(BYTES.encode(text))


def request(*pairs):
    contexts, continuations = zip(*pairs, strict=True)
    return LoglikelihoodRequest(tokens(""), tuple(map(tokens, contexts)), tuple(map(tokens, continuations)))


def brute_force(context, continuation, model=MODEL):
    """Return the log probability of a continuation, and whether it is the likeliest, from one reading of all."""
    text = torch.cat([torch.tensor([BYTES.end]), tokens(context + continuation)])[None]
    with torch.no_grad():
        logits, _ = model(text[:, :-1], model.init_state(1))
    wanted = tokens(continuation)
    last = logits[0, -len(wanted) :].log_softmax(-1)
    return last[torch.arange(len(wanted)), wanted].sum().item(), bool((last.argmax(-1) == wanted).all())


def summed(scores):
    return [-score.nats.sum().item() for score in scores]


def memorize(reset="per_example", lr=1.0):
    how = dict(steps=1, lr=lr, chunk=8, surprise_threshold=None, surprise_metric="l2", levels=["all"], layers=None)
    return MemorizeConfig(name="memorize", reset=reset, **how)


def test_the_loss_of_a_continuation_does_not_depend_on_the_batch():
    requests = [request(pair) for pair in CASES]
    together = loglikelihood(Session(MODEL, BYTES, batch=len(requests)), requests)
    for pair, one, (scores, _) in zip(CASES, requests, together, strict=True):
        (alone,) = loglikelihood(Session(MODEL, BYTES), [one])
        assert summed(scores) == pytest.approx([brute_force(*pair)[0]], abs=1e-4)
        assert summed(alone[0]) == pytest.approx(summed(scores), abs=1e-4)


def test_the_choices_of_a_question_may_share_a_context_or_not():
    pairs = [("so Sarah", " left"), ("so Maria", " left"), ("so Sarah", " stayed on"), ("", " left")]
    ((scores, _),) = loglikelihood(Session(MODEL, BYTES), [request(*pairs)])
    assert summed(scores) == pytest.approx([brute_force(*pair)[0] for pair in pairs], abs=1e-4)


def test_a_continuation_is_greedy_when_each_of_its_tokens_is_the_likeliest():
    model = Oracle([([BYTES.end], BYTES.encode("one two three").tolist())])
    ((scores, _),) = loglikelihood(Session(model, BYTES), [request(("one", " two"), ("one", " twig"), ("one", " "))])
    assert [score.is_greedy for score in scores] == [True, False, True]


def test_the_loss_of_a_text_is_the_sum_over_its_tokens():
    texts = ["a lantern of jade", "x", "ñandú of Mira " * 5]
    results = loglikelihood_rolling(Session(MODEL, BYTES, batch=3), list(map(tokens, texts)))
    assert [nats for nats, _ in results] == pytest.approx([-brute_force("", text)[0] for text in texts], abs=1e-3)


def test_with_a_window_no_part_of_a_text_sees_more_than_the_token_before_it():
    text = "a lantern of jade"
    ((nats, _),) = loglikelihood_rolling(Session(MODEL, BYTES), [tokens(text)], window=8)
    expected = [brute_force("", text[:8]), brute_force(text[7], text[8:16]), brute_force(text[15], text[16:])]
    assert nats == pytest.approx(-sum(each for each, _ in expected), abs=1e-3)


def test_generation_ends_at_a_stop_string_or_at_the_end_of_the_document():
    texts = ["say: one two\nthree", "ask: yes"]
    model = Oracle([([BYTES.end], [*BYTES.encode(text).tolist(), BYTES.end]) for text in texts])
    requests = [GenerationRequest(tokens(""), tokens(text[:4]), ("\n", "four"), 40) for text in texts]
    results = generate_until(Session(model, BYTES, batch=2), requests)
    assert [text for text, _ in results] == [" one two", " yes"]
    (short,) = generate_until(Session(model, BYTES), [requests[0]._replace(num_tokens=5)])
    assert short[0] == " one "
    assert truncate("stop here and there", ("there", "here")) == "stop "


def test_the_text_to_memorize_is_memorized_before_the_context_is_read():
    example = request(("a lantern", " of jade"))._replace(memorized=tokens("a lantern of gold, a lantern of jade"))
    ((plain, _),) = loglikelihood(Session(MODEL, BYTES), [example])
    ((still, _),) = loglikelihood(Session(MODEL, BYTES, policy=memorize(lr=0.0)), [example])
    ((moved, written),) = loglikelihood(Session(MODEL, BYTES, policy=memorize()), [example])
    assert summed(still) == summed(plain) != summed(moved)
    # the opening token and 36 bytes, in segments of 8
    assert written["memory/titan/writes"] == 5


def test_with_reset_carry_the_next_answer_depends_on_what_was_memorized_before():
    teaching = request(("b", " c"))._replace(memorized=tokens("a lantern of jade " * 3))
    example = request(("a lantern", " of jade"))._replace(memorized=tokens("x"))
    carried = Session(MODEL, BYTES, policy=memorize("carry"))
    ((alone, _),) = loglikelihood(Session(MODEL, BYTES, policy=memorize()), [example])
    loglikelihood(carried, [teaching])
    carried.reset_context()
    ((after, _),) = loglikelihood(carried, [example])
    assert not math.isclose(summed(after)[0], summed(alone)[0], rel_tol=1e-4)


def test_along_a_text_each_segment_is_memorized_after_it_was_predicted():
    text = tokens("a lantern of jade, a lantern of jade, a lantern of jade")
    ((memorized, written),) = loglikelihood_rolling(Session(MODEL, BYTES, policy=memorize()), [text])
    ((still, _),) = loglikelihood_rolling(Session(MODEL, BYTES, policy=memorize(lr=0.0)), [text])
    ((plain, _),) = loglikelihood_rolling(Session(MODEL, BYTES), [text])
    assert still == pytest.approx(plain, rel=1e-5)
    assert memorized != pytest.approx(plain, rel=1e-4) and written["memory/mlp/writes"] == 7


def test_texts_are_compared_from_their_beginning():
    assert common_length(["so Sarah", "so Sam", "so"]) == 2
    assert common_length([[1, 2], [1, 2]]) == 2
    assert common_length([[], [1]]) == 0


def test_an_empty_text_costs_nothing():
    for window in (None, 4):
        ((nats, written),) = loglikelihood_rolling(Session(MODEL, BYTES), [tokens("")], window)
        assert (nats, written) == (0.0, {})
    ((nats, _),) = loglikelihood_rolling(Session(MODEL, BYTES, policy=memorize()), [tokens("")])
    assert nats == 0.0


def test_a_score_over_no_tokens_is_refused():
    for pairs in ([("a", "")], [("a", "b"), ("a", "")]):
        with pytest.raises(DataError, match="a continuation without tokens has no score"):
            loglikelihood(Session(MODEL, BYTES), [request(*pairs)])


def test_an_empty_text_to_memorize_writes_nothing_in_any_batch():
    plain = request(("a lantern", " of jade"))
    ((alone, nothing),) = loglikelihood(Session(MODEL, BYTES, policy=memorize()), [plain])
    both = [plain, plain._replace(memorized=tokens("a lantern"))]
    (with_another, written), _ = loglikelihood(Session(MODEL, BYTES, batch=2, policy=memorize()), both)
    assert summed(with_another) == pytest.approx(summed(alone), abs=1e-4) and nothing == written == {}
    ((carried, written),) = loglikelihood(Session(MODEL, BYTES, policy=memorize("carry")), [plain])
    assert summed(carried) == pytest.approx(summed(alone), abs=1e-4) and written == {}


@pytest.mark.parametrize(
    ("context", "texts", "expected"),
    [
        # tokens are letters here
        ("so", ["so a", "so b"], ("so", [" a", " b"])),
        # the last token of the context became another one in one of the texts
        ("th", ["tH", "th e"], ("t", ["H", "h e"])),
        ("th", ["TH"], ("", ["TH"])),
        ("", ["a"], ("", ["a"])),
    ],
)
def test_texts_are_split_where_all_still_agree_with_the_context(context, texts, expected):
    before, rest = split_after(tokens(context), list(map(tokens, texts)))
    assert (BYTES.decode(before), list(map(BYTES.decode, rest))) == expected
