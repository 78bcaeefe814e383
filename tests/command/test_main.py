"""The command line: every error is one line, before any file is created; all jobs of a sweep are checked first."""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import train
from nested_learning.command import main as cli
from nested_learning.command.compose import make_job, make_jobs
from nested_learning.config.hints import suggest
from nested_learning.config.option_files import open_option_files
from nested_learning.config.schema import to_yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def default_values() -> dict[str, Any]:
    """Return the default configuration as plain values."""
    return yaml.safe_load(to_yaml(make_job(open_option_files(None), []).config))


# a command line, and words that its error must contain: the key and the fix
MISTAKES = {
    "an option that does not exist": ("model=hoep", ["model=hoep", "did you mean hope?", "transformer"]),
    "an option among several": ("evals=[validation,nope]", ["evals=nope", "perplexity"]),
    "no option": ("logger=null", ["logger=null", "wandb"]),
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
    "a list item that is not there": ("optim.groups.9.lr=3", ["optim.groups.9: no such key", "matrices"]),
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
    "a name with slashes": ("name=a/b", ["name='a/b'", "name a folder"]),
    "several values without -m": ("seed=1,2", ["seed=1,2", "add -m\n"]),
    "several values of a list without -m": ("prompts=a,b", ["add -m", "write prompts=[a,b]"]),
    "several options without -m": ("evals=memory,niah", ["add -m", "write evals=[memory,niah]"]),
    "a list that a shell split": ("evals=[validation, niah]", ["evals=[validation,", "quote the whole argument"]),
    "a text that a shell split": ("prompt=a b", ["b: not an override", "'key=a b'"]),
    "Python's word for nothing": ("name=None", ["name=None", "name=null"]),
    "Python's word for nothing in a list": ("stages=[None]", ["stages=[None]", "stages=[null]"]),
    "an element by a name that is not there": (
        "optim.groups.matrix.lr=3",
        ["optim.groups.matrix: no such key", "did you mean optim.groups.matrices?"],
    ),
    "an element before the first": ("optim.groups.-1.lr=3", ["'optim.groups.-1.lr' is no key"]),
    "a key with a bracket left open": ("model[dim=3", ["'model[dim' is no key"]),
    "a setting of a pack that is not chosen": (
        "evals.niah.digits=3",
        ["evals.niah: not chosen", "choose it: evals=[validation,niah]"],
    ),
    "a setting of a pack that does not exist": ("evals.nia.digits=3", ["evals.nia: no such key", "evals.niah?"]),
    "a list where a mapping belongs": ("stages={}", ["stages", "--cfg job"]),
    "an interpolation of nothing": ("name=${oc.env:NO_SUCH_VARIABLE}", ["name", "NO_SUCH_VARIABLE", "write a value"]),
    "a name of two dots": ("name=..", ["name='..'", "name a folder"]),
    "a name of nothing": ("name=", ["name=''", "name a folder"]),
    "a name that is too long": (f"name={'a' * 256}", ["name='aaaa", "at most 255 bytes", "name=run-1"]),
    "a name of too many bytes": (f"name='{'é' * 128}'", ["at most 255 bytes"]),
    "a folder with a name that is too long": (f"out=runs/{'a' * 256}", ["out='runs/aaaa", "at most 255 bytes"]),
    "a run with a name that is too long": (f"branch_from={'a' * 256}", ["branch_from='aaaa", "at most 255 bytes"]),
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
    "a sweep over a pattern of nothing": ("-m model=glob(zz*)", ["model=glob(zz*)", "titans_mac"]),
    "a sweep over a pattern of values": ("-m seed=glob(1*)", ["seed=glob(1*)", "seed=a,b"]),
    "a sweep over an empty range": ("-m seed=range(3,0)", ["seed=range(3,0)", "without values"]),
    "a sweep over a range of no step": ("-m seed=range(0,3,0)", ["seed=range(0,3,0)", "no range"]),
    "a sweep over too many values": ("-m seed=range(0,1000000000)", ["more than 10000 jobs"]),
    "a sweep over too many pairs": ("-m seed=range(0,9999) steps=range(1,9)", ["79,992 jobs"]),
    "a sweep inside of a value": ("-m data.weights={a:choice(1,2)}", ["data.weights", "whole value"]),
    "a job and a setting": ("--job x.yaml seed=1", ["--job x.yaml", "leave all other arguments out"]),
    "a job that is no file": ("--job x.yaml", ["x.yaml", "cannot be read"]),
    "a package without what shows it": ("--package model", ["--package", "--cfg job"]),
    "a package that does not exist": ("--cfg job --package modle", ["--package modle", "model"]),
    "a package that Hydra does not know": ("--cfg all --package modle", ["modle"]),
    "completion of no shell": ("--shell-completion", ["install", "query"]),
    "a sweep without its flag": ("sweep=models", ["sweep=models", "add -m"]),
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
    "an option that includes itself": ("defaults: [mine, _self_]\n", ["my: model=mine", "defaults"]),
    "defaults that are no list": ("defaults: 3\n", ["model=mine", "defaults must be a list"]),
    "defaults of nothing": ("defaults: [null]\n", ["model=mine", "NoneType"]),
    "an override of no group": ("defaults: [hope, {override /modle: lstm}]\n", ["model=mine", "modle"]),
    "a mapping in the place of a list": ("defaults: [hope, _self_]\nlevels: {}\n", ["model=mine", "Cannot merge"]),
    "a reference that does not end": ("defaults: [hope, _self_]\ndim: ${\n", ["model=mine", "${"]),
    "a key that is a number": ("defaults: [hope, _self_]\n1: 2\n", ["model.1: no such key"]),
    "a key that is nothing": ("defaults: [hope, _self_]\nnull: 2\n", ["model=mine", "NoneType"]),
    "brackets without end": (f"name: {'[' * 3000}\n", ["mine.yaml", "not YAML"]),
    "settings of Hydra": ("name: hope\nhydra: {}\n", ["model=mine", "`hydra`"]),
    "options that include each other": ("defaults: [deep/back, _self_]\n", ["my: model=mine", "defaults"]),
}


