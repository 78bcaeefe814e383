"""What is given to a session is right, or refused by a typed error of one line before anything is read or written."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from inference.test_session import build, configure
from tiny import memorize_policy

from nested_learning.data.batch import IGNORE
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.errors import CheckpointError, ConfigError, DataError
from nested_learning.hub.pretrained import NestedModel
from nested_learning.inference.config import MemoryConfig
from nested_learning.inference.session import Session

ROW = torch.tensor([[97, 98]])
# what is neither text nor tokens of the vocabulary, and a word of the answer
NO_TOKENS = {
    "None": (None, "NoneType"),
    "a number": (3, "int"),
    "bytes": (b"ab", "bytes"),
    "a list of texts": (["a", "b"], "list"),
    "a list of numbers": ([1, 2], "list"),
    "an array": (np.array([1, 2]), "ndarray"),
    "fractions": (torch.tensor([1.5, 2.0]), "float32"),
    "NaN": (torch.tensor([float("nan")]), "float32"),
    "truth values": (torch.tensor([True]), "bool"),
    "no dimension": (torch.tensor(3), r"\[\] of torch.int64"),
    "three dimensions": (ROW[None], r"\[1, 1, 2\]"),
    "more rows": (ROW.expand(2, -1), r"\[2, 2\]"),
    "no rows": (ROW[:0], r"\[0, 2\]"),
    "another vocabulary": (torch.tensor([257]), "vocabulary is 0 to 256"),
    "a negative token": (torch.tensor([-1]), "vocabulary is 0 to 256"),
    "a huge token": (torch.tensor([2**62]), "vocabulary is 0 to 256"),
}
READERS = {
    "feed": lambda session, given: session.feed(given),
    "score": lambda session, given: session.score(given),
    "read": lambda session, given: session.read(given),
    "memorize": lambda session, given: session.memorize(given),
    "read_and_memorize": lambda session, given: session.read_and_memorize(given, given),
}


@cache
def make_session():
    return Session(build("transformer"), ByteTokenizer(), policy=memorize_policy())


@pytest.fixture
def session():
    return make_session().fork()


@pytest.mark.parametrize("method", READERS)
@pytest.mark.parametrize("name", NO_TOKENS)
def test_what_is_no_text_and_no_token_is_refused_before_anything_is_read(session, method, name):
    given, word = NO_TOKENS[name]
    before = session.state
    with pytest.raises(DataError, match=word) as error:
        READERS[method](session, given)
    assert "\n" not in str(error.value)
    assert session.state is before and session.position == 1


@pytest.mark.parametrize("method", ["feed", "score", "memorize"])
def test_a_text_that_is_not_valid_is_refused(session, method):
    with pytest.raises(DataError, match="not valid unicode"):
        READERS[method](session, "a\ud800")


@pytest.mark.parametrize("empty", ["", torch.empty(0, dtype=torch.int64), ROW[:, :0]], ids=["text", "t", "b t"])
def test_an_empty_text_costs_nothing_and_reads_nothing(session, empty):
    before = session.feed("").clone()
    assert session.score(empty).shape == (1, 0) and session.score(empty).dtype == torch.float32
    assert torch.equal(session.feed(empty), before)
    if not isinstance(empty, str):
        assert session.read(empty).shape == (1, 0, 257)
        assert session.text(empty) == [""]
        with pytest.raises(DataError, match="nothing to memorize"):
            session.read_and_memorize(empty.expand(1, 0), empty.expand(1, 0))
    assert session.position == 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_whole_numbers_of_any_width_are_tokens(session, dtype):
    other = session.fork()
    assert torch.equal(session.feed(ROW.to(dtype)), other.feed(ROW))
    assert torch.equal(session.score(ROW.to(dtype)), other.score(ROW))
    assert session.text(ROW.to(dtype)) == ["ab"] == session.text(ROW[0].to(dtype))


@pytest.mark.parametrize(
    "targets", [None, "ab", ROW[0], ROW[:, :1], ROW.float(), torch.tensor([[97, 300]]), torch.tensor([[97, -1]])]
)
def test_targets_that_do_not_fit_their_tokens_are_refused(session, targets):
    with pytest.raises(DataError):
        session.read_and_memorize(ROW, targets)
    assert session.position == 1


def test_a_target_may_be_left_out(session):
    assert session.read_and_memorize(ROW, torch.tensor([[98, IGNORE]])).nats[0, 1] == 0


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"num_tokens": None}, "sampling.num_tokens"),
        ({"num_tokens": "3"}, "sampling.num_tokens"),
        ({"num_tokens": 1.5}, "sampling.num_tokens"),
        ({"num_tokens": True}, "sampling.num_tokens"),
        ({"num_tokens": -1}, "sampling.num_tokens"),
        ({"num_tokens": 2**63}, "sampling.num_tokens"),
        ({"temperature": "hot"}, "sampling.temperature"),
        ({"temperature": None}, "sampling.temperature"),
        ({"temperature": float("nan")}, "sampling.temperature"),
        ({"temperature": float("inf")}, "sampling.temperature"),
        ({"temperature": 1e-38}, "sampling.temperature"),
        ({"top_k": 1.5}, "sampling.top_k"),
        ({"top_k": 2**63}, "sampling.top_k"),
        ({"top_p": float("nan")}, "sampling.top_p"),
        ({"top_p": "0.5"}, "sampling.top_p"),
        ({"seed": "a"}, "seed"),
        ({"seed": None}, "seed"),
        ({"seed": 0.5}, "seed"),
    ],
    ids=str,
)
def test_settings_of_sampling_that_are_no_numbers_are_refused(session, given, word):
    with pytest.raises(ConfigError, match=word):
        session.generate(**({"num_tokens": 1} | given))
    assert session.position == 1


def test_extreme_settings_of_sampling_work(session):
    for given in ({"temperature": 1e38}, {"temperature": 1e-6}, {"top_k": 2**62}, {"top_p": 1e-38}, {"seed": -1}):
        assert session.generate(1, **given).shape == (1, 1)
    assert session.generate(0).shape == (1, 0)


@pytest.mark.parametrize("rows", [[], [1], [-1], 0, "0", [0.0], ["0"], [None], (), torch.tensor([3])], ids=str)
def test_rows_that_do_not_exist_are_refused(session, rows):
    with pytest.raises(DataError, match="rows="):
        session.fork(rows)


@pytest.mark.parametrize("rows", [[0, 0], (0,), range(1), np.array([0]), torch.tensor([0])], ids=str)
def test_rows_may_be_named_by_any_whole_numbers(session, rows):
    assert session.fork(rows).batch == len(rows)


@pytest.mark.parametrize(
    "tokens", [None, "ab", [97], torch.tensor([257]), torch.tensor([-1]), torch.tensor([0.5]), ROW[None]], ids=str
)
def test_only_tokens_of_the_vocabulary_have_a_text(session, tokens):
    with pytest.raises(DataError):
        session.text(tokens)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"model": "runs/a"}, "Session.open"),
        ({"model": None}, "Session.open"),
        ({"model": torch.nn.Linear(2, 2)}, "Session.open"),
        ({"tokenizer": "byte"}, "no tokenizer"),
        ({"tokenizer": "other"}, "257 tokens and the model 9"),
        ({"batch": 0}, "batch=0"),
        ({"batch": -1}, "batch=-1"),
        ({"batch": "2"}, "batch"),
        ({"batch": 1.0}, "batch"),
        ({"batch": None}, "batch"),
        ({"policy": None}, "policy=None"),
        ({"policy": 3}, "policy=3"),
        ({"policy": "onlin"}, "memory=onlin"),
        ({"policy": MemoryConfig(name="memorize")}, "MemorizeConfig"),
        ({"policy": print}, "policy="),
    ],
    ids=str,
)
def test_a_session_of_something_else_is_not_opened(given, word):
    if given.get("tokenizer") == "other":
        given = {"model": build("transformer", vocab_size=9), "tokenizer": ByteTokenizer()}
    with pytest.raises(ConfigError, match=word):
        Session(**({"model": make_session().model} | given))


PATHS = [None, 3, b"a", "", "a\0b", "x" * 300, ".", "missing/state", "file/state"]


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_a_state_is_saved_in_a_file_or_refused_and_nothing_is_left(session, path, empty_folder):
    Path("file").touch()
    with pytest.raises(ConfigError):
        session.save(path)
    with pytest.raises((ConfigError, CheckpointError)):
        session.restore(path)
    with pytest.raises((ConfigError, CheckpointError)):
        Session.open(path)
    assert [each.name for each in empty_folder.iterdir()] == ["file"]


def test_a_name_of_255_letters_is_a_file_like_any_other(session, empty_folder):
    session.save("x" * 255)
    session.restore("x" * 255)
    assert [each.name for each in empty_folder.iterdir()] == ["x" * 255]


def test_weights_that_no_checkpoint_has_are_refused_before_it_is_looked_for():
    with pytest.raises(ConfigError, match="weights=best"):
        Session.open("missing", weights="best")


def test_a_state_of_other_levels_is_refused_with_the_policy_as_the_cause(session, empty_folder):
    session.save("state")
    with pytest.raises(CheckpointError, match="policy"):
        Session(session.model, session.tokenizer).restore("state")


@cache
def make_nested():
    return NestedModel(configure("transformer"), build("transformer"), ByteTokenizer(), {})


@pytest.mark.parametrize("name", [*NO_TOKENS, "no tokens", "one dimension"])
def test_an_exported_model_reads_tokens_of_its_vocabulary_only(name):
    given, _ = (NO_TOKENS | {"no tokens": (ROW[:, :0], ""), "one dimension": (ROW[0], "")})[name]
    # a model has no rows of its own
    if name != "more rows":
        with pytest.raises(DataError):
            make_nested()(given)


@pytest.mark.parametrize("state", [3, "state", (), None], ids=str)
def test_an_exported_model_continues_from_a_state_of_its_rows_only(state):
    state = make_nested().model.init_state(2) if state is None else state
    with pytest.raises(DataError, match="state"):
        make_nested()(ROW, state)


@pytest.mark.parametrize("path", [each for each in PATHS if each != "missing/state"], ids=str)
def test_an_export_is_a_folder_or_refused_and_nothing_is_left(path, empty_folder):
    Path("file").touch()
    with pytest.raises(ConfigError):
        make_nested().save_pretrained(path)
    with pytest.raises((ConfigError, CheckpointError)):
        NestedModel.from_pretrained(path)
    assert [each.name for each in empty_folder.iterdir()] == ["file"]


@pytest.mark.parametrize("device", [None, 0, "", "gpu"])
def test_a_device_that_is_none_is_refused(device):
    for opened in (Session.open, NestedModel.from_pretrained):
        with pytest.raises(ConfigError, match="device"):
            opened("missing", device=device)
