"""Levels on the command line: which are valid, and the message for those that are not."""

import pytest

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.errors import ConfigError
from nested_learning.level import Context, Level

TAUGHT = "{name: fast, period: 64, context: {rule: gd, lr: 0.1}}"
SLOW = "{name: slow, period: 0}"


def configure(levels: str, *overrides: str):
    lines = ["model=hope_attention", "objective=online", f"model.levels=[{levels}]", *overrides]
    return make_job(open_option_files(None), lines).config


def refusal(levels: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        configure(levels, *overrides)
    return str(error.value)


def test_a_level_has_one_of_two_clocks():
    fast, slow = (level.build() for level in configure(f"{TAUGHT}, {{name: slow, period: 8192}}").model.levels)
    assert fast == Level("fast", 0, r"\.cms\.levels\.fast\.", Context(64, "gd", 0.1, 0.0, (), "teach", False))
    assert slow == Level("slow", 8192, r"\.cms\.levels\.slow\.")


@pytest.mark.parametrize(
    "context,message",
    [
        ("rule: sgd, lr: 0.1", "context of level fast: rule=sgd must be one of gd, momentum, dgd, adamw, muon"),
        ("rule: gd, lr: -1", "lr=-1.0 must be 0 or more"),
        ("rule: gd, lr: 0.1, signal: task", "signal=task must be one of teach, local"),
        ("rule: gd, lr: 0.1, gradient: second", "gradient=second must be one of first_order, through"),
        ("rule: gd, lr: 0.1, momentum: 0.9", "rule gd does not read momentum; it reads no keys of its own"),
        ("rule: momentum, lr: 0.1", "rule momentum needs momentum"),
        ("rule: momentum, lr: 0.1, momentum: 1.0", "momentum=1.0 must lie in [0, 1)"),
        ("rule: adamw, lr: 0.1, betas: [0.9], eps: 1e-8", "betas=[0.9] must be two numbers in [0, 1)"),
        ("rule: gd, lr: 0.1, signal: local", "use gradient: through"),
        ("rule: gd", "model.levels.0.context.lr"),
        ("rule: gd, lr: 0.1, rate: 3", "rate: no such key"),
    ],
)
def test_an_invalid_context_is_refused_with_its_key(context, message):
    assert message in refusal(f"{{name: fast, period: 64, context: {{{context}}}}}, {SLOW}")


def test_periods_must_fit_the_variant():
    second = "{name: mid, period: 96, context: {rule: gd, lr: 0.1}}"
    assert "must be a multiple of that of fast, 64; try period: 128" in refusal(
        f"{TAUGHT}, {second}, {SLOW}", "model.cms=nested"
    )
    assert "from fast to slow" in refusal(f"{SLOW}, {TAUGHT}", "model.cms=nested")
    assert configure(f"{TAUGHT}, {second}, {SLOW}", "model.cms=independent").model.cms == "independent"
    assert "allowed: sequential, independent, nested" in refusal(TAUGHT, "model.cms=parallel")
    assert "a level with a context needs a period" in refusal("{name: fast, period: 0, context: {rule: gd, lr: 1}}")


def test_objectives_must_fit_the_levels():
    assert "try objective.segment=64" in refusal(TAUGHT, "objective.segment=24")
    assert "at least 1 token" in refusal(TAUGHT, "objective.segment=0")
    for segment in (16, 64, 128):
        assert configure(TAUGHT, f"objective.segment={segment}").objective.segment == segment
    with pytest.raises(ConfigError, match="use objective=online, or signal: local"):
        make_job(open_option_files(None), ["model=hope_attention", f"model.levels=[{TAUGHT}]"])
    assert "use compile=off" in refusal(TAUGHT, "compile=regional")
    assert configure(SLOW, "compile=full").compile == "full"


def test_a_model_stacked_from_a_run_has_its_sizes(tmp_path):
    import yaml

    saved = {"model": {"name": "transformer", "dim": 48, "num_heads": 2, "expansion": 2.0, "levels": [], "cms": "x"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(saved))
    model = configure(f"{TAUGHT}, {SLOW}", f"stack_from={tmp_path}", "model.num_heads=4").model
    assert (model.name, model.dim, model.num_heads, model.expansion) == ("hope_attention", 48, 4, 2.0)
    assert [level.name for level in model.levels] == ["fast", "slow"] and model.cms == "sequential"
    assert "for phase=train" in refusal(SLOW, "phase=eval", f"checkpoint={tmp_path}", f"stack_from={tmp_path}")
