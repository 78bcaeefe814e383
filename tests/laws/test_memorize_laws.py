"""What memorizing at test time must satisfy for every model: it writes the chosen levels only, each row for itself."""

import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from laws.models import LEVELED, MODELS, VOCAB, awaken, make_config, make_leveled_model, make_model
from tiny import memorize_policy

from nested_learning import tree
from nested_learning.data.batch import IGNORE, Batch
from nested_learning.errors import ConfigError
from nested_learning.inference.memorize import levels_of, memory_tensors
from nested_learning.inference.session import Session
from nested_learning.nn.interpolate import MIXERS
from nested_learning.nn.level_state import LevelState
from nested_learning.objective.online import Online

ALL = [*MODELS, *LEVELED]
BATCH, LENGTH, CHUNK = 3, 12, 7
POLICY = memorize_policy(chunk=CHUNK, surprise_metric="loss")


laws = pytest.mark.parametrize("name", ALL)


@cache
def model_of(name):
    if name in MODELS:
        return make_model(name).eval()
    return make_leveled_model(name).eval()


def tokens(seed, batch=BATCH, length=LENGTH):
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


# the text to memorize, another, and the question: longer than all periods
TEXT, OTHER, QUESTION = tokens(0), tokens(1), tokens(2)


def open_session(name, batch=BATCH, policy="online", **changes):
    return Session(model_of(name), batch=batch, policy=replace(POLICY, **changes) if changes else policy)


def memorized(name, text=TEXT, **changes):
    """A session that memorized `text` under POLICY with `changes`."""
    session = open_session(name, len(text), **({"steps": 1} | changes))
    session.memorize(text)
    return session


@cache
def answer(name, **changes):
    """The logits of the question after memorizing the text."""
    return memorized(name, **changes).read(QUESTION)


def changes_of(model, before, after):
    """Which levels differ, as pairs of layer and name."""
    found = {}
    for layer, (old, new) in enumerate(zip(before, after, strict=True)):
        leaves = [tree.leaves([memory_tensors(kind, block) for kind in MIXERS]) for block in (old, new)]
        found[layer, "titan"] = leaves
        for one, other in zip(old.cms, new.cms, strict=True):
            if other is not None:
                found[layer, other.level.name] = [list(one.delta()), list(other.delta())]
    return {
        key for key, (old, new) in found.items() if not all(torch.equal(a, b) for a, b in zip(old, new, strict=True))
    }


@laws
@pytest.mark.parametrize(
    "nothing",
    [{"lr": 0.0}, {"surprise_threshold": math.inf}, {"surprise_threshold": 1e9}],
    ids=["lr", "infinity", "threshold"],
)
def test_memorizing_without_a_write_changes_nothing_to_the_bit(name, nothing):
    # 14 tokens: longer than every period, and they end inside one, so that the clocks have moved
    text = torch.cat([TEXT, OTHER[:, :2]], 1)
    online, session = open_session(name), memorized(name, text, **nothing)
    assert torch.equal(session.fork([2, 0]).read(QUESTION[[2, 0]]), online.fork([2, 0]).read(QUESTION[[2, 0]]))
    assert torch.equal(session.read(QUESTION), online.read(QUESTION))


