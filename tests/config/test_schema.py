"""Configurations: every option composes, has all its keys, is read back from its file unchanged, and trains."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from shrink import shrink

from nested_learning.command.compose import make_job, make_jobs
from nested_learning.command.main import run_phase
from nested_learning.config import schema as config
from nested_learning.config.option_files import SHIPPED, open_option_files
from nested_learning.config.registry import CHOICES, LISTED
from nested_learning.config.schema import Config
from nested_learning.errors import ConfigError
from nested_learning.ops.rules import RULES
from nested_learning.typed import convert
from nested_learning.world.config import WorldConfig

PACKAGE = Path(config.__file__).parents[1]
FILES = open_option_files(None)
OPTIONS = [(group, option) for group in CHOICES for option in FILES.options(group)]
DOMAINS = ("shakespeare_1600", "political_1788", "novel_1853", "wikipedia_2016", "python_2023")
# overrides that an option needs because its data is not shipped
NEEDED = {
    ("data", "text"): "data.path=text.py",
    ("data", "babilong"): "data.path=en-10k",
    ("data", "classes"): "data.path=labelled.jsonl data.num_tasks=2",
    ("data", "tokens"): "data.path=shards",
    ("data", "rows"): "data.path=rows.jsonl data.vocab_size=64",
    ("data", "sequence"): "data.sources={a:{name:text,path:text.py},b:{name:stdlib}}",
    ("data", "mixture"): "data.sources={a:{name:text,path:text.py}} data.weights={a:1}",
    ("experiment", "books"): "data.path=text.py",
    ("experiment", "class_incremental"): " ".join(
        ["data.path=labelled.jsonl", "data.num_tasks=2", "data.vocab_size=270", "optim.schedule.warmup=1"]
    ),
    (
        "experiment",
        "chronological",
    ): "data.sources.book.path=text.py data.segments=2 data.seq_len=16 optim.schedule.warmup=1",
    ("experiment", "domain_sequence"): " ".join(
        [
            "data.seq_len=16",
            "optim.schedule.warmup=1",
            *(f"data.sources.{name}.path=text.py data.sources.{name}.span=[0,900]" for name in DOMAINS),
        ]
    ),
    ("phase", "eval"): "checkpoint=x",
    ("phase", "sample"): "checkpoint=x",
}


def load(*lines: str) -> Config:
    """Compose and check a configuration."""
    return make_job(FILES, lines).config


def spell(group: str, option: str) -> str:
    """Return the override that chooses an option."""
    return f"{group}=[{option}]" if group in LISTED else f"{group}={option}"


def compose(group: str, option: str) -> Config:
    """Compose the default configuration with one other option."""
    needed = NEEDED[group, option].split() if (group, option) in NEEDED and group != "phase" else []
    return load(spell(group, option), *needed)


@pytest.mark.parametrize("group, option", [each for each in OPTIONS if each[0] != "phase"])
def test_every_option_composes_into_its_class_and_is_read_back_from_its_file(
    group: str, option: str, tmp_path: Path
) -> None:
    composed = compose(group, option)
    of_group = vars(composed)[group]
    chosen = of_group[option] if group in LISTED else of_group
    assert (type(chosen), chosen.name) == (CHOICES[group][option], option)
    (tmp_path / "config.yaml").write_text(config.to_yaml(composed))
    assert config.from_yaml(tmp_path / "config.yaml") == composed


def test_every_group_has_its_options_and_every_option_its_class() -> None:
    assert {group: sorted(options) for group, options in CHOICES.items()} == {
        group: FILES.options(group) for group in FILES.groups() if group not in ("experiment", "sweep")
    }


@pytest.mark.parametrize("name", FILES.options("experiment"))
def test_every_experiment_composes(name: str) -> None:
    load(f"experiment={name}")


@pytest.mark.parametrize("name", FILES.options("sweep"))
def test_every_sweep_composes(name: str) -> None:
    assert len(make_jobs(FILES, [f"sweep={name}", "seed=0"])) > 1


@pytest.mark.parametrize("group, option", OPTIONS)
def test_the_file_of_an_option_has_the_keys_of_its_class(group: str, option: str) -> None:
    written = FILES.read(f"{group}/{option}")
    if "defaults" not in written:
        assert sorted(written) == sorted(field.name for field in fields(CHOICES[group][option]))


def test_the_root_file_has_the_keys_of_the_root_class() -> None:
    groups = [group for group in CHOICES if group not in LISTED]
    written = FILES.read("train").keys() - {"defaults", "hydra"}
    assert sorted([*written, *groups]) == sorted(field.name for field in fields(Config))


@pytest.mark.parametrize("group, option", OPTIONS)
def test_a_default_that_a_class_repeats_is_that_of_its_file(group: str, option: str) -> None:
    written = FILES.read(f"{group}/{option}")
    for field in fields(CHOICES[group][option]):
        if field.default is not MISSING and written[field.name] != "???":
            assert field.default == written[field.name], f"{group}={option}: {field.name}"


def test_the_defaults_of_the_world_are_those_of_its_file() -> None:
    assert load().world == WorldConfig()


def classes(kind: Any) -> Iterator[type]:
    """Yield every dataclass that a field of `kind` can hold."""
    if is_dataclass(kind) and isinstance(kind, type):
        yield kind
        for hint in get_type_hints(kind).values():
            yield from classes(hint)
    for each in get_args(kind):
        yield from classes(each)


def test_every_key_is_read_somewhere() -> None:
    read = {
        node.attr
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    options = [option for group in CHOICES.values() for option in group.values()]
    known = {field.name for option in [Config, *options] for kind in classes(option) for field in fields(kind)}
    # optimizer groups and levels pass the keys of their rule on as a whole
    assert known - read - {key for rule in RULES.values() for key in rule.keys} == set()


@pytest.mark.parametrize(
    "line, read",
    [
        ("model.dim=64", lambda c: c.model.dim == 64),
        ("data.batch_size=8", lambda c: c.data.batch_size == 8),
        ("optim.groups.0.lr=1", lambda c: c.optim.groups[0].lr == 1.0 and type(c.optim.groups[0].lr) is float),
        ("optim.clip=null", lambda c: c.optim.clip is None),
        ("name=run-1", lambda c: c.name == "run-1"),
        ('prompt="def f(x):"', lambda c: c.prompt == "def f(x):"),
        ("sampling.temperature=0", lambda c: c.sampling.temperature == 0.0),
        ("overfit=true", lambda c: c.overfit is True),
        ("evals=[]", lambda c: c.evals == {}),
        ("evals=[validation,perplexity]", lambda c: sorted(c.evals) == ["perplexity", "validation"]),
        ("logger=wandb", lambda c: list(c.logger) == ["wandb"]),
    ],
)
def test_an_override_sets_its_key(line: str, read: Any) -> None:
    assert not read(load()) or line == "evals=[]"
    assert read(load(line))


def test_an_override_wins_over_an_experiment_and_that_over_the_options() -> None:
    assert load().steps != load("experiment=smoke").steps
    assert load("experiment=smoke", "steps=7").steps == 7
    assert load("experiment=smoke").model.dim == FILES.read("experiment/smoke")["model"]["dim"]


@pytest.mark.parametrize("prompt", ["${seed}", "1e3", "null", "???x", "a: b\n\tc #", "'\"\\"])
def test_text_is_read_back_from_a_file_as_text(prompt: str, tmp_path: Path) -> None:
    before = load()
    before.prompt = prompt
    (tmp_path / "config.yaml").write_text(config.to_yaml(before))
    assert config.from_yaml(tmp_path / "config.yaml").prompt == prompt


def test_a_file_is_read_as_strictly_as_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    values = yaml.safe_load(config.to_yaml(load()))
    path.write_text(yaml.safe_dump(values | {"step": 3}))
    with pytest.raises(ConfigError, match=r"step: no such key \(.*config.yaml\); did you mean steps\?"):
        config.from_yaml(path)
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if key != "steps"}))
    with pytest.raises(ConfigError, match="steps: missing"):
        config.from_yaml(path)
    with pytest.raises(ConfigError, match="nothing: cannot be read"):
        config.from_yaml(tmp_path / "nothing")


@pytest.mark.parametrize(
    "value, kind, result",
    [
        (3, int, 3),
        (3, float, 3.0),
        (None, int | None, None),
        ([1, 2], list[float], [1.0, 2.0]),
        ({"a": [1]}, dict[str, list[int]], {"a": [1]}),
        ("x", str | list[str] | None, "x"),
        (["x"], str | list[str] | None, ["x"]),
    ],
)
def test_values_of_the_declared_type_are_kept_as_they_are(value: Any, kind: type | UnionType, result: Any) -> None:
    converted = convert(value, kind, "key")
    assert (converted, type(converted)) == (result, type(result))


@pytest.mark.parametrize(
    "value, kind, words",
    [
        (True, int, "key=true must be a whole number"),
        (1, bool, "key=1 must be true or false"),
        (1.0, int, "key=1.0 must be a whole number"),
        ("1", float, "key='1' must be a number"),
        (None, str, "key=null must be text"),
        (2, list[int], "key=2 must be a list"),
        ([1, "x"], list[int], "key.1='x' must be a whole number"),
        ({1: 2}, dict[str, int], "key.1: a name must be text"),
    ],
)
def test_values_of_another_type_are_never_cast(value: Any, kind: type, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        convert(value, kind, "key")
    assert words in str(raised.value)


def test_composing_a_configuration_does_not_import_torch() -> None:
    modules = "nested_learning, nested_learning.config.schema, nested_learning.command.compose"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


# data=tokens needs prepared shards: tests/data/text/test_tokens.py
TRAINED = [
    *(["model=transformer", f"data={data}"] for data in FILES.options("data") if data != "tokens"),
    *(["model=titans_lmm", "data=copy", f"memory={memory}"] for memory in ("online", "frozen")),
]
# tests/train/test_resume_matrix.py also kills and resumes every model and optimizer
ALSO_TRAINED = [
    *(["data=copy", f"model={model}"] for model in FILES.options("model")),
    *(["data=copy", "model=hope", f"optim={optim}"] for optim in FILES.options("optim")),
    *([f"experiment={experiment}"] for experiment in FILES.options("experiment")),
]


@pytest.mark.parametrize(
    "lines", [*TRAINED, *(pytest.param(lines, marks=pytest.mark.slow) for lines in ALSO_TRAINED)], ids=" ".join
)
def test_every_configuration_trains_two_steps(lines: list[str], empty_folder: Path) -> None:
    (empty_folder / "text.py").write_text("def f(x):\n    return x\n" * 40)
    (empty_folder / "en-10k").mkdir()
    stories = (f"1 Mary took {i} apples.\n2 How many?\t{i}\t1\n" for i in range(40))
    (empty_folder / "en-10k" / "qa1_apples_train.txt").write_text("".join(stories))
    labelled = [f'{{"text": "word {i}", "label": "label_{i % 4}"}}' for i in range(40)]
    (empty_folder / "labelled.jsonl").write_text("\n".join(labelled))
    rows = [{"tokens": [i, i + 1], "targets": [None, i]} for i in range(40)]
    (empty_folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    needed = [each for (group, option), line in NEEDED.items() if f"{group}={option}" in lines for each in line.split()]
    result = run_phase(load(*shrink([*lines, *needed, "name=two", "evals=[]"])))
    assert (empty_folder / "runs" / "two" / "checkpoints" / "step_00000002").is_dir()
    assert result.metrics["val/loss"] > 0


def test_shipped_files_say_why_in_a_comment() -> None:
    bare = [path.name for path in SHIPPED.rglob("*.yaml") if "#" not in path.read_text(encoding="utf-8")]
    assert bare == []
