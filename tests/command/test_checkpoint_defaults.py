"""Evaluating and sampling use model, data and seed of the run they read; other keys come from the command line."""

import pytest
import yaml

from nested_learning.command.checkpoint_defaults import use_run_defaults
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
def composed(tmp_path):
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


def test_model_data_and_seed_come_from_the_run_and_nothing_else(composed):
    config = use_run_defaults(composed, ["phase", "checkpoint"])
    assert [config[key] for key in ("model", "data", "seed")] == [SAVED["model"], SAVED["data"], 7]
    assert config["device"] == "cpu" and config["sampling"] == {"num_tokens": 200}


def test_a_single_key_of_the_command_line_replaces_that_of_the_run(composed):
    config = use_run_defaults(composed, ["data.val_rows"])
    assert config["data"] == SAVED["data"] | {"val_rows": 9}


def test_a_group_of_the_command_line_replaces_that_of_the_run(composed):
    config = use_run_defaults(composed, ["data", "data.val_rows", "seed"])
    assert config["data"] == composed["data"] and config["seed"] == 0
    assert config["model"] == SAVED["model"]


def test_a_key_that_the_run_does_not_have_is_kept_for_the_check_of_all_keys(composed):
    composed["data"]["sequence"] = 3
    assert use_run_defaults(composed, ["data.sequence"])["data"] == SAVED["data"] | {"sequence": 3}


def test_a_list_is_replaced_as_a_whole(composed):
    composed["model"]["levels"] = [{"name": "fast", "period": 5}]
    assert use_run_defaults(composed, ["model.levels[0].period"])["model"]["levels"] == composed["model"]["levels"]


def test_the_composed_configuration_is_not_changed_in_place(composed):
    before = yaml.safe_dump(composed)
    use_run_defaults(composed, ["data.val_rows"])
    assert yaml.safe_dump(composed) == before


@pytest.mark.parametrize("content", [None, "- a list", "a: [", b"\xff\xfe\x00"])
def test_a_missing_or_damaged_configuration_is_one_line(composed, tmp_path, content):
    file = tmp_path / "config.yaml"
    file.unlink()
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CheckpointError) as error:
        use_run_defaults(composed, [])
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