@laws
def test_memorizing_changes_the_answer_and_no_parameter(name):
    model = model_of(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert not torch.allclose(answer(name), open_session(name).read(QUESTION), atol=1e-6)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


@laws
def test_a_reset_session_is_one_that_memorized_nothing(name):
    session = memorized(name, OTHER)
    session.reset()
    session.memorize(TEXT)
    assert torch.equal(session.read(QUESTION), answer(name))
    session.reset()
    assert torch.equal(session.read(QUESTION), open_session(name).read(QUESTION))


@laws
def test_each_row_memorizes_for_itself(name):
    alone = memorized(name, TEXT[1:2]).read(QUESTION[1:2])
    assert torch.allclose(answer(name)[1:2], alone, atol=1e-10)
    text = torch.cat([OTHER[:1], TEXT[1:]])
    assert torch.equal(memorized(name, text).read(QUESTION)[1:], answer(name)[1:])


# the periods of levels that the task writes cut the text into segments, each with a surprise of its own
@pytest.mark.parametrize("name", [*MODELS, "local"])
def test_a_row_below_the_surprise_threshold_memorizes_nothing(name):
    surprise = open_session(name, chunk=LENGTH).memorize(TEXT).surprise[:, 0]
    threshold = float(surprise.sort().values[1:].mean())
    session = open_session(name, chunk=LENGTH, surprise_threshold=threshold)
    writes = session.memorize(TEXT).writes
    surprised = surprise >= threshold
    assert 0 < surprised.sum() < BATCH and all((each > 0).equal(surprised) for each in writes.values())
    logits, online = session.read(QUESTION), open_session(name).read(QUESTION)
    assert torch.allclose(logits[~surprised], online[~surprised], atol=1e-10)
    assert torch.allclose(logits[surprised], memorized(name, chunk=LENGTH).read(QUESTION)[surprised], atol=1e-10)


@pytest.mark.parametrize("name", [name for name in LEVELED if name.startswith("task")])
def test_an_unfinished_period_keeps_the_gradients_of_surprised_rows_only(name):
    text = TEXT[:, :3]
    surprise = open_session(name, chunk=LENGTH).memorize(text).surprise[:, 0]
    threshold = float(surprise.sort().values[1:].mean())
    session = open_session(name, chunk=LENGTH, surprise_threshold=threshold)
    session.memorize(text)
    for level in tree.nodes(LevelState, session.state):
        for fast in level.fast:
            kept = torch.stack([gradient.abs().amax((1, 2)) for gradient in fast.gradient]).amax(0)
            assert torch.equal(kept > 0, surprise >= threshold)


@laws
def test_a_later_token_changes_no_earlier_loss(name):
    at = CHUNK + 1
    changed = TEXT.clone()
    changed[:, at] = (changed[:, at] + 1) % VOCAB
    nats, others = (open_session(name, steps=1).memorize(text).nats for text in (TEXT, changed))
    # the loss at a position is that of the token after it
    assert torch.equal(nats[:, : at - 1], others[:, : at - 1])
    assert not torch.equal(nats[:, at - 1], others[:, at - 1])


@laws
def test_only_the_chosen_level_is_written(name):
    model = model_of(name)
    for layer, level in levels_of(model):
        if layer == 1:
            session = open_session(name, levels=[level], layers=[layer])
            before = session.state
            found = session.memorize(TEXT)
            assert changes_of(model, before, session.state) == {(layer, level)}
            assert set(found.writes) == set(found.norms) == {level}
            assert found.norms[level].min() > 0


along = pytest.mark.parametrize("name", [name for name in ALL if name != "local"])


def test_read_and_memorize_refuses_levels_that_reading_writes():
    with pytest.raises(ConfigError, match="a plain forward pass already updates these levels"):
        open_session("local", steps=1).read_and_memorize(TEXT, TEXT)


@along
@pytest.mark.parametrize("nothing", [{"lr": 0.0}, {"surprise_threshold": 1e9}], ids=["lr", "threshold"])
def test_read_and_memorize_without_a_write_is_reading(name, nothing):
    session, online = open_session(name, **nothing), open_session(name)
    targets = torch.cat([TEXT[:, 1:], TEXT[:, :1]], 1)
    found, logits = session.read_and_memorize(TEXT, targets), online.read(TEXT)
    nats = torch.nn.functional.cross_entropy(logits.mT, targets, reduction="none")
    assert torch.allclose(found.nats, nats, atol=1e-10)
    assert torch.allclose(session.read(QUESTION), online.read(QUESTION), atol=1e-10)


@along
def test_read_and_memorize_may_be_cut_where_segments_end(name):
    targets = torch.cat([TEXT[:, 1:], TEXT[:, :1]], 1)
    whole, cut = open_session(name, steps=1), open_session(name, steps=1)
    nats = whole.read_and_memorize(TEXT, targets).nats
    end = 4 if name in LEVELED else CHUNK
    parts = [cut.read_and_memorize(TEXT[:, part], targets[:, part]).nats for part in (slice(0, end), slice(end, None))]
    assert torch.allclose(torch.cat(parts, 1), nats, atol=1e-10)
    assert torch.allclose(cut.read(QUESTION), whole.read(QUESTION), atol=1e-10)


@pytest.mark.parametrize("name", ["transformer", "sliding_window", "hope_attention", "task", "task_inputs"])
def test_a_level_that_the_model_lacks_is_refused(name):
    with pytest.raises(ConfigError, match="this model has no level titan, only"):
        open_session(name, levels=["titan"])


@pytest.mark.parametrize("name", [name for name in LEVELED if name.startswith("task")])
def test_a_level_with_a_context_clock_memorizes_as_it_was_trained_to(name):
    # one period, since gradients do not reach back into the segment before
    line = (part.replace("period: 12", "period: 4").replace("nested", "sequential") for part in LEVELED[name])
    model = awaken(make_config(*line).build(VOCAB, seed=0)).eval()
    session = Session(model, batch=BATCH, policy=POLICY)
    opened = tree.map(torch.clone, session.state)
    session.memorize(TEXT)
    targets = torch.cat([TEXT[:, 1:], TEXT.new_full((BATCH, 1), IGNORE)], 1)
    trained = Online()(model, Batch(TEXT, targets, torch.zeros_like(TEXT)), opened).state
    levels = zip(tree.nodes(LevelState, session.state), tree.nodes(LevelState, trained), strict=True)
    for mine, theirs in levels:
        assert mine.writes == theirs.writes > 0
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(mine.delta(), theirs.delta(), strict=True))


@pytest.mark.parametrize("name", ["transformer", "hope", "titans_mac", "lstm", "hope_attention"])
def test_a_fact_is_kept_until_a_later_text_contradicts_it(name):
    model = make_config(*MODELS[name]).build(VOCAB, seed=0).double().eval()
    policy = replace(POLICY, steps=15, lr=3.0, levels=[name for _, name in levels_of(model) if name != "titan"][:1])
    session = Session(model, batch=2, policy=policy)
    # a fact: the last token after the others
    fact, contradiction = tokens(3, 2, 5), tokens(3, 2, 5)
    contradiction[:, -1] = (fact[:, -1] + 1) % VOCAB

    def answers():
        return session.fork().feed(fact[:, :-1]).argmax(-1)

    assert not torch.equal(answers(), fact[:, -1])
    session.memorize(fact)
    assert torch.equal(answers(), fact[:, -1])
    session.reset_context()
    session.memorize(contradiction)
    assert torch.equal(answers(), contradiction[:, -1])
