"""The commands and the Python of README and docs work as typed, at tiny sizes; each section of a page stands alone."""

import re
import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT, anchors, blocks, bring_runs, commands, is_recipe, sections
from shrink import shrink

from nested_learning.command import main as cli
from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.report import __main__ as report

PAGES = ["README.md", "docs/quickstart.md", "docs/concepts.md", "docs/how-to.md", "docs/run-directory.md"]
OTHERS = ["CONTRIBUTING.md", "CHANGELOG.md", "docs/equations.md", "docs/glossary.md", "docs/scaling.md"]
# a question of a file that users have to get
QUESTION = (
    '{"query": "The man turned on the faucet, therefore", "gold": 1, "choices": ["it snowed.", "water flowed."]}\n'
)
LINK = re.compile(r"\]\((?!https?:)([^)]+)")


# recipes are followed in a copy, by test_recipes.py
CODE = [
    (page, heading)
    for page in PAGES
    for heading, text in sections(page).items()
    if not is_recipe(text) and blocks(text, "(?:sh|python)")
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that keeps trained runs of RUNS, for all sections that a worker tests."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def working_folder(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the pages name."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    shutil.copytree(ROOT / "docs", empty_folder / "docs")
    shutil.copy(ROOT / "README.md", empty_folder)
    (empty_folder / "icl").mkdir()
    (empty_folder / "icl" / "copa.jsonl").write_text(QUESTION * 2)
    return empty_folder


def check_command(words: list[str]) -> None:
    """Run a training command at tiny sizes; of any other command check that what it names is there."""
    program, *rest = words
    if words[:2] == ["python", "train.py"]:
        shrunk = rest[1:] if "--help" in rest else shrink(rest[1:])
        if "evals.zeroshot.official=true" in rest:
            # downloads
            make_job(open_option_files(None), shrunk)
            return
        assert cli.main(shrunk) == 0, f"{shlex.join(words)}, run as {shlex.join(shrunk)}"
    elif words[:3] == ["python", "-m", "nested_learning.report"]:
        assert report.main(rest[2:]) == 0, shlex.join(words)
    elif words[:2] == ["python", "-m"]:
        assert find_spec(words[2]) is not None, shlex.join(words)
    elif program == "torchrun":
        make_job(open_option_files(None), rest[rest.index("train.py") + 1 :])
    elif program == "python":
        assert (ROOT / rest[0]).is_file(), shlex.join(words)
    elif program == "make":
        assert f"\n{rest[0]}:" in (ROOT / "Makefile").read_text(), shlex.join(words)
    elif program == "pip":
        assert "-c" not in rest or (ROOT / rest[rest.index("-c") + 1]).is_file(), shlex.join(words)
    else:
        assert program in ("tensorboard", "wandb", "cd"), f"no test knows how to check: {shlex.join(words)}"


def test_readme_begins_with_the_two_commands_that_matter() -> None:
    first = commands(sections("README.md")[""])
    assert [words[:2] for words in first[:2]] == [["make", "train"], ["make", "test"]]
    assert first[2] == ["pip", "install", "-e", ".", "-c", "constraints.txt"]


@pytest.mark.parametrize(("page", "heading"), CODE)
def test_the_commands_of_a_section_work(page: str, heading: str, working_folder: Path, runs: Path) -> None:
    text = sections(page)[heading]
    bring_runs(text, runs, Path("runs"))
    for words in commands(text):
        check_command(words)
    names: dict[str, Any] = {}
    for code in blocks(text, "python"):
        exec(code, names)


@pytest.mark.parametrize("page", [*PAGES, *OTHERS])
def test_links_lead_somewhere(page: str) -> None:
    wrong = []
    for link in LINK.findall((ROOT / page).read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


def test_readme_names_every_option() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    files = open_option_files(None)
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\w, ]+) \|", text, re.MULTILINE))
    for group in set(files.groups()) - {"experiment", "sweep"}:
        assert sorted(rows[group].split(", ")) == files.options(group)
