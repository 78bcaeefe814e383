"""Scripts: an experiment stands alone, files import each other without a cycle, and every printed command exists."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "scripts").rglob("*.py"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "Makefile",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "reports").glob("*.md")),
    *sorted((ROOT / "configs").rglob("*.yaml")),
    *FILES,
    *sorted((ROOT / "scripts").rglob("*.sh")),
    *sorted((ROOT / "nested_learning").rglob("*.py")),
]
MODULE = re.compile(r"python -m ((?:scripts|nested_learning)[\w.]*\w)")
FILE = re.compile(r"(?<![\w/.-])((?:\.\./)?scripts/[\w./]+\.(?:py|sh|c))\b")


def module_of(path: Path) -> str:
    """Return the name that a script is imported by."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports, those of type checkers and inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def scripts_in(path: Path) -> set[str]:
    """Return the scripts that a file imports."""
    known = {module_of(each) for each in FILES}
    return {name for full in imports(path) for name in (full, full.rpartition(".")[0]) if name in known}


@pytest.mark.parametrize("path", [path for path in FILES if "experiments" in path.parts], ids=module_of)
def test_an_experiment_imports_only_its_own_folder_and_the_package(path: Path) -> None:
    own = module_of(path).rpartition(".")[0]
    for name in imports(path):
        assert not name.startswith("scripts.") or name.startswith(f"{own}."), f"{module_of(path)} imports {name}"


def test_no_scripts_import_each_other_in_a_cycle() -> None:
    graph = {module_of(path): scripts_in(path) for path in FILES}
    assert any(graph.values())
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def file_of(module: str) -> Path:
    """Return the file that `python -m module` runs."""
    path = ROOT / module.replace(".", "/")
    return path / "__main__.py" if path.is_dir() else path.with_suffix(".py")


def test_every_script_that_a_page_names_exists() -> None:
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES}
    commands = {(page, module) for page, text in texts.items() for module in MODULE.findall(text)}
    names = {(page, name) for page, text in texts.items() for name in FILE.findall(text)}
    assert len(commands) > 60 and len(names) > 20
    for page, module in commands:
        path = file_of(module)
        assert path.is_file(), f"{page.name}: python -m {module}"
        is_run = path.name == "__main__.py" or '__name__ == "__main__"' in path.read_text(encoding="utf-8")
        assert is_run, f"{page.name}: python -m {module} does nothing"
    for page, name in names:
        assert (ROOT / name.removeprefix("../")).is_file(), f"{page.name}: {name}"
