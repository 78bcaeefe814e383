"""The recipes of docs/how-to.md, followed literally in a copy of the package: files, edits, commands."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, blocks, bring_runs, commands, is_recipe, sections
from shrink import shrink

HOW_TO = sections("docs/how-to.md")
RECIPES = [heading for heading, text in HOW_TO.items() if is_recipe(text)]
# what recipes add to, or need to run
COPIED = ["nested_learning", "configs", "tests", "train.py", "pyproject.toml"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the package, its options and its tests."""
    for name in COPIED:
        source, target = ROOT / name, tmp_path / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return tmp_path


def follow(text: str, checkout: Path) -> None:
    """Write the files of a recipe and make its edits, in the order of the page."""
    for block in blocks(text, "(?:python|yaml|diff)"):
        first, rest = block.split("\n", 1)
        path = checkout / first.removeprefix("# ")
        if all(line[:1] in ("", " ", "+", "-", "@") for line in rest.splitlines()):
            path.write_text(edit(path.read_text(), rest, path))
        else:
            assert not path.exists(), f"{path} is there already: show an edit of it"
            path.write_text(rest)


def edit(text: str, diff: str, path: Path) -> str:
    """Return `text` with the changes of a diff whose hunks stand apart by @@; what they replace occurs once."""
    for hunk in re.split(r"^@@.*\n", diff, flags=re.MULTILINE):
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] or line for line in lines if line[0] != "+")
        after = "".join(line[1:] or line for line in lines if line[0] != "-")
        assert text.count(before) == 1, f"{path} has {text.count(before)} times\n{before}"
        text = text.replace(before, after)
    return text


def type_command(words: list[str], checkout: Path) -> None:
    """Run a command of a recipe in the copy, at a tiny size."""
    program, *rest = words
    assert program == "python", shlex.join(words)
    if rest[0] == "train.py":
        rest = ["train.py", *shrink(rest[1:])]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *rest], cwd=checkout, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("heading", RECIPES)
def test_a_recipe_works_as_it_is_written(
    heading: str, checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = HOW_TO[heading]
    follow(text, checkout)
    bring_runs(text, tmp_path_factory.mktemp("shelf"), checkout / "runs")
    assert commands(text) != []
    for words in commands(text):
        type_command(words, checkout)


def test_there_is_one_recipe_for_each_thing_to_add() -> None:
    added = " ".join(RECIPES)
    for thing in ("model", "memory", "optimizer", "data source", "evaluation", "phase"):
        assert thing in added
