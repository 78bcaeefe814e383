"""The scripts of scripts/eval ask what `phase=eval` asks: the same configuration, the same figures."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny

from nested_learning.command import main as cli
from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.config.registry import CHOICES
from nested_learning.config.schema import Config
from nested_learning.errors import ConfigError
from nested_learning.phase.train import run
from nested_learning.report.evaluations import gather, read_reports
from scripts.eval import arguments

FOLDER = Path(__file__).parents[2] / "scripts" / "eval"
SCRIPTS = {
    "zeroshot": "zeroshot",
    "niah": "niah",
    "passkey": "passkey",
    "pg19": "perplexity",
    "continual": "continual",
    "class_incremental": "class_incremental",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a model with a memory and levels, on text."""
    folder = tmp_path_factory.mktemp("scripts")
    levels = "[{name: fast, period: 0}, {name: slow, period: 64}]"
    directory = run(tiny(folder, model="hope", model__levels=levels, name="a", steps=2, val_every=2)).directory
    assert directory is not None
    return directory


def composed(lines: list[str]) -> Config:
    return make_job(open_option_files(None), lines).config


def report(trained: Path, name: str) -> dict[str, Any]:
    """Read a report, but for what depends on the clock."""
    found = json.loads((trained / "evals" / f"{name}.json").read_text())
    return {key: value for key, value in found.items() if key not in ("cpu_seconds", "peak_memory_bytes")}


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_script_evaluates_an_existing_pack(name: str) -> None:
    tree = ast.parse((FOLDER / f"{name}.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "main"]
    assert [ast.unparse(call) for call in calls] == [f"main({SCRIPTS[name]!r}, __doc__)"]
    assert SCRIPTS[name] in CHOICES["evals"]
    # no option of a pack has the name of a flag of all, and every option is one
    given = vars(arguments.parser_of(SCRIPTS[name], "").parse_args(["--checkpoint", "x"]))
    assert set(arguments.options_of(SCRIPTS[name])) <= set(given)


def test_the_flags_give_the_configuration_of_the_overrides(trained: Path) -> None:
    flags = f"""--checkpoint {trained} --memorize --memorize-steps 2 --memory-lr 1e-2 --surprise-threshold 0.02
        --surprise-metric loss --memorize-chunk 16 --memorize-paths titan,cms_fast --memorize-layers 0,1
        --memorize-no-reset --seed 3 --device cpu --report-name again --num-texts 3 --path a,b.txt data.val_rows=7"""
    expected = [
        "phase=eval", f"checkpoint={trained}", "evals=[perplexity]", "memory=memorize", "memory.steps=2",
        "memory.lr=0.01", "memory.surprise_threshold=0.02", "memory.surprise_metric=loss", "memory.chunk=16",
        "memory.levels=[titan,fast]", "memory.layers=[0,1]", "memory.reset=carry", "seed=3", "device=cpu",
        "name=again", "evals.perplexity.num_texts=3", "evals.perplexity.path='a,b.txt'", "data.val_rows=7",
    ]  # fmt: skip
    assert composed(arguments.overrides("perplexity", "", flags.split())) == composed(expected)
    for policy in ("online", "frozen"):
        lines = arguments.overrides("perplexity", "", ["--checkpoint", str(trained), "--memory", policy])
        assert composed(lines) == composed([*expected[:3], f"memory={policy}"])


def test_an_optional_list_is_given_as_a_list(trained: Path) -> None:
    flags = ["--checkpoint", str(trained), "--tasks", "piqa,boolq", "--limit", "7", "--max-length", "null"]
    asked = composed(arguments.overrides("zeroshot", "", flags)).evals["zeroshot"]
    assert (vars(asked)["tasks"], vars(asked)["limit"], vars(asked)["max_length"]) == (["piqa", "boolq"], 7, None)
    assert (
        vars(composed(arguments.overrides("zeroshot", "", [*flags[:2], "--tasks", "null"])).evals["zeroshot"])["tasks"]
        is None
    )


def test_a_script_gives_the_same_metrics_as_train_py(trained: Path) -> None:
    flags = ["--checkpoint", str(trained), "--num-texts", "3", "--device", "cpu"]
    memorize = ["--memorize", "--memory-lr", "0.5", "--memorize-chunk", "16", "--memorize-paths", "titan,cms_slow"]
    asked = [f"checkpoint={trained}", "phase=eval", "device=cpu", "evals=[perplexity]", "evals.perplexity.num_texts=3"]
    memorized = ["memory=memorize", "memory.lr=0.5", "memory.chunk=16", "memory.levels=[titan,slow]"]
    names = ("perplexity", "perplexity_memorize")
    assert cli.main([*asked, *memorized]) == 0
    expected = [report(trained, name) for name in names]
    for name in names:
        (trained / "evals" / f"{name}.json").unlink()
    assert arguments.main("perplexity", "", [*flags, *memorize]) == 0
    assert [report(trained, name) for name in names] == expected
    assert expected[0]["metrics"]["bpb"] != expected[1]["metrics"]["bpb"]
    # and a page of many runs has it
    (results,) = gather(read_reports(trained.parent))
    policies = [model.policy for model in results.points]
    assert policies == ["online", "memorize lr=0.5 chunk=16 levels=[titan,slow]"]
    for points, report_of in zip(results.points.values(), expected, strict=True):
        assert {name: point.value for name, point in points.items()} == {
            name: figure["value"] for name, figure in report_of["metrics"].items()
        }


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--checkpoint x --memory-lr 2", "--memory-lr is for --memorize"),
        ("--checkpoint x --memorize-no-reset", "--memorize-no-reset is for --memorize"),
        ("--checkpoint x --memorize --memory frozen", "leave --memory out"),
        ("--memorize", "--checkpoint"),
        ("--checkpoint x --lenghts 3", "--lenghts"),
        ("--checkpoint nowhere", "nowhere"),
        ("--checkpoint nowhere --memorize --memorize-steps 0", "nowhere"),
    ],
)
def test_an_invalid_flag_is_refused_in_one_line(flags: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert arguments.main("perplexity", "", flags.split()) == ConfigError.exit_code
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and said in err
