"""The commands and the Python of README and docs work as typed, at tiny sizes; each section of a page stands alone."""

import re
import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from shrink import shrink

from nested_learning.command import main as cli
from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.report import __main__ as report

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "docs/quickstart.md", "docs/concepts.md", "docs/how-to.md", "docs/run-directory.md"]
OTHERS = ["CONTRIBUTING.md", "CHANGELOG.md", "docs/equations.md"]
# runs that a section may use without training them: the first commands of the README
RUNS = {"first": ["name=first", "model=hope"], "gap": ["name=gap", "experiment=recall"]}
# a question of a file that users have to get
QUESTION = (
    '{"query": "The man turned on the faucet, therefore", "gold": 1, "choices": ["it snowed.", "water flowed."]}\n'
)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def sections(page: str) -> dict[str, str]:
    """Return the text of every section of a page by its heading; the text above the first one is that of ""."""
    text = (ROOT / page).read_text(encoding="utf-8")
    # "## " begins a section where it begins a line outside of code, in which it is a comment of Python
    first, *others = re.split(r"^## ", text, flags=re.MULTILINE)
    return {"": first} | dict(other.split("\n", 1) for other in others)


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of `text` in a language; one that begins with the name of a file is part of a recipe."""
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [block for block in found if not re.match(r"# [\w/]+\.\w+\n", block)]


def commands(text: str) -> list[list[str]]:
    """Return every command in the shell blocks of `text`, split as a shell does."""
    # a backslash continues a command in the next line
    lines = [line for block in blocks(text, "sh") for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


SECTIONS = [(page, heading) for page in PAGES for heading, text in sections(page).items()]
CODE = [(page, heading) for page, heading in SECTIONS if blocks(sections(page)[heading], "(?:sh|python)")]


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


def bring_run(name: str, runs: Path) -> None:
    """Copy the run `name` of RUNS to where the commands look for it; train it first if no section has."""
    if not (runs / name).exists():
        assert cli.main(shrink([*RUNS[name], f"out={runs}"])) == 0
    shutil.copytree(runs / name, Path("runs") / name)


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
    listed = commands(text)
    trained = {word.removeprefix("name=") for words in listed for word in words if word.startswith("name=")}
    for name in RUNS.keys() - trained:
        if f"runs/{name}" in text:
            bring_run(name, runs)
    for words in listed:
        check_command(words)
    names: dict[str, Any] = {}
    for code in blocks(text, "python"):
        exec(code, names)


@pytest.mark.parametrize("page", [*PAGES, *OTHERS])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [link for link in LINK.findall(text) if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_readme_names_every_option() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    files = open_option_files(None)
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\w, ]+) \|", text, re.MULTILINE))
    for group in set(files.groups()) - {"experiment", "sweep"}:
        assert sorted(rows[group].split(", ")) == files.options(group)
