"""Evaluating and sampling take model, data and seed from the run they read, and the rest from the command line."""

import pytest
import yaml

from nested_learning.command.checkpoint_defaults import inherit
from nested_learning.errors import CheckpointError

SAVED = {
    "model": {"name": "titans_lmm", "dim": 64, "levels": [{"name": "mlp", "period": 0}]},
    "optim": {"name": "adamw"},
    "data": {"name": "text", "path": "book.txt", "seq_len": 512, "val_rows": 32},
    "objective": {"name": "next_token"},
    "seed": 7,
    "device": "cuda",
    "sampling": {"num_tokens": 5},
}


@pytest.fixture
def given(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(SAVED))
    return {
        "model": {"name": "hope", "dim": 128, "levels": []},
        "optim": {"name": "mixed_muon"},
        "data": {"name": "stdlib", "seq_len": 256, "val_rows": 9},
        "objective": {"name": "next_token"},
        "seed": 0,
        "device": "cpu",
        "sampling": {"num_tokens": 200},
        "checkpoint": str(tmp_path),
    }


def test_the_run_brings_model_data_and_seed_and_nothing_else(given):
    config = inherit(given, ["phase", "checkpoint"])
    assert [config[key] for key in ("model", "data", "seed")] == [SAVED["model"], SAVED["data"], 7]
    assert config["device"] == "cpu" and config["sampling"] == {"num_tokens": 200}


def test_a_single_key_of_the_command_line_is_laid_over_those_of_the_run(given):
    config = inherit(given, ["data.val_rows"])
    assert config["data"] == SAVED["data"] | {"val_rows": 9}


def test_a_group_of_the_command_line_replaces_that_of_the_run(given):
    config = inherit(given, ["data", "data.val_rows", "seed"])
    assert config["data"] == given["data"] and config["seed"] == 0
    assert config["model"] == SAVED["model"]


def test_a_key_that_the_run_does_not_have_is_kept_for_the_check_of_all_keys(given):
    given["data"]["sequence"] = 3
    assert inherit(given, ["data.sequence"])["data"] == SAVED["data"] | {"sequence": 3}


def test_of_a_list_the_whole_list_is_taken(given):
    given["model"]["levels"] = [{"name": "fast", "period": 5}]
    assert inherit(given, ["model.levels[0].period"])["model"]["levels"] == given["model"]["levels"]


def test_nothing_given_is_changed(given):
    before = yaml.safe_dump(given)
    inherit(given, ["data.val_rows"])
    assert yaml.safe_dump(given) == before


@pytest.mark.parametrize("content", [None, "- a list", "a: [", b"\xff\xfe\x00"])
def test_a_missing_or_damaged_configuration_is_one_line(given, tmp_path, content):
    file = tmp_path / "config.yaml"
    file.unlink()
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CheckpointError) as error:
        inherit(given, [])
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
