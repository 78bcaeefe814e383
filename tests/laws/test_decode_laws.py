"""Decoding token by token equals one forward pass for every model: in batches, after a saved state, and in forks."""

import pytest
import torch
from laws.models import CHUNK, MODELS, VOCAB, make_model

from nested_learning import tree
from nested_learning.errors import CheckpointError, ConfigError, DataError
from nested_learning.inference.session import Session

BATCH, PREFILL, TOKENS = 3, CHUNK + 5, 2 * CHUNK + 3
# full attention keeps every token
GROWING = ("transformer", "hope_attention")

every_model = pytest.mark.parametrize("name", MODELS)


def make_tokens(num_tokens, seed=0):
    return torch.randint(VOCAB, (BATCH, num_tokens), generator=torch.Generator().manual_seed(seed))


def read(session, tokens):
    """Read token by token; the logits after each."""
    return torch.stack([session.feed(token[:, None]) for token in tokens.unbind(1)], dim=1)


@every_model
def test_prefill_then_decode_is_one_pass(name):
    model, tokens = make_model(name), make_tokens(TOKENS)
    session = Session(model, batch=BATCH)
    with torch.inference_mode():
        whole, end = model(tokens, model.init_state(BATCH))
    assert torch.allclose(session.feed(tokens[:, :PREFILL]), whole[:, PREFILL - 1], atol=1e-10)
    assert torch.allclose(read(session, tokens[:, PREFILL:]), whole[:, PREFILL:], atol=1e-10)
    pairs = zip(tree.leaves(session.state), tree.leaves(end), strict=True)
    assert all(torch.allclose(one, other, atol=1e-10) for one, other in pairs)
    assert session.position == TOKENS


@every_model
@pytest.mark.parametrize("num_read", [2 * CHUNK, PREFILL])
def test_a_restored_session_continues_as_if_it_had_never_stopped(name, num_read, tmp_path):
    model, tokens = make_model(name), make_tokens(num_read + 5)
    session = Session(model, batch=BATCH)
    session.feed(tokens[:, :num_read])
    session.save(tmp_path / "state.safetensors")
    again = Session(make_model(name))
    again.restore(tmp_path / "state.safetensors")
    assert torch.equal(again.feed(tokens[:, :0]), session.feed(tokens[:, :0]))
    assert torch.equal(read(again, tokens[:, num_read:]), read(session, tokens[:, num_read:]))
    assert (again.position, again.batch) == (session.position, BATCH)
    assert torch.equal(again.generate(4, seed=1), session.generate(4, seed=1))
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


@every_model
def test_a_fork_of_some_rows_reads_them_as_they_were(name):
    model, tokens = make_model(name), make_tokens(TOKENS)
    session = Session(model, batch=BATCH)
    session.feed(tokens[:, :PREFILL])
    rows = [2, 0, 0, 2]
    fork = session.fork(rows)
    assert torch.equal(fork.feed(tokens[rows, :0]), session.feed(tokens[:, :0])[rows])
    following = read(session, tokens[:, PREFILL:])
    assert torch.allclose(read(fork, tokens[rows, PREFILL:]), following[rows], atol=1e-10)


@every_model
def test_only_the_state_of_full_attention_grows_with_the_text(name):
    session = Session(make_model(name))
    sizes = []
    for _ in range(3):
        session.feed(make_tokens(2 * CHUNK + 1)[0])
        sizes.append(tree.nbytes(session.state))
    assert (sizes[0] == sizes[1] == sizes[2]) == (name not in GROWING)


def test_the_state_of_another_model_is_refused(tmp_path):
    model = make_model("titans_lmm")
    session = Session(model)
    session.feed(make_tokens(3)[0])
    session.save(tmp_path / "state")
    with torch.no_grad():
        model.blocks[1].mixer.output.weight[0, 0] += 1e-6
    with pytest.raises(CheckpointError, match="another model"):
        session.restore(tmp_path / "state")


@pytest.mark.parametrize(("contents", "problem"), [(None, "unreadable"), (b"no", "unreadable")])
def test_a_file_that_is_no_state_is_refused(tmp_path, contents, problem):
    if contents is not None:
        (tmp_path / "state").write_bytes(contents)
    with pytest.raises(CheckpointError, match=problem):
        Session(make_model("lstm")).restore(tmp_path / "state")


def test_a_session_that_has_read_nothing_cannot_be_saved(tmp_path):
    with pytest.raises(ConfigError, match="nothing was read"):
        Session(make_model("lstm")).save(tmp_path / "state")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rows", [[], [3], [-1]])
def test_a_fork_of_rows_that_do_not_exist_is_refused(rows):
    with pytest.raises(DataError, match="rows 0 to 2"):
        Session(make_model("lstm"), batch=BATCH).fork(rows)
