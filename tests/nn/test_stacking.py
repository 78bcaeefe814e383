"""Level stacking: a model of several levels starts as the Transformer whose MLPs it got."""

from dataclasses import replace

import pytest
import torch

from nested_learning.data.batch import Batch
from nested_learning.errors import ConfigError
from nested_learning.model.hope_attention import HopeAttentionConfig
from nested_learning.model.levels import ContextConfig, LevelConfig
from nested_learning.model.transformer import TransformerConfig
from nested_learning.nn.stacking import stack
from nested_learning.objective.online import Online

VOCAB, BATCH, TOKENS = 19, 3, 24
SHAPE = dict(dim=16, num_layers=2, num_heads=2, expansion=1.5, tie_embedding=True, window=None)


def transformer(**changes):
    config = TransformerConfig(name="transformer", levels=[LevelConfig(name="mlp", period=0)], **(SHAPE | changes))
    model = config.build(VOCAB, seed=0)
    for name, parameter in model.named_parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
    return model


def levels(lr, signal="teach", gradient="first_order"):
    context = ContextConfig(rule="gd", lr=lr, signal=signal, gradient=gradient)
    return [
        LevelConfig(name="fast", period=4, context=context),
        LevelConfig(name="mid", period=8, context=context),
        LevelConfig(name="slow", period=0),
    ]


def hope_attention(**changes):
    values = SHAPE | {"levels": levels(0.0), "cms": "sequential"} | changes
    return HopeAttentionConfig(name="hope_attention", **values).build(VOCAB, seed=1)


def make_batch():
    tokens = torch.randint(VOCAB, (BATCH, TOKENS + 1), generator=torch.Generator().manual_seed(0))
    return Batch(tokens[:, :-1], tokens[:, 1:], torch.zeros_like(tokens[:, 1:]))


def logits(model):
    return model(make_batch().tokens, model.init_state(BATCH))[0]


VARIANTS = pytest.mark.parametrize("cms", ["sequential", "independent", "nested"])


@VARIANTS
@pytest.mark.parametrize("signal,gradient", [("teach", "first_order"), ("teach", "through"), ("local", "through")])
def test_at_rate_zero_a_stacked_model_is_the_transformer_to_the_bit(cms, signal, gradient):
    trained, model = transformer(), hope_attention(cms=cms, levels=levels(0.0, signal, gradient))
    assert not torch.equal(logits(model), logits(trained))
    stack(model, trained)
    assert torch.equal(logits(model), logits(trained))
    batch = make_batch()
    ours, theirs = (Online()(each, batch, each.init_state(BATCH)) for each in (model, trained))
    assert torch.equal(ours.nats, theirs.nats)


@VARIANTS
def test_before_the_first_write_a_stacked_model_is_the_transformer_to_the_bit_at_any_rate(cms):
    trained, model = transformer(), hope_attention(cms=cms, levels=levels(0.1))
    stack(model, trained)
    assert torch.equal(logits(model), logits(trained))


@VARIANTS
def test_at_small_rates_every_level_writes_and_outputs_stay_close_to_the_transformer(cms):
    trained, batch, distances = transformer(), make_batch(), []
    still = Online()(trained, batch, trained.init_state(BATCH)).nats
    for lr in (1e-3, 1e-4):
        model = hope_attention(cms=cms, levels=levels(lr))
        stack(model, trained)
        step = Online()(model, batch, model.init_state(BATCH))
        distances.append((step.nats - still).abs().max().item())
        assert all(level.delta().down.abs().max() > 0 for block in step.state for level in block.cms[:2])
    assert 0 < distances[1] < 0.2 * distances[0]


def test_the_slowest_level_keeps_the_mlp():
    trained = transformer()
    for outer, keeper in ((0, "slow"), (8192, "slow")):
        model = hope_attention(levels=[*levels(0.1)[:2], LevelConfig(name="slow", period=outer)])
        stack(model, trained)
        is_kept = {name: bool(level.down.weight.any()) for name, level in model.blocks[1].cms.levels.items()}
        assert is_kept == {name: name == keeper for name in ("fast", "mid", "slow")}
    model = hope_attention(levels=levels(0.1)[:2])
    stack(model, trained)
    assert [bool(level.down.weight.any()) for level in model.blocks[0].cms.levels.values()] == [False, True]


def test_a_model_of_another_shape_or_kind_is_refused_with_the_parameter_in_the_message():
    with pytest.raises(ConfigError, match=r"up\.weight is \[48, 16\] there and \[64, 16\] here"):
        stack(hope_attention(expansion=2.0), transformer())
    with pytest.raises(ConfigError, match="has levels"):
        stack(hope_attention(), hope_attention())
    with pytest.raises(ConfigError, match=r"no blocks\.2"):
        stack(hope_attention(num_layers=3), transformer())
    with pytest.raises(ConfigError, match=r"no place for blocks\.1"):
        stack(hope_attention(num_layers=1), transformer())


def test_a_transformer_can_be_stacked_from_a_transformer():
    trained = transformer()
    again = replace(TransformerConfig(name="transformer", levels=[LevelConfig(name="mlp", period=0)], **SHAPE)).build(
        VOCAB, seed=5
    )
    stack(again, trained)
    assert torch.equal(logits(again), logits(trained))
