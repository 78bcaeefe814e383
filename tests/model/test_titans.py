"""The three Titans with attention: invalid settings are refused in one line; sizes are those of the Transformer."""

import pytest

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.errors import ConfigError

NAMES = ("titans_mac", "titans_mag", "titans_mal")


def make(*line):
    return make_job(open_option_files(None), list(line)).config.model


@pytest.mark.parametrize(
    "line,wanted",
    [
        (("model=titans_mac", "model.segment=0"), "model.segment=0 must be at least 1 token"),
        (("model=titans_mag", "model.window=1"), "model.window=1 must be at least 2 tokens"),
        (("model=titans_mal", "model.window=1"), "model.window=1 must be at least 2 tokens"),
        (("model=titans_mal", "model.num_persistent=-1"), "model.num_persistent=-1 must be at least 0"),
        (("model=titans_mac", "model.window=9"), "model.window"),
        (("model=titans_mag", "model.memory.depth=2"), "use model.memory.gradient=chunk"),
    ],
)
def test_an_invalid_hybrid_is_refused_with_the_override_that_fixes_it(line, wanted):
    with pytest.raises(ConfigError) as refused:
        make(*line)
    assert wanted in str(refused.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_hybrid_has_as_many_parameters_as_the_transformer(name):
    sizes = [
        sum(parameter.numel() for parameter in make(f"model={model}").build(257, seed=0).parameters())
        for model in (name, "transformer")
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.03)


def test_all_titans_models_have_the_same_memory_settings():
    memories = [make(f"model={name}").memory for name in (*NAMES, "titans_lmm")]
    assert all(memory == memories[0] for memory in memories)
