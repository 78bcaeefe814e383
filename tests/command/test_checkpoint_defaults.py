"""Evaluating and sampling use model, data and seed of the run they read; other keys come from the command line."""

from pathlib import Path

import pytest
import yaml

from nested_learning.command.checkpoint_defaults import use_run_defaults, use_run_shape
from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.config.schema import Config, to_yaml
from nested_learning.errors import CheckpointError, ConfigError

FILES = open_option_files(None)


def load(*lines: str) -> Config:
    """Compose a configuration."""
    return make_job(FILES, lines).config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run directory with its configuration only."""
    folder = tmp_path_factory.mktemp("run")
    config = load(
        "model=titans_lmm", "model.dim=64", "optim=adamw", "optim.groups.0.lr=0.5", "data.seq_len=512",
        "data.val_rows=32", "seed=7", "sampling.num_tokens=5",
    )  # fmt: skip
    (folder / "config.yaml").write_text(to_yaml(config))
    return folder


def test_model_data_and_seed_come_from_the_run_and_nothing_else(run: Path) -> None:
    config = load("phase=eval", f"checkpoint={run}")
    assert (config.model.name, config.model.dim, config.data.val_rows, config.seed) == ("titans_lmm", 64, 32, 7)
    assert config.sampling.num_tokens == 200


def test_a_key_that_another_version_wrote_is_found_in_the_run_that_has_it(run: Path, tmp_path: Path) -> None:
    written = yaml.safe_load((run / "config.yaml").read_text())
    written["model"]["of_another_version"] = 1
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(written))
    with pytest.raises(ConfigError, match=rf"model\.of_another_version: no such key \({tmp_path}/config.yaml, perhaps"):
        load("phase=eval", f"checkpoint={tmp_path}")
    with pytest.raises(ConfigError, match=r"model\.mine: no such key \(on the command line\)"):
        load("phase=eval", f"checkpoint={run}", "model.mine=1")


def test_single_keys_of_the_command_line_replace_those_of_the_run(run: Path) -> None:
    data = load("phase=eval", f"checkpoint={run}", "data.val_rows=9").data
    assert (data.val_rows, vars(data)["seq_len"]) == (9, 512)


def test_a_group_of_the_command_line_replaces_that_of_the_run(run: Path) -> None:
    config = load("phase=eval", f"checkpoint={run}", "data=stdlib", "data.val_rows=9", "seed=0")
    assert (config.data.val_rows, vars(config.data)["seq_len"], config.seed) == (9, 256, 0)
    assert config.model.name == "titans_lmm"


def test_one_element_of_a_list_is_replaced_in_the_list_of_the_run(run: Path) -> None:
    before = load(f"branch_from={run}").optim
    for line in ("optim.groups.2.lr=0.25", "optim.groups[2].lr=0.25", f"optim.groups.{before.groups[2].name}.lr=0.25"):
        after = load(f"branch_from={run}", line).optim
        assert (before.name, before.groups[0].lr, before.groups[2].lr != 0.25) == ("adamw", 0.5, True)
        assert (after.name, [group.lr for group in after.groups]) == ("adamw", [0.5, before.groups[1].lr, 0.25])


def test_the_shape_of_stack_from_is_kept_unless_the_command_line_sets_it(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(load("model=transformer", "model.dim=64", "model.num_layers=3")))
    model = load(f"stack_from={tmp_path}", "model=hope_attention", "model.num_layers=5").model
    assert (model.name, model.dim, model.num_layers) == ("hope_attention", 64, 5)


def test_the_composed_configuration_is_not_changed_in_place(run: Path) -> None:
    composed = yaml.safe_load(to_yaml(load()))
    before = yaml.safe_dump(composed)
    use_run_defaults(composed, [], "checkpoint", str(run))
    use_run_shape(composed, str(run))
    assert yaml.safe_dump(composed) == before


@pytest.mark.parametrize("content", [None, "- a list", "a: [", b"\xff\xfe\x00"])
def test_a_missing_or_damaged_configuration_is_one_line(tmp_path: Path, content: str | bytes | None) -> None:
    if content is not None:
        (tmp_path / "config.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CheckpointError) as error:
        use_run_defaults({}, [], "checkpoint", str(tmp_path))
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
