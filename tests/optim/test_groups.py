"""Groups are a partition: each parameter is in exactly one; a parameter, group or level without a match is an error."""

import pytest
import torch
from optim.shipped import SHAPES, SHIPPED, SLOW, group, optim, parameters, shipped

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.errors import ConfigError
from nested_learning.level import Level
from nested_learning.optim.groups import partition

FILES = open_option_files(None)


def names_by_group(config, levels=()):
    return {each.name: each.names for each in partition(config.groups, parameters(), levels)}


def refusal(*groups, levels=()) -> str:
    with pytest.raises(ConfigError) as caught:
        partition(groups, parameters(), levels)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_optimizer_takes_every_parameter_once(name):
    groups = partition(shipped(name).groups, parameters(), [SLOW])
    assert sorted(key for each in groups for key in each.names) == sorted(SHAPES)


@pytest.mark.parametrize("model", FILES.options("model"))
def test_every_parameter_of_every_shipped_model_is_in_one_group_and_a_tied_embedding_is_there_once(model):
    config = make_job(FILES, [f"model={model}", "model.tie_embedding=true", "model.num_layers=2"]).config
    with torch.device("meta"):
        built = config.model.build(300, 0)
    named = list(built.named_parameters())
    for name in SHIPPED:
        groups = partition(shipped(name).groups, named, built.levels)
        assert sorted(key for each in groups for key in each.names) == sorted(key for key, _ in named), name
        members = [parameter for each in groups for parameter in each.parameters]
        assert len({id(parameter) for parameter in members}) == len(members), name
        assert any(parameter is built.head.weight is built.embedding.weight for parameter in members), name


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_optimizer_decays_matrices_only(name):
    groups = partition(shipped(name).groups, parameters(), [SLOW])
    decayed = [parameter for each in groups if each.weight_decay for parameter in each.parameters]
    assert decayed
    assert all(parameter.dim() >= 2 for parameter in decayed)


def test_mixed_muon_gives_hidden_matrices_to_muon_and_all_else_to_adamw():
    groups = partition(shipped("mixed_muon").groups, parameters(), [])
    assert [key for each in groups if each.rule == "muon" for key in each.names] == [
        "blocks.0.mixer.query.weight",
        "blocks.0.mixer.key.weight",
        "blocks.0.mixer.memory",
        "blocks.0.cms.levels.fast.up.weight",
        "blocks.0.cms.levels.slow.up.weight",
    ]


def test_muon_takes_all_parameters_of_two_dimensions_or_more():
    groups = partition(shipped("muon").groups, parameters(), [])
    ranks = {each.rule: {parameter.dim() for parameter in each.parameters} for each in groups}
    assert ranks == {"muon": {2, 3}, "adamw": {0, 1}}


def test_the_first_group_that_matches_wins():
    names = names_by_group(optim(group("keys", r"key|norm"), group("rest")))
    assert names["keys"] == [name for name in SHAPES if "key" in name or "norm" in name]


def test_a_level_of_the_model_splits_every_group_it_meets():
    matrices, rest = group("matrices", min_rank=2), group("rest")
    groups = partition([matrices, rest], parameters(), [SLOW])
    assert {each.name: each.period for each in groups} == {
        "matrices": 0,
        "matrices/slow": 300,
        "rest": 0,
        "rest/slow": 300,
    }
    assert {each.name: each.names for each in groups}["rest/slow"] == ["blocks.0.cms.levels.slow.norm.weight"]


def test_the_period_of_a_group_overrides_the_levels_of_the_model():
    groups = partition([group("matrices", min_rank=2, period=70), group("rest", period=0)], parameters(), [SLOW])
    assert {each.name: each.period for each in groups} == {"matrices": 70, "rest": 0}


def test_a_parameter_that_no_group_takes_is_an_error_that_names_it():
    message = refusal(group("some", "embedding"))
    assert "blocks.0.norm.weight of shape (6,)" in message


def test_a_group_that_matches_no_parameter_is_an_error_that_names_it():
    assert "optim.groups.0.match='convolution': group odd" in refusal(group("odd", "convolution"), group())


def test_a_group_is_refused_if_earlier_groups_take_all_its_parameters():
    assert "optim.groups.1.match='head': group late" in refusal(group(), group("late", "head"))


def test_a_parameter_with_too_few_dimensions_for_its_rule_is_an_error_with_the_override_that_fixes_it():
    message = refusal(group("matrices", rule="muon"), group("rest"))
    assert "blocks.0.norm.weight of shape (6,)" in message
    assert "set optim.groups.0.min_rank=2" in message
    assert names_by_group(optim(group("matrices", rule="muon", min_rank=2), group("rest")))


def test_a_parameter_of_two_levels_is_an_error():
    assert "blocks.0.cms.levels.slow.up.weight belongs to two levels" in refusal(
        group(), levels=[SLOW, Level("matrix", 10, r"up\.weight")]
    )


def test_a_level_without_parameters_is_an_error():
    assert "level lost" in refusal(group(), levels=[Level("lost", 10, "nothing")])