@pytest.mark.parametrize("content, words", FILES.values(), ids=FILES)
def test_an_error_in_a_users_file_names_the_file(
    content: str, words: list[str], empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty_folder / "my" / "model").mkdir(parents=True)
    (empty_folder / "my" / "model" / "mine.yaml").write_text(content)
    (empty_folder / "my" / "model" / "deep").mkdir()
    (empty_folder / "my" / "model" / "deep" / "broken.yaml").write_text("name: [hope\n")
    (empty_folder / "my" / "model" / "deep" / "back.yaml").write_text("defaults: [/model/mine]\n")
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


# what people type -> the key that is meant
MEANT = {
    "lr": "optim.groups.embedding.lr, optim.groups.matrices.lr or optim.groups.vectors.lr",
    "learning_rate": "optim.groups.embedding.lr, optim.groups.matrices.lr or optim.groups.vectors.lr",
    "optim.lr": "optim.groups.embedding.lr, optim.groups.matrices.lr or optim.groups.vectors.lr",
    "optim.groups.matrices.learning_rate": "optim.groups.matrices.lr",
    "batch_size": "data.batch_size",
    "seq_len": "data.seq_len",
    "context_length": "data.seq_len",
    "epochs": "steps",
    "max_steps": "steps",
    "val_rows": "data.val_rows",
    "hidden_size": "model.dim",
    "model.d_model": "model.dim",
    "n_layers": "model.num_layers",
    "heads": "model.num_heads",
    "warmup_steps": "optim.schedule.warmup",
    "optim.warmup": "optim.schedule.warmup",
    "grad_clip": "optim.clip",
    "optimizer": "optim",
    "optimizer.clip": "optim.clip",
    "dataset": "data",
    "output_dir": "out",
    "run_name": "name",
    "bf16": "dtype",
    "temperature": "sampling.temperature",
    "max_new_tokens": "sampling.num_tokens",
    "gradient_accumulation_steps": "micro_batches",
    "dropout": "model.dropout",
    "num_head": "model.num_heads",
    "setps": "steps",
}


@pytest.mark.parametrize("key", MEANT)
def test_a_natural_key_is_answered_with_the_one_that_is_meant(key: str, default_values: dict[str, Any]) -> None:
    assert suggest(key, default_values, list(default_values)) == f"did you mean {MEANT[key]}? "


@pytest.mark.parametrize(
    "key, options",
    [
        ("model.window", ["model=transformer", "model=titans_mag", "model=hope_attention"]),
        ("memory.steps", ["memory=memorize"]),
        ("phase.to", ["phase=export"]),
        ("launcher.n_jobs", ["launcher=joblib"]),
        ("data.gap", ["data=recall"]),
    ],
)
def test_a_key_of_other_options_is_answered_with_these(
    key: str, options: list[str], default_values: dict[str, Any]
) -> None:
    hint = suggest(key, default_values, [])
    assert hint.startswith("only ") and [option for option in options if option not in hint] == []


SWEEPS = {
    "variants: 3": "variants must be settings by name",
    "variants: {a: 3}": "variants must be settings by name",
    "variants: [a]": "variants must be settings by name",
    "sweep: models": "names another sweep",
    "seed: null": "seed=null",
    "1: 2": "'1' is no key",
    "variants: {a: {steps: 1}}\nsteps: 2": "steps: given twice",
}


