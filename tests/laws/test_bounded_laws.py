"""Memories stay bounded at any length of text, in float32: the worst text here, real text in the slow tests."""

from itertools import product
from pathlib import Path

import pytest
import torch

import nested_learning
from nested_learning import tree
from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.errors import ConfigError
from nested_learning.nn.level_state import LevelState

SIZES = ("model.dim=32", "model.num_layers=1", "model.num_heads=2")
# the bound of the state's numbers, far above what a memory that follows its targets holds
BOUND = 1e3
DEEP = ("model.memory.gradient=chunk", "model.start=base")
# every model whose memory can be deep
MODELS = {
    "hope": ("model.memory.gradient=chunk",),
    "self_modifying": ("model.memory.gradient=chunk",),
    "titans_lmm": DEEP,
    "titans_deep": (),
    "titans_mac": DEEP,
    "titans_mag": DEEP,
    "titans_mal": DEEP,
    "ttt_mlp": (),
}


def read(tokens, *line):
    """Read one row of tokens with an untouched model; return the logits and the state."""
    model = make_job(open_option_files(None), [*SIZES, *line]).config.model.build(257, seed=0).eval()
    state, parts = model.init_state(1), []
    with torch.no_grad():
        for part in tokens[None].split(1024, 1):
            logits, state = model(part, state)
            parts.append(logits)
    return torch.cat(parts, 1), state


def assert_bounded(tokens, *line):
    logits, state = read(tokens, *line)
    assert torch.isfinite(logits).all()
    # a comparison that is false for NaN
    assert all(bool((leaf.abs() < BOUND).all()) for leaf in tree.leaves(state))


# one key for all tokens, written at the largest rate: every write of a chunk goes in the same direction
@pytest.mark.parametrize("name", MODELS)
def test_a_deep_memory_stays_bounded_where_every_token_is_the_same(name):
    line = (f"model={name}", *MODELS[name], "model.memory.max_rate=1", "model.memory.rate=one")
    assert_bounded(torch.full((256,), 97), *line, f"model.memory.depth={3 if name == 'hope' else 2}")


@pytest.mark.parametrize("rule", ["gd", "momentum, momentum: 0.9", "adamw, betas: [0.9, 0.9], eps: 1e-8"])
def test_the_change_of_a_level_stays_bounded_at_a_rate_that_is_too_large(rule):
    clock = f"{{rule: {rule}, lr: 1, signal: local, gradient: through}}"
    line = ("model=hope_attention", f"model.levels=[{{name: fast, period: 16, context: {clock}}}]")
    logits, state = read(torch.arange(256), *line)
    assert torch.isfinite(logits).all()
    (level,) = tree.nodes(LevelState, state)
    assert all(bool((matrix.abs() < BOUND).all()) for matrix in level.delta())


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("depth", "momentum"), [*product((2, 3), ("none", "gate"))])
def test_a_deep_memory_stays_bounded_over_8192_tokens_of_real_text(name, depth, momentum):
    text = "".join(path.read_text() for path in sorted((Path(nested_learning.__file__).parent / "ops").glob("*.py")))
    tokens = torch.tensor(list(text.encode()[:8192]))
    assert len(tokens) == 8192
    line = (f"model={name}", *MODELS[name], f"model.memory.depth={depth}", f"model.memory.momentum={momentum}")
    for rate, chunk in product((0.1, 0.4, 1.0), (16, 64, 256)):
        assert_bounded(tokens, *line, f"model.memory.max_rate={rate}", f"model.memory.chunk={chunk}")


# settings at the bounds of `refuse_divergence`, and the ones that it refuses
AT_BOUND = [
    ("model=deltanet", "model.memory.rate=one", 2.0),
    ("model=deltanet", "model.memory.rule=dgd", "model.memory.rate=one", 1.0),
    ("model=deltanet", "model.memory.gradient=chunk", "model.memory.rate=one", 2 / 64),
    ("model=titans_lmm", "model.memory.rate=one", 1.0),
    ("model=titans_lmm", 2.0),
    ("model=titans_lmm", "model.memory.gradient=chunk", "model.memory.rate=one", 1 / 64),
    ("model=titans_mac", "model.memory.gradient=chunk", 2 / 64),
    ("model=hope", "model.memory.rate=one", 0.5),
    ("model=hope", "model.memory.gradient=chunk", "model.memory.rate=one", 1 / 128),
    ("model=self_modifying", 1.0),
]


@pytest.mark.parametrize("setting", AT_BOUND, ids=lambda setting: " ".join(map(str, setting)))
def test_a_matrix_stays_bounded_at_the_largest_rate_that_training_accepts(setting):
    *line, rate = setting

    def config(value):
        return make_job(open_option_files(None), [*SIZES, *line, f"model.memory.max_rate={value}"]).config

    config(rate).model.refuse_divergence()
    with pytest.raises(ConfigError, match=rf"model\.memory\.max_rate={rate:.3g}$"):
        config(1.1 * rate).model.refuse_divergence()
    text = (Path(nested_learning.__file__).parent / "ops" / "matrix.py").read_text().encode()[:1024]
    for tokens in (torch.full((512,), 97), torch.tensor(list(text))):
        assert_bounded(tokens, *line, f"model.memory.max_rate={rate}")
