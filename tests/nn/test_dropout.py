"""Residual dropout: where it is, what it draws from, and when it is off."""

import pytest
import torch
from tiny import tiny
from torch import nn

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.errors import ConfigError
from nested_learning.nn.dropout import evaluating
from nested_learning.phase.train import run
from nested_learning.train.memory_stats import observe

TOKENS = torch.arange(24).view(2, 12)
SIZES = ("model.dim=16", "model.num_layers=2", "model.num_heads=2")


def build(*line: str):
    return make_job(open_option_files(None), [*SIZES, *line]).config.model.build(32, seed=0)


def read(model, seed=0):
    torch.manual_seed(seed)
    return model(TOKENS, model.init_state(2))[0]


@pytest.mark.parametrize("name", ["transformer", "hope", "titans_mag"])
def test_no_random_number_is_used_at_zero_and_in_eval_mode(name):
    for model in (build(f"model={name}").train(), build(f"model={name}", "model.dropout=0.4").eval()):
        before = torch.get_rng_state()
        model(TOKENS, model.init_state(2))
        assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("cms", ["sequential", "independent"])
def test_the_embedding_each_mixer_and_each_level_have_their_own_dropout(cms):
    model = build("model=hope", f"model.cms={cms}", "model.dropout=0.25")
    dropped = []

    def note(_module, _inputs, output):
        dropped.append(float((output == 0).double().mean()))

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(note)
    read(model.train())
    # two layers of a mixer and two levels, after the embedding; memories begin with answers that are not zero
    assert len(dropped) == 1 + 2 * (1 + 2)
    assert all(0.15 < rate < 0.35 for rate in dropped)


def test_dropout_uses_the_global_generator_only():
    model = build("model=hope", "model.dropout=0.3").train()
    assert torch.equal(read(model, seed=1), read(model, seed=1))
    assert not torch.allclose(read(model, seed=1), read(model, seed=2))


def test_evaluating_restores_the_mode_at_the_end_of_its_context():
    model = build("model=transformer", "model.dropout=0.3").train()
    with evaluating(model):
        assert torch.equal(read(model, seed=1), read(build("model=transformer").eval(), seed=2))
    assert model.training
    with evaluating(model.eval()):
        pass
    assert not model.training


def test_a_run_uses_dropout_in_training_steps_only(tmp_path, capsys):
    runs = {rate: run(tiny(tmp_path, name=f"d{rate}", steps=2, model__dropout=rate)) for rate in (0.0, 0.3)}
    capsys.readouterr()
    first = [(result.directory / "metrics.jsonl").read_text().splitlines()[0] for result in runs.values()]
    strip = [line.split('"perf/')[0] for line in first]
    assert "val/loss" in strip[0] and strip[0] == strip[1]
    assert runs[0.0].metrics["train/loss"] != runs[0.3].metrics["train/loss"]


def test_memories_are_observed_without_dropout(tmp_path):
    config = tiny(tmp_path, model="titans_lmm", model__dropout=0.5)
    source = config.data.build(0)
    model, objective = config.model.build(source.vocab_size, 0).train(), config.objective.build()
    seen = [observe(model, objective, source, torch.device("cpu"), torch.float32) for _ in range(2)]
    assert seen[0] == seen[1]


def test_a_dropout_rate_outside_0_to_1_is_refused():
    for rate in (1.0, -0.1):
        with pytest.raises(ConfigError, match=r"model\.dropout=.*try model\.dropout=0\.1"):
            build("model=transformer", f"model.dropout={rate}")
