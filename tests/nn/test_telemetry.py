"""Statistics of a model's memories: one set for each row, without a change of any result."""

import pytest
import torch
from laws.models import CHUNK, MEMORIES, MODELS, VOCAB, make_config, make_memory, make_model

from nested_learning import tree
from nested_learning.level import Context, Level
from nested_learning.nn.cms import ContinuumMemory
from nested_learning.nn.language_model import Block, LanguageModel
from nested_learning.nn.level_state import LevelState
from nested_learning.nn.lstm import LSTM
from nested_learning.nn.telemetry import Observable, level_stats, memory_stats, observing

ROWS = 3
READING = ("titans_lmm", "hope", "ttt_mlp", "retnet")


def make_tokens(t, seed=0):
    return torch.randint(VOCAB, (ROWS, t), generator=torch.Generator().manual_seed(seed))


def stats(model, *parts):
    state = model.init_state(ROWS)
    with observing(model.blocks) as seen, torch.no_grad():
        for part in parts:
            _, state = model(part, state)
    return {(each.layer, each.level): each.metrics for each in memory_stats(seen)}


@pytest.mark.parametrize("name", READING)
def test_every_memory_of_every_layer_has_statistics_for_each_row(name):
    model, tokens = make_model(name), make_tokens(2 * CHUNK + 3)
    names = ("read",) if name != "hope" else ("key", "value", "gates", "read")
    metrics = stats(model, tokens)
    assert set(metrics) == {(layer, memory) for layer in range(2) for memory in names}
    for each in metrics.values():
        assert set(each) == {"norm", "rank", "surprise", "retention"}
        assert all(of_rows.shape == (ROWS,) and of_rows.isfinite().all() for of_rows in each.values())
    row = stats(model, tokens[1:2].expand(ROWS, -1))
    for key, each in metrics.items():
        assert all(row[key][metric][0] == pytest.approx(of_rows[1].item()) for metric, of_rows in each.items())


@pytest.mark.parametrize("name", READING)
def test_statistics_do_not_depend_on_how_the_text_is_split_into_calls(name):
    model, tokens = make_model(name), make_tokens(2 * CHUNK + 3)
    whole, parts = stats(model, tokens), stats(model, tokens[:, :1], tokens[:, 1:13], tokens[:, 13:])
    for key, each in whole.items():
        for metric, of_rows in each.items():
            assert torch.allclose(parts[key][metric], of_rows), (key, metric)


@pytest.mark.parametrize("name", MODELS)
def test_observing_changes_no_result_and_removes_its_hooks(name):
    model, tokens = make_model(name), make_tokens(20)
    expected = model(tokens, model.init_state(ROWS))
    with observing(model.blocks):
        seen_logits, seen_state = model(tokens, model.init_state(ROWS))
    assert torch.equal(seen_logits, expected[0])
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(seen_state), tree.leaves(expected[1]), strict=True))
    assert seen_logits.requires_grad and not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", MEMORIES)
def test_every_associative_memory_can_be_observed(name):
    memory = make_memory(name)
    is_memory = any(".memory" in path for path in tree.named_leaves(memory.init_state(1)))
    # an LSTM's cells are no associative memory: there is no error to be surprised by
    assert any(isinstance(module, Observable) for module in memory.modules()) == (
        is_memory and not isinstance(memory, LSTM)
    )


def test_norm_and_rank_are_of_the_state_and_the_retention_is_that_of_the_gates():
    model, tokens = make_model("titans_lmm"), make_tokens(20)
    metrics = stats(model, tokens)
    _, state = model(tokens, model.init_state(ROWS))
    weight = state[1].mixer.memory.weight[0]
    assert torch.allclose(metrics[1, "read"]["norm"], weight.flatten(1).norm(dim=1))
    assert (metrics[1, "read"]["rank"] > 1).all() and (metrics[1, "read"]["rank"] <= weight.shape[-1]).all()
    mixer = model.blocks[0].mixer
    for parameter in mixer.gates.parameters():
        torch.nn.init.zeros_(parameter)
    assert stats(model, tokens)[0, "read"]["retention"].tolist() == pytest.approx([0.5] * ROWS)


def test_a_text_surprises_less_the_second_time():
    model = make_config("model=deltanet", "model.conv_width=1").build(VOCAB, seed=0)
    once = make_tokens(4)
    first, both = stats(model, once)[0, "read"], stats(model, once, once)[0, "read"]
    second = 2 * both["surprise"] - first["surprise"]
    assert (second < first["surprise"]).all()


def test_levels_that_learn_inside_the_context_have_statistics_under_their_names():
    context = Context(4, "gd", 0.1, 0.0, (), "local", True)
    levels = [Level("quick", 0, "", context), Level("still", 0, "")]
    block = Block(8, LSTM(8), ContinuumMemory(8, levels, hidden_dim=8))
    model = LanguageModel(VOCAB, 8, [block], levels, tie_embedding=True, seed=0)
    start = model.init_state(ROWS)
    _, middle = model(make_tokens(9), start)
    _, end = model(make_tokens(2), middle)
    (seen,), (quiet,) = level_stats(start, middle), level_stats(middle, end)
    (level,) = tree.nodes(LevelState, middle)
    assert (seen.layer, seen.level, level.writes) == (0, "quick", 2)
    assert torch.allclose(seen.metrics["surprise"], level.surprise / 2)
    assert (seen.metrics["norm"] > 0).all() and (seen.metrics["rank"] >= 1).all()
    assert "surprise" not in quiet.metrics and torch.equal(quiet.metrics["norm"], seen.metrics["norm"])
