"""The docs say what is there: places of equations, keys of files, examples that run."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT, anchors
from tiny import tiny

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.phase.train import run

# `file.py:name` or `file.py`
PLACE = re.compile(r"`([\w/]+\.py)(?::([\w.]+))?`")


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def examples(page: str, language: str) -> list[str]:
    """Return the fenced blocks of `page` in `language`."""
    return re.findall(rf"^```{language}\n(.*?)^```", read(page), re.DOTALL | re.MULTILINE)


def defines(body: list[ast.stmt], names: list[str]) -> bool:
    """Say whether `names`, such as a class and its method, are defined inside one another in `body`."""
    if not names:
        return True
    named = [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == names[0]]
    return any(defines(node.body, names[1:]) for node in named)


@pytest.mark.parametrize("page", ["docs/equations.md", "docs/glossary.md"])
def test_the_places_that_a_page_names_exist(page: str) -> None:
    places = PLACE.findall(read(page))
    assert len(places) > 20
    missing = []
    for path, name in places:
        file = ROOT / "nested_learning" / path
        if not file.is_file() or not defines(ast.parse(file.read_text()).body, name.split(".") if name else []):
            missing.append(f"{path}:{name}")
    assert missing == []


def test_every_word_of_the_glossary_leads_to_its_code() -> None:
    rows = re.findall(r"^\| (.+?) \| .+ \| (.+) \|$", read("docs/glossary.md"), re.MULTILINE)
    words = {word: where for word, where in rows if word != "word"}
    assert [word for word, where in words.items() if not PLACE.search(where) and "](" not in where] == []
    names = " ".join(words)
    for word in ("nats", "bits per byte", "surprise", "level", "chunk", "period", "memorize", "titan", "segment"):
        assert word in names


def test_equation_88_is_three_links_from_the_readme() -> None:
    link = re.search(r"\[docs/equations\.md\]\((docs/equations\.md#[\w-]+)\)", read("README.md"))
    assert link is not None
    page, anchor = link[1].split("#")
    assert anchor in anchors(ROOT / page)
    row = next(line for line in read(page).splitlines() if "[NL] eq. 88-93" in line)
    assert "`ops/self_modifying.py:naive_self_modifying`" in row


def test_every_equation_that_a_docstring_names_has_a_row() -> None:
    # rows name equations of Nested Learning as 83-84, 86; docstrings as "equations 83-84 and 86-87"
    rows = {number for line in read("docs/equations.md").splitlines() if "[NL] eq." in line for number in numbers(line)}
    for path in (ROOT / "nested_learning").rglob("*.py"):
        for found in re.findall(r"2512\.24695,\s+equations? ([\d\-, and]+)", path.read_text()):
            assert numbers(f"eq. {found}") <= rows, f"{path.name}: equations {found}"


def numbers(text: str) -> set[int]:
    """Return the equation numbers after "eq." in `text`, with those inside ranges."""
    found: set[int] = set()
    for part in re.findall(r"eq\. ([\d\-, and]+)", text):
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", part):
            found |= set(range(int(first), int(last or first) + 1))
    return found


def test_files_of_the_users_own_compose(empty_folder: Path) -> None:
    files = [text for text in examples("docs/how-to.md", "yaml") if text.startswith("# my/")]
    for text in files:
        path = empty_folder / text.splitlines()[0].removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(text.splitlines(keepends=True)[1:]))
    mine = open_option_files("my")
    assert make_job(mine, ["model=slim"]).config.model.dim == 64
    assert make_job(mine, ["experiment=long"]).config.steps == 2000
    assert len(files) == 2


@pytest.mark.parametrize("data", [{}, {"data": "copy", "data__length": 4}], ids=["text", "task"])
def test_everything_in_a_run_directory_is_described(data: dict[str, Any], tmp_path: Path) -> None:
    directory = run(tiny(tmp_path, name="a", **data)).directory
    assert directory is not None
    page = read("docs/run-directory.md")
    names = {path.name for path in directory.rglob("*")} - {"step_00000006"}
    for file in ("summary.json", "environment.json", "checkpoints/step_00000006/progress.json"):
        names |= set(json.loads((directory / file).read_text()))
    for line in (directory / "metrics.jsonl").read_text().splitlines():
        names |= set(json.loads(line))
    assert [name for name in sorted(names) if f"{name}`" not in page] == []