@pytest.mark.parametrize("content", SWEEPS)
def test_an_error_in_a_sweep_file_is_one_line(
    content: str, empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty_folder / "my" / "sweep").mkdir(parents=True)
    (empty_folder / "my" / "sweep" / "mine.yaml").write_text(content)
    assert cli.main(["--config-dir", "my", "-m", "sweep=mine"]) == 2
    err = capsys.readouterr().err
    assert SWEEPS[content] in err and err.count("\n") == 1


def test_only_files_are_options_and_only_of_groups_that_there_are(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty_folder / "my" / "experiment" / "folder.yaml").mkdir(parents=True)
    (empty_folder / "my" / "zoo").mkdir()
    (empty_folder / "my" / "zoo" / "lion.yaml").write_text("name: lion\n")
    for given, words in (("experiment=folder", "no such option"), ("zoo=lion", "zoo: no such group")):
        assert cli.main(["--config-dir", "my", given]) == 2
        assert words in capsys.readouterr().err


def test_the_last_of_two_values_wins_and_the_answer_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["steps=6", "model=hope", "optim.groups[0].lr=1", "steps=2", "model=lstm", "optim.groups.0.lr=2"]
    assert cli.main(["--cfg", "job", *given]) == 0
    out, err = capsys.readouterr()
    shown = yaml.safe_load(out)
    assert (shown["steps"], shown["model"]["name"], shown["optim"]["groups"][0]["lr"]) == (2, "lstm", 2)
    assert err.splitlines() == [f"{given[i]}: given again later, {given[i + 3]} is used" for i in range(3)]


def test_an_element_of_a_list_has_a_number_and_a_name() -> None:
    given = ["optim.groups.matrices.lr=1", "optim.groups.0.lr=2", "optim.groups[2].lr=3", "model.levels.fast.period=7"]
    config = make_job(open_option_files(None), given).config
    assert [group.lr for group in config.optim.groups] == [2, 1, 3]
    assert config.model.levels[0].period == 7


def test_a_pattern_sweeps_over_the_options_that_match() -> None:
    jobs = make_jobs(open_option_files(None), ["model=glob(titans_ma*)"])
    assert [job.swept["model"] for job in jobs] == ["titans_mac", "titans_mag", "titans_mal"]
    jobs = make_jobs(open_option_files(None), ["optim=glob([m*,d*],exclude=[*mom*,mixed*])"])
    assert [job.swept["optim"] for job in jobs] == ["dgd", "m3", "muon"]


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("a\nb"), RecursionError(), OSError("gone")])
def test_a_fault_of_the_program_is_one_line_and_a_file_to_report(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(config: object) -> None:
        raise error

    monkeypatch.setattr(cli, "run_phase", fail)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert cli.main([]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: {type(error).__name__}") and "please report it" in err and err.count("\n") == 1
    (file,) = tmp_path.iterdir()
    assert str(file) in err and "Traceback (most recent call last)" in file.read_text()


def test_an_error_of_the_file_system_is_one_line_that_names_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(cli, "run_phase", lambda config: (tmp_path / "is a folder").mkdir(parents=True))
    assert cli.main([]) == 0
    assert cli.main([]) == 2
    assert (
        capsys.readouterr().err
        == f"error: {tmp_path}/is a folder: File exists; check the path and who may read and write it\n"
    )


def test_a_fault_in_one_job_of_a_sweep_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], empty_folder: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(cli, "run_phase", lambda config: [][config.seed])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert cli.main(["-m", "seed=0,1"]) == 2
    err = capsys.readouterr().err
    assert "2 of 2 jobs failed" in err and err.count("IndexError") == 2 and err.count("\n") == 1


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


# what is answered without torch, so within a second and a half: mistakes of every kind, and help
WITHOUT_TORCH = [
    ["model.dmi=3"],
    ["--fast"],
    ["steps"],
    ["steps=0"],
    ["model=hoep"],
    ["optim.clip=nan"],
    ["data=text", "data.path=nope"],
    ["-m", "seed=0,1", "steps=0"],
    ["resume=never", "checkpoint=runs/nope"],
    ["phase=eval"],
    ["phase=eval", "checkpoint=nope"],
    ["phase=sample", "checkpoint=nope"],
    ["branch_from=nope"],
    ["stack_from=nope"],
    ["--help"],
    ["--cfg", "job"],
]


def test_torch_is_not_imported_for_an_error_or_for_help() -> None:
    code = (
        "import sys; from nested_learning.command.main import main\n"
        f"print([typed for typed in {WITHOUT_TORCH} if main(typed) not in (0, 2) or 'torch' in sys.modules][:1])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


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
