"""The command line: every error is one line, before any file is created; all jobs of a sweep are checked first."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import train
from nested_learning.command import main as cli
from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files

ROOT = Path(__file__).parents[2]

# a command line, and words that its error must contain: the key and the fix
MISTAKES = {
    "an option that does not exist": ("model=hoep", ["model=hoep", "did you mean hope?", "transformer"]),
    "an option among several": ("evals=[validation,nope]", ["evals=nope", "perplexity"]),
    "no option": ("logger=null", ["logger=None", "wandb"]),
    "an experiment that does not exist": ("experiment=nope", ["experiment=nope", "smoke"]),
    "a group added to the defaults": ("+model=hope", ["+model=hope", "write model=hope"]),
    "a group at another place": ("model@other=hope", ["model@other=hope", "model=<option>"]),
    "a group inside a group": ("model/hope=x", ["model/hope", "no such group"]),
    "a mistyped group": ("modle=hope", ["modle", "did you mean model?"]),
    "a mistyped key of a group": ("model.dmi=3", ["model.dmi", "did you mean model.dim?", "num_layers"]),
    "a mistyped key of a list item": (
        "optim.groups.0.lrr=3",
        ["optim.groups.0.lrr", "did you mean optim.groups.0.lr?"],
    ),
    "a list item that is not there": ("optim.groups.9.lr=3", ["optim.groups.9.lr"]),
    "a mistyped key of a pack": ("evals.validation.rows=3", ["evals.validation.rows", "no such key"]),
    "an added key": ("+foo=1", ["foo: no such key", "steps"]),
    "a forced key": ("++sampling.foo=1", ["sampling.foo: no such key", "temperature"]),
    "a removed key": ("~model", ["~model", "set it: model="]),
    "a key below a plain value": ("model.dim.x=3", ["model.dim", "whole number"]),
    "text where a number belongs": ("model.dim=wide", ["model.dim='wide'", "whole number", "model.dim=16"]),
    "a fraction where a whole number belongs": ("steps=1.5", ["steps=1.5", "whole number"]),
    "a number where text belongs": ("name=3", ["name=3", "quote it"]),
    "a number where a switch belongs": ("overfit=1", ["overfit=1", "true or false"]),
    "null where a number belongs": ("steps=null", ["steps=null", "whole number"]),
    "nothing where a number belongs": ("steps=", ["steps=''", "steps=16"]),
    "a value that must be given": ("data=text", ["data.path", "missing"]),
    "a value out of range": ("steps=0", ["steps=0", "at least 1"]),
    "a device that does not exist": ("device=cdua", ["device=cdua", "did you mean cuda?", "mps"]),
    "a dtype that does not exist": ("dtype=float17", ["dtype=float17", "did you mean float16?", "bfloat16"]),
    "sizes that do not fit": ("model.dim=30 model.num_heads=4", ["model.dim=30", "model.num_heads=4"]),
    "a name with slashes": ("name=a/b", ["name='a/b'", "<out>/<name>"]),
    "a key given twice": ("seed=1 seed=2", ["seed", "given twice", "seed=1", "seed=2"]),
    "several values without -m": ("seed=1,2", ["seed=1,2", "add -m"]),
    "a reference to nothing": ("seed=${nope}", ["seed", "nope"]),
    "a word": ("hope", ["hope", "key=value"]),
    "a value without a key": ("=3", ["=3", "no key"]),
    "a value that cannot be read": ("data.path=f(x):", ["data.path=f(x):", "quote it twice"]),
    "a flag that does not exist": ("--fast", ["--fast", "--help"]),
    "a flag without its value": ("--cfg", ["--cfg", "one argument"]),
    "a folder that does not exist": ("--config-dir nope", ["--config-dir nope", "no such folder"]),
    "a setting of Hydra": ("hydra.run.dir=x", ["hydra.run.dir=x", "out="]),
    "a checkpoint that is missing": ("phase=eval", ["phase=eval", "checkpoint="]),
    "a checkpoint for training": ("checkpoint=x", ["checkpoint=x", "resume=x"]),
    "one bad job of a sweep": ("-m seed=0,1 model=hope,hpoe", ["model=hpoe", "did you mean hope?"]),
    "a bad value in a sweep": ("-m steps=5,-5", ["steps=-5", "at least 1"]),
    "a sweep over an interval": ("-m optim.clip=interval(0,1)", ["optim.clip", "lists its values"]),
    "a sweep over names": ("-m name=a,b", ["name", "one name="]),
    "a sweep that does not exist": ("-m sweep=nope", ["sweep=nope", "models"]),
    "a sweep to look at": ("-m seed=0,1 --cfg job", ["-m", "--cfg"]),
}


@pytest.mark.parametrize("typed, words", MISTAKES.values(), ids=MISTAKES)
def test_an_error_is_one_line_and_creates_no_file(
    typed: str, words: list[str], empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = cli.main(typed.split())
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
    assert [word for word in words if word not in err] == []
    assert list(empty_folder.iterdir()) == []


FILES = {
    "an unknown key": ("name: hope\nbase: 3\n", ["my/model/mine.yaml", "model.base", "no such key"]),
    "an unknown key of a list item": (
        "defaults: [hope, _self_]\nlevels: [{name: a, periods: 3}]\n",
        ["my/model/mine.yaml", "model.levels.0.periods"],
    ),
    "a missing key": ("name: hope\n", ["my/model/mine.yaml", "model.dim: missing"]),
    "a value left open": ("name: hope\ndim: ???\n", ["my/model/mine.yaml", "model.dim: needs a value"]),
    "a wrong type": (
        "defaults: [hope, _self_]\ndim: wide\n",
        ["my/model/mine.yaml", "model.dim='wide'", "whole number"],
    ),
    "no name": ("dim: 3\n", ["my/model/mine.yaml", "model.name: missing"]),
    "another name": ("name: [mine]\n", ["my/model/mine.yaml", "model.name", "hope_attention"]),
    "no mapping": ("3\n", ["mine.yaml"]),
    "no YAML below": ("defaults: [deep/broken]\n", ["cannot be read"]),
    "no YAML": ("name: [hope\n", ["mine.yaml", "YAML"]),
    "an option of its own that does not exist": ("defaults: [hoep]\n", ["model/hoep"]),
}


@pytest.mark.parametrize("content, words", FILES.values(), ids=FILES)
def test_an_error_in_a_users_file_names_the_file(
    content: str, words: list[str], empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty_folder / "my" / "model").mkdir(parents=True)
    (empty_folder / "my" / "model" / "mine.yaml").write_text(content)
    (empty_folder / "my" / "model" / "deep").mkdir()
    (empty_folder / "my" / "model" / "deep" / "broken.yaml").write_text("name: [hope\n")
    status = cli.main(["--config-dir", "my", "model=mine", "dry_run=true"])
    err = capsys.readouterr().err
    assert status == 2 and err.count("\n") == 1
    assert [word for word in words if word not in err] == []


@pytest.mark.parametrize(
    "prompt",
    [
        "def ",
        "def f(x):",
        "a, b",
        "it's",
        'say "hi"',
        "a\\",
        "a\\\\'b",
        "\\n",
        "${x}",
        "\\${x}",
        "",
        "'",
        "[1,2]",
        "null",
        "3",
        " é=\n",
    ],
)
def test_a_prompt_reaches_the_configuration_unchanged(prompt: str) -> None:
    assert make_job(open_option_files(None), [f"prompt={prompt}"]).config.prompt == prompt


def test_a_users_own_option_is_one_of_its_group(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (empty_folder / "my" / "memory").mkdir(parents=True)
    (empty_folder / "my" / "memory" / "still.yaml").write_text("name: frozen\n")
    assert cli.main(["--config-dir", "my", "memory=still", "--cfg", "job"]) == 0
    assert "memory:\n  name: frozen\n" in capsys.readouterr().out


def test_a_users_file_with_the_name_of_a_shipped_one_is_refused(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty_folder / "my" / "memory").mkdir(parents=True)
    (empty_folder / "my" / "memory" / "online.yaml").write_text("name: frozen\n")
    assert cli.main(["--config-dir", "my"]) == 2
    assert capsys.readouterr().err.startswith("error: my/memory/online.yaml: a shipped file has this name")


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run train.py as a user does, from another directory."""
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("typed", ["model=hoep", "model.dmi=3", "--fast"])
def test_a_process_exits_with_status_2_and_without_traceback_on_an_error(typed: str, empty_folder: Path) -> None:
    done = run(typed, cwd=empty_folder)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize(
    "typed",
    [["model.dmi=3"], ["data=text", "data.path=nope"], ["-m", "seed=0,1", "steps=0"], ["--help"], ["--cfg", "job"]],
)
def test_torch_is_not_imported_for_an_error_or_for_help(typed: list[str], empty_folder: Path) -> None:
    code = f"import sys; from nested_learning.command.main import main; main({typed}); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0


def test_other_ranks_give_the_first_one_time_to_print_its_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(cli.time, "sleep", slept.append)
    assert cli.main(["model=hoep"]) == 2 and slept == []
    monkeypatch.setenv("RANK", "1")
    assert cli.main(["model=hoep"]) == 2 and slept == [cli.PATIENCE]
    assert capsys.readouterr().err.count("did you mean hope?") == 2


def test_help_names_groups_options_and_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    for line in ("model: deltanet, gated_deltanet, hope, hope_attention, ", "steps: ", "val_every: ", "seq_len: "):
        assert line in out


def test_cfg_shows_the_configuration_with_the_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--cfg", "job", "model=transformer", "steps=7"]) == 0
    out = capsys.readouterr().out
    assert "name: transformer\n" in out and "steps: 7\n" in out


def test_train_py_and_nl_are_the_same_command() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"nl": "nested_learning.command.main:main"}
    assert train.main is cli.main


def test_ctrl_c_before_training_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(config: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_phase", interrupt)
    assert cli.main([]) == 130
    assert capsys.readouterr().err == "interrupted\n"
