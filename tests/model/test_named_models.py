"""Every named model has the memory of its paper; invalid settings are refused in one line."""

import pytest
import torch
from laws.models import make_config
from torch.nn import functional as F

from nested_learning.errors import ConfigError
from nested_learning.ops.associative import associative
from nested_learning.ops.memory import Tokens, init_memory

T, DIM = 11, 4


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


q, k = (F.normalize(normal(1, 1, T, DIM, seed=seed), dim=-1) for seed in (0, 1))
v, logits = normal(1, 1, T, DIM, seed=2), normal(1, 1, T, 3, seed=3)


def read(name):
    """What the memory of model `name` answers, starting from zero; its gates are sigmoids of `logits`."""
    memory = make_config(f"model={name}").memory
    kinds = memory.kinds()
    start = init_memory((torch.zeros(1, 1, DIM, DIM, dtype=torch.float64),), momentum=kinds.momentum == "gate")
    gates = kinds.open(logits[..., : len(kinds.learned)])
    return associative(Tokens(q, k, v, gates), start, None, memory.design(memory.chunk))[0][0, 0]


def loop(update):
    """Read after each token's `update(W, k, v, gates of the token)`."""
    weight, outputs = torch.zeros(DIM, DIM, dtype=torch.float64), []
    for t in range(T):
        weight = update(weight, k[0, 0, t], v[0, 0, t], logits[0, 0, t].sigmoid())
        outputs.append(q[0, 0, t] @ weight)
    return torch.stack(outputs)


RULES = {
    "linear_attention": lambda w, k, v, gate: w + torch.outer(k, v),
    "retnet": lambda w, k, v, gate: (1 - 2**-5) * w + torch.outer(k, v),
    "deltanet": lambda w, k, v, gate: w - gate[0] * torch.outer(k, k @ w - v),
    "gated_deltanet": lambda w, k, v, gate: gate[1] * w - gate[0] * torch.outer(k, k @ w - v),
}


@pytest.mark.parametrize("name", RULES)
def test_a_named_model_follows_the_rule_of_its_paper(name):
    assert torch.allclose(read(name), loop(RULES[name]), atol=1e-12)


def test_titans_is_gated_deltanet_with_momentum():
    momentum = torch.zeros(DIM, DIM, dtype=torch.float64)

    def update(w, k, v, gate):
        nonlocal momentum
        momentum = gate[2] * momentum - gate[0] * torch.outer(k, k @ w - v)
        return gate[1] * w + momentum

    assert torch.allclose(read("titans_lmm"), loop(update), atol=1e-12)


@pytest.mark.parametrize(
    "override,wanted",
    [
        ("model.memory.rule=sgd", "model.memory.rule='sgd' must be one of gd, dgd"),
        ("model.memory.depth=2", "use model.memory.gradient=chunk"),
        ("model.memory.depth=0", "model.memory.depth=0 must be at least 1"),
        ("model.memory.max_rate=0", "must be above 0"),
        ("model.conv_width=0", "model.conv_width=0 must be at least 1 token"),
        ("model.start=random", "must be one of zero, learned, base"),
    ],
)
def test_an_invalid_memory_is_refused_with_the_override_that_fixes_it(override, wanted):
    with pytest.raises(ConfigError, match="model") as refused:
        make_config("model=titans_lmm", override)
    assert wanted in str(refused.value)


def test_a_deep_memory_cannot_start_from_zero():
    with pytest.raises(ConfigError, match=r"use model\.start=base"):
        make_config("model=deltanet", "model.memory.depth=2", "model.memory.gradient=chunk")


@pytest.mark.parametrize("override", ["model.adaptive=[keys]", "model.adaptive=[key,key]", "model.generating_chunk=0"])
def test_an_invalid_choice_of_generated_projections_is_refused(override):
    with pytest.raises(ConfigError, match=r"model\.(adaptive|generating_chunk)"):
        make_config("model=hope", override)
