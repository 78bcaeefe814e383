"""W&B for real, offline: files and id in the run directory, and a resumed run continues the same W&B run."""

import builtins
from urllib.parse import urlsplit

import pytest

from nested_learning.errors import ConfigError
from nested_learning.logger.protocol import LoggedRun
from nested_learning.logger.wandb import WandbConfig, _mode

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def not_logged_in(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))


def logged_run(directory, start_step=0):
    return LoggedRun(directory, "tiny", {"model": {"name": "hope", "dim": 16}}, 4, start_step)


def config():
    return WandbConfig(name="wandb", project="nested_learning", entity=None)


def test_a_run_is_offline_in_its_own_folder_and_continues_after_a_resume(tmp_path, capsys):
    for start_step in (0, 2):
        logger = config().build(logged_run(tmp_path, start_step))
        logger.log(start_step + 1, {"train/loss": 1.5, "split": "train", "tokens": 32})
        logger.close()
    # older versions of W&B print remarks of their own
    assert "logger=wandb" not in capsys.readouterr().err
    kept = (tmp_path / "wandb_id").read_text()
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert folders and all(kept in folder.name for folder in folders)
    assert b"train/loss" in b"".join(path.read_bytes() for path in (tmp_path / "wandb").rglob("*.wandb"))


def test_a_missing_package_is_an_error_that_says_how_to_install_it(tmp_path, monkeypatch):
    whole_import = builtins.__import__

    def without_wandb(name, *args, **kwargs):
        if name == "wandb":
            raise ImportError(name)
        return whole_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_wandb)
    with pytest.raises(ConfigError, match="pip install wandb"):
        config().build(logged_run(tmp_path))


def test_a_service_that_fails_does_not_stop_the_run(tmp_path, monkeypatch, capsys):
    def refuse(**_):
        raise OSError("service down")

    monkeypatch.setattr(wandb, "init", refuse)
    logger = config().build(logged_run(tmp_path))
    logger.log(1, {"train/loss": 1.0})
    logger.close()
    assert capsys.readouterr().err.count("service down") == 1


@pytest.mark.parametrize(
    ("variables", "netrc", "mode"),
    [
        ({}, None, "offline"),
        ({}, "machine {host}\n  login user\n  password 0123\n", "online"),
        ({}, "machine other.host\n  login user\n  password 0123\n", "offline"),
        ({"WANDB_API_KEY": "0123"}, None, "online"),
        ({"WANDB_MODE": "disabled"}, None, None),
    ],
)
def test_a_run_is_online_only_for_a_user_who_is_logged_in(tmp_path, monkeypatch, variables, netrc, mode):
    if netrc is not None:
        host = urlsplit(wandb.Settings().base_url).hostname
        (tmp_path / "no-netrc").write_text(netrc.format(host=host))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert _mode(wandb) == mode
